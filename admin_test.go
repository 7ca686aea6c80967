package resilience

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const adminToken = "a-token-of-this-test-5f3a9c"

// newAdmin returns the handler of a middleware that has nothing but admin. Its context ends with the test.
func newAdmin(t *testing.T, config *AdminConfig) (http.Handler, *upstream) {
	return newGateway(t, &Config{Name: "admin", Admin: config})
}

// asking is a request for a path of admin. An address without a port is that of the connection.
type asking struct {
	method, path, address string
	header                map[string]string
}

func ask(handler http.Handler, a asking) *httptest.ResponseRecorder {
	if a.method == "" {
		a.method = "GET"
	}
	if a.address == "" {
		a.address = "127.0.0.1"
	}
	r := httptest.NewRequest(a.method, a.path, nil)
	r.RemoteAddr = a.address + ":1234"
	for name, value := range a.header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// statusIn returns the answer of admin's status.
func statusIn(t *testing.T, handler http.Handler) map[string]interface{} {
	w := ask(handler, asking{path: "/resilience/status"})
	require.Equal(t, 200, w.Code, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	var status map[string]interface{}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &status))
	return status
}

// namesIn returns the names of the middlewares in a status.
func namesIn(status map[string]interface{}) []string {
	names := []string{}
	for _, one := range status["middlewares"].([]interface{}) {
		names = append(names, one.(map[string]interface{})["name"].(string))
	}
	return names
}

func TestAdmin_whoMayAsk(t *testing.T) {
	setenv(t, "TOKEN_OF_ADMIN", adminToken)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(adminToken+"\n"), 0o600))
	bearer := func(token string) map[string]string { return map[string]string{"Authorization": "Bearer " + token} }
	for _, row := range []struct {
		name    string
		config  AdminConfig
		address string
		header  map[string]string
		status  int
	}{
		{"this host", AdminConfig{}, "127.0.0.1", nil, 200},
		{"this host, another address of it", AdminConfig{}, "127.9.8.7", nil, 200},
		{"this host over IPv6", AdminConfig{}, "[::1]", nil, 200},
		{"this host as an IPv6 address of IPv4", AdminConfig{}, "[::ffff:127.0.0.1]", nil, 200},
		{"another host", AdminConfig{}, "192.0.2.1", nil, 403},
		{"no address", AdminConfig{}, "", map[string]string{"X-No-Address": "yes"}, 403},
		{"another host that says it is this one", AdminConfig{}, "192.0.2.1", map[string]string{
			"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "Forwarded": "for=127.0.0.1",
		}, 403},
		{"another host, public", AdminConfig{Public: "true"}, "192.0.2.1", nil, 200},
		{"the token", AdminConfig{TokenEnv: "TOKEN_OF_ADMIN"}, "192.0.2.1", bearer(adminToken), 200},
		{"the token in a file", AdminConfig{TokenFile: file}, "192.0.2.1", bearer(adminToken), 200},
		{"the token, and another spelling of Bearer", AdminConfig{TokenFile: file}, "192.0.2.1", map[string]string{"Authorization": "bearer " + adminToken}, 200},
		{"no token", AdminConfig{TokenFile: file}, "192.0.2.1", nil, 401},
		{"no token, from this host", AdminConfig{TokenFile: file}, "127.0.0.1", nil, 401},
		{"no token, although public", AdminConfig{TokenFile: file, Public: "true"}, "127.0.0.1", nil, 401},
		{"a wrong token", AdminConfig{TokenFile: file}, "127.0.0.1", bearer("another"), 401},
		{"an empty token", AdminConfig{TokenFile: file}, "127.0.0.1", bearer(""), 401},
		{"the beginning of the token", AdminConfig{TokenFile: file}, "127.0.0.1", bearer(adminToken[:10]), 401},
		{"the token and more", AdminConfig{TokenFile: file}, "127.0.0.1", bearer(adminToken + "x"), 401},
		{"the token as basic authentication", AdminConfig{TokenFile: file}, "127.0.0.1", map[string]string{"Authorization": "Basic " + adminToken}, 401},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			handler, up := newAdmin(t, &row.config)
			request := asking{path: "/resilience/status", address: row.address, header: row.header}
			if row.address == "" {
				request.address = "nobody"
			}
			w := ask(handler, request)
			require.Equal(t, row.status, w.Code)
			require.NotContains(t, w.Body.String(), adminToken)
			if row.status == 401 {
				require.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer")
			}
			if row.status != 200 {
				require.Regexp(t, `^{"error":"`, w.Body.String())
			}
			require.Equal(t, 0, up.count())
		})
	}
}

func TestAdmin_answersOnlyBelowItsPath(t *testing.T) {
	newProcess(t, 0)
	handler, up := newAdmin(t, &AdminConfig{Path: "/internal/admin/"})
	for _, path := range []string{"/", "/internal", "/internal/administrator", "/resilience/status", "/status"} {
		require.Equal(t, "hello", ask(handler, asking{path: path}).Body.String(), path)
	}
	require.Equal(t, 5, up.count())
	require.Equal(t, 200, ask(handler, asking{path: "/internal/admin/status"}).Code)
	require.Equal(t, 404, ask(handler, asking{path: "/internal/admin/nothing"}).Code)
	require.Equal(t, 405, ask(handler, asking{method: "POST", path: "/internal/admin/status"}).Code)
	head := ask(handler, asking{method: "HEAD", path: "/internal/admin/status"})
	require.Equal(t, 200, head.Code)
	require.Empty(t, head.Body.String())
	moved := ask(handler, asking{path: "/internal/admin"})
	require.Equal(t, 308, moved.Code)
	require.Equal(t, "/internal/admin/", moved.Header().Get("Location"))
	require.Equal(t, 5, up.count())
}

