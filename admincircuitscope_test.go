package resilience

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// forceScope changes the circuit of a scope through admin, and returns the status and the answer.
func forceScope(admin http.Handler, what, scope string) (int, map[string]interface{}) {
	glue := "?"
	if strings.Contains(what, "?") {
		glue = "&"
	}
	w := ask(admin, asking{method: "POST", path: "/resilience/circuits/" + what + glue + "scope=" + url.QueryEscape(scope), header: map[string]string{"X-Resilience": "1"}})
	answer := map[string]interface{}{}
	json.Unmarshal(w.Body.Bytes(), &answer)
	return w.Code, answer
}

// scopesIn returns what the status shows of the circuits of scopes, by scope.
func scopesIn(t *testing.T, admin http.Handler) map[string]map[string]interface{} {
	shown := map[string]map[string]interface{}{}
	scopes := shopIn(t, admin)["circuit"].(map[string]interface{})["scopes"].(map[string]interface{})
	for _, one := range scopes["circuits"].([]interface{}) {
		circuit := one.(map[string]interface{})
		shown[circuit["scope"].(string)] = circuit
	}
	return shown
}

func scopedBreaker(scope string) *CircuitBreakerConfig {
	config := failures("1")
	config.Scope = scope
	return config
}

// hostHash is how a host is shown that has other characters than host names have.
func hostHash(host string) string { return "host:" + identity.Hash(host) }

func TestForcedScope_onlyThatOfTheScope(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Name: "shop", Redis: redis, RateLimit: tokens("1000"), CircuitBreaker: scopedBreaker("host")})
		admin := console(t)
		log := captureLog(t)
		require.Equal(t, 200, getFrom(handler, "a.example", "/"))
		require.Equal(t, 200, getFrom(handler, "b.example", "/"))

		code, answer := forceScope(admin, "shop/open?for=1h&reason=a+repair", "a.example")
		require.Equal(t, 200, code)
		require.Equal(t, "host:a.example", answer["scope"])
		require.Equal(t, true, answer["known"])
		require.Equal(t, "open", answer["state"])
		waitFor(t, func() bool { return getFrom(handler, "A.example:443", "/") == 503 }, "in each spelling")
		require.Equal(t, 200, getFrom(handler, "b.example", "/"))
		require.Equal(t, 200, getFrom(handler, "", "/"), "the middleware's own circuit")
		forced := scopesIn(t, admin)["host:a.example"]["forced"].(map[string]interface{})
		require.Equal(t, "open", forced["state"])
		require.Equal(t, "a repair", forced["reason"])
		require.Nil(t, scopesIn(t, admin)["host:b.example"]["forced"])
		require.Nil(t, forcedIn(t, admin))
		log.eventually(t, 1, `"message":"circuit opened by hand","middleware":"shop","reason":"a repair","scope":"host:a.example"`)

		code, _ = forceScope(admin, "shop/close?for=1h", "host:a.example")
		require.Equal(t, 200, code)
		up.will(status(500))
		for i := 0; i < 3; i++ {
			require.Equal(t, 500, getFrom(handler, "a.example", "/"), "whatever fails")
		}
		require.Equal(t, 500, getFrom(handler, "b.example", "/"))
		waitFor(t, func() bool { return getFrom(handler, "b.example", "/") == 503 })
		code, answer = forceScope(admin, "shop/auto", "a.example")
		require.Equal(t, 200, code)
		require.Nil(t, answer["forced"])
		require.Equal(t, 500, getFrom(handler, "a.example", "/"))
		waitFor(t, func() bool { return getFrom(handler, "a.example", "/") == 503 }, "failures count again")
	})
}

// What an operator does on one gateway holds on the others, whether they know the scope or not, and on one that starts later.
func TestForcedScope_holdsForTheFleet(t *testing.T) {
	server := redistest.Start(t)
	config := &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: scopedBreaker("path:/api/{tenant}/{part}/*")}
	newProcess(t, 0)
	one, _ := newGateway(t, config)
	adminOfOne := console(t)
	newProcess(t, 0)
	two, up := newGateway(t, config)
	adminOfTwo := console(t)
	require.Equal(t, 200, getFrom(two, "a.example", "/api/acme/süd/x"))

	code, answer := forceScope(adminOfOne, "shop/open?reason=here", "acme/süd")
	require.Equal(t, 200, code)
	require.Equal(t, false, answer["known"], "this gateway has seen no request of the scope")
	shown := answer["scope"].(string)
	require.Regexp(t, "^path:[0-9a-f]{64}$", shown)
	require.Equal(t, 503, getFrom(one, "a.example", "/api/acme/s%C3%BCd"))
	require.Equal(t, 200, getFrom(one, "a.example", "/api/acme/west"))
	advance(100 * time.Millisecond)
	require.Equal(t, 503, getFrom(two, "b.example", "/api/acme/süd/y"))
	require.Equal(t, 1, up.count())
	require.Equal(t, "here", scopesIn(t, adminOfTwo)[shown]["forced"].(map[string]interface{})["reason"])

	newProcess(t, 0)
	restarted, _ := newGateway(t, config)
	adminOfRestarted := console(t)
	require.Equal(t, 503, getFrom(restarted, "a.example", "/api/acme/süd/z"))
	code, answer = forceScope(adminOfRestarted, "shop/auto", shown)
	require.Equal(t, 200, code, "by what the status shows")
	require.Equal(t, true, answer["known"])
	require.Equal(t, 200, getFrom(restarted, "a.example", "/api/acme/süd/z"), "a probe, which passes")
}