func TestAdmin_wrongConfigurations(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for _, row := range []struct {
		config  AdminConfig
		problem string
	}{
		{AdminConfig{Path: "resilience"}, `admin.path: "resilience" is not a path that begins with / and holds no ?, #, % or space, and more than a slash, such as "/resilience"`},
		{AdminConfig{Path: "/"}, `admin.path: "/" is not a path`},
		{AdminConfig{Path: "/a b"}, `admin.path: "/a b" is not a path`},
		{AdminConfig{TokenEnv: "NOT_SET_ANYWHERE"}, `admin.tokenEnv: the variable "NOT_SET_ANYWHERE" is not set in Traefik's environment, or empty; set it to the token, or leave tokenEnv out`},
		{AdminConfig{TokenFile: empty}, `is empty; write the token into it, or leave tokenFile out`},
		{AdminConfig{TokenFile: "/nowhere/token"}, `admin.tokenFile: `},
		{AdminConfig{TokenEnv: "A", TokenFile: "b"}, `admin: tokenEnv and tokenFile exclude each other; write one of them`},
		{AdminConfig{Public: "yes"}, `admin.public: "yes" is neither true nor false`},
		{AdminConfig{Unknown: map[string]interface{}{"pat": "/x"}}, `admin.pat: there is no such key; did you mean "path"?`},
	} {
		config := row.config
		_, err := New(context.Background(), &upstream{}, &Config{Admin: &config}, t.Name())
		require.ErrorContains(t, err, row.problem)
	}
}

func TestAdmin_showsTheMiddlewaresOfThisProcess(t *testing.T) {
	newProcess(t, time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	add := func(ctx context.Context, config *Config) { newHandler(t, ctx, &upstream{}, config) }
	add(ctx, &Config{Name: "shop", RateLimit: tokens("5")})
	add(ctx, &Config{Name: "shop", RateLimit: tokens("5"), CircuitBreaker: failures("3")})
	add(ctx, &Config{Name: "only-health", Health: &HealthConfig{}})
	handler := newHandler(t, ctx, &upstream{}, &Config{Name: "console", Admin: &AdminConfig{}})
	add(ctx, &Config{Name: "late", CircuitBreaker: failures("3")})
	status := statusIn(t, handler)
	require.Equal(t, []string{"late", "shop"}, namesIn(status))
	shop := status["middlewares"].([]interface{})[1].(map[string]interface{})
	require.Equal(t, 2.0, shop["routers"])
	require.Contains(t, shop["settings"], "rate limit: 5 at once, 1 each 1h0m0s")

	cancel() // a reload, which removes one, and adds another one on another Redis
	next, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	require.Equal(t, []string{"late", "shop"}, namesIn(statusIn(t, handler)), "until there are others")
	waitFor(t, func() bool {
		processRegistry.mu.Lock()
		defer processRegistry.mu.Unlock()
		return !processRegistry.cancelled.IsZero()
	})
	handler = newHandler(t, next, &upstream{}, &Config{Name: "console", Admin: &AdminConfig{}})
	add(next, &Config{Name: "shop", RateLimit: tokens("6")})
	require.Equal(t, []string{"late", "shop"}, namesIn(statusIn(t, handler)), "the new one may come yet")
	add(next, &Config{Name: "shop", RateLimit: tokens("6"), Redis: at(closedPort)})
	processRegistry.mu.Lock()
	processRegistry.cancelled = time.Time{} // five seconds later
	processRegistry.mu.Unlock()
	status = statusIn(t, handler)
	names := namesIn(status)
	require.Len(t, names, 2)
	require.Equal(t, "shop", names[0])
	require.Regexp(t, "^shop#[0-9a-f]{6}$", names[1])
}

func TestAdmin_thePageHoldsNoDataAndLoadsNothing(t *testing.T) {
	setenv(t, "TOKEN_OF_ADMIN", adminToken)
	newProcess(t, 0)
	newGateway(t, &Config{Name: "the-only-shop", RateLimit: tokens("5")})
	handler, _ := newAdmin(t, &AdminConfig{TokenEnv: "TOKEN_OF_ADMIN"})
	w := ask(handler, asking{path: "/resilience/", address: "192.0.2.1"})
	require.Equal(t, 200, w.Code, "it needs no token")
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	page := w.Body.String()
	require.NotContains(t, page, "the-only-shop")
	require.NotContains(t, page, adminToken)
	require.NotContains(t, page, "src=")
	require.NotContains(t, page, "innerHTML")
	policy := w.Header().Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.NotContains(t, policy, "unsafe")
	script := page[strings.Index(page, "<script>")+len("<script>") : strings.Index(page, "</script>")]
	require.Contains(t, policy, "script-src '"+hashForPolicy(script)+"'")
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))

	handler, _ = newAdmin(t, &AdminConfig{})
	require.Equal(t, 403, ask(handler, asking{path: "/resilience/", address: "192.0.2.1"}).Code, "without a token only this host")
	require.Equal(t, 200, ask(handler, asking{path: "/resilience/"}).Code)
}