// A gateway without requests of a scope shows what another one has done.
func TestForcedScope_isShownByAnIdleGateway(t *testing.T) {
	server := redistest.Start(t)
	config := &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: scopedBreaker("host")}
	newProcess(t, 0)
	newGateway(t, config)
	adminOfOne := console(t)
	newProcess(t, 0)
	two, _ := newGateway(t, config)
	adminOfTwo := console(t)
	require.Equal(t, 200, getFrom(two, "a.example", "/"))
	require.Nil(t, scopesIn(t, adminOfTwo)["host:a.example"]["forced"])
	code, _ := forceScope(adminOfOne, "shop/open", "a.example")
	require.Equal(t, 200, code)
	require.NotNil(t, scopesIn(t, adminOfTwo)["host:a.example"]["forced"])
}

// A host that is shown as a hash is found by that hash, without a second circuit.
func TestForcedScope_byTheHashOfAHost(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		m, _ := newInstance(t, &Config{Name: "shop", Redis: redis, CircuitBreaker: scopedBreaker("host")})
		admin := console(t)
		require.Equal(t, 200, getFrom(m.handler, "bücher.example", "/"))
		code, answer := forceScope(admin, "shop/open", hostHash("bücher.example"))
		require.Equal(t, 200, code)
		require.Equal(t, true, answer["known"])
		waitFor(t, func() bool { return getFrom(m.handler, "bücher.example", "/") == 503 })
		require.Len(t, m.knownCircuits(), 1)
		require.Contains(t, scopesIn(t, admin), hostHash("bücher.example"))
	})
}

func TestForcedScope_whatIsRefused(t *testing.T) {
	newProcess(t, 0)
	admin := console(t)
	newGateway(t, &Config{Name: "hosts", CircuitBreaker: scopedBreaker("host")})
	newGateway(t, &Config{Name: "paths", CircuitBreaker: scopedBreaker("path:/api/{tenant}/{part}")})
	newGateway(t, &Config{Name: "one", CircuitBreaker: failures("1")})
	newGateway(t, &Config{Name: "limits", RateLimit: tokens("1")})
	for _, row := range []struct {
		what, scope string
		status      int
	}{
		{"one/open", "a.example", 404}, {"limits/open", "a.example", 404},
		{"hosts/open", "host:", 400}, {"hosts/open", "...", 400}, {"hosts/open", ":443", 400}, {"hosts/open", strings.Repeat("x", 257), 400},
		{"paths/open", "acme", 400}, {"paths/open", "acme/", 400}, {"paths/open", "/acme", 400}, {"paths/open", "a/b/c", 400},
		{"paths/open", "a;x/b", 400}, {"paths/open", "path:acme", 400}, {"paths/open", "path:" + strings.Repeat("a", 63), 400},
		{"paths/open", "a/b", 200}, {"paths/auto", "path:a/b", 200}, {"paths/auto", "path:" + strings.Repeat("a", 64), 200},
		{"paths/close", strings.Repeat("x", 100) + "/" + strings.Repeat("y", 100), 200}, {"hosts/close", "a.example", 200},
	} {
		code, answer := forceScope(admin, row.what, row.scope)
		require.Equal(t, row.status, code, "%s %q: %v", row.what, row.scope, answer)
	}
}

// A scope is only text: in the log, the answer and the keys in Redis.
func TestForcedScope_isOnlyText(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	log := captureLog(t)
	handler, _ := newGateway(t, &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: scopedBreaker("host")})
	admin := console(t)
	for i, scope := range []string{
		"a\r\nX-Evil: 1", "a\r\n{\"level\":\"error\"}", "a\x00b", "}:breaker", "ä/../ö", "\xff\xfe", "<script>", "a\u2028b", "*", "a b", "../../etc",
	} {
		code, answer := forceScope(admin, "shop/open", scope)
		require.Equal(t, 200, code, "%q", scope)
		require.Regexp(t, "^host:[0-9a-zA-Z.:_-]+$", answer["scope"])
		log.eventually(t, i+1, `"message":"circuit opened by hand"`)
	}
	require.Equal(t, 0, log.count("Evil"))
	require.Equal(t, 0, log.count(`"level":"error"`))
	for _, key := range server.Do("KEYS", "*").([]interface{}) {
		require.Regexp(t, `^resilience:\{shop\}:(fleet|breaker(:host:[0-9a-f]{64})?)$`, string(key.([]byte)))
	}
	require.Equal(t, 200, getFrom(handler, "good.example", "/"))
}

// Scopes that an operator names count like those of clients. Beyond the bound a new one is refused: neither another circuit nor that of the
// middleware changes.
func TestForcedScope_isBounded(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		m, _ := newInstance(t, &Config{Name: "shop", Redis: redis, CircuitBreaker: scopedBreaker("host")})
		admin := console(t)
		for i := 0; i < maxCircuits; i++ {
			code, _ := forceScope(admin, "shop/open", fmt.Sprintf("h%d.example", i))
			require.Equal(t, 200, code)
		}
		for i := 0; i < 10; i++ {
			code, answer := forceScope(admin, "shop/open", fmt.Sprintf("late%d.example", i))
			require.Equal(t, 409, code)
			require.Contains(t, answer["error"], "as many circuits as it may: 500")
		}
		require.Len(t, m.knownCircuits(), maxCircuits)
		require.Equal(t, 200, getFrom(m.handler, "late1.example", "/"), "the middleware's own circuit is closed")
		code, _ := forceScope(admin, "shop/auto", "h7.example")
		require.Equal(t, 200, code, "one that is known")
		scopes := shopIn(t, admin)["circuit"].(map[string]interface{})["scopes"].(map[string]interface{})
		require.Equal(t, float64(maxCircuits), scopes["known"])
		require.Len(t, scopes["circuits"], shownCircuits)
	})
}
