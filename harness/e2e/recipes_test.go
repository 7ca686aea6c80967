package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// recipe is a file in docs/recipes and what it does, step by step.
type recipe struct {
	name  string
	steps []recipeStep
}

// recipeStep is a number of equal requests, one after the other, and how many of them pass. %d in a request is the number of the time.
type recipeStep struct {
	request string // "METHOD path", then "Name: value" or "from address", separated by ", "; ?status= is what the service answers
	times   int
	passed  int
	status  int     // of all others; 0: there are none
	refill  float64 // tokens a second that come back meanwhile, in requests
}

const (
	tooMany     = http.StatusTooManyRequests
	forbidden   = http.StatusForbidden
	unavailable = http.StatusServiceUnavailable
	perMinute   = 1.0 / 60
	perHour     = perMinute / 60

	// quick is the end of the name of a recipe for which a minute takes a moment, so that its limit for an hour decides.
	quick = "-quick"
)

var recipes = []recipe{
	{"minute-and-hour", []recipeStep{{"GET /", 70, 60, tooMany, 1}}},
	{"minute-and-hour" + quick, []recipeStep{{"GET /", 1050, 1000, tooMany, 1000 * perHour}}},
	{"global-ceiling", []recipeStep{
		{"GET /, from 127.0.0.1", 30, 20, tooMany, 20 * perMinute},
		{"GET /, from 127.0.%d.2", 100, 80, tooMany, 10},
	}},
	{"search", []recipeStep{
		{"GET /search?q=1", 10, 5, tooMany, 1},
		{"GET /search/images", 5, 0, tooMany, 1},
		{"GET /other", 20, 20, 0, 0},
	}},
	{"login-protection", []recipeStep{
		{"POST /login", 20, 20, 0, 0}, // the right password, each time
		{"POST /login?status=401", 3, 3, 0, 0},
		{"POST /login", 20, 20, 0, 0},
		{"POST /login?status=403", 5, 2, tooMany, 0},
		{"POST /login", 1, 0, tooMany, 0},
		{"GET /login", 10, 10, 0, 0},
		{"POST /other?status=401", 10, 10, 0, 0},
	}},
	{"api-keys", []recipeStep{
		{"GET /, X-Api-Key: a", 35, 30, tooMany, 0.5},
		{"GET /, X-Api-Key: b", 30, 30, 0, 0},
		{"GET /", 35, 30, tooMany, 0.5},
	}},
	{"tenant-plans", []recipeStep{
		{"GET /, X-Api-Key: acme", 15, 10, tooMany, 10 * perMinute},
		{"GET /, X-Api-Key: acme, X-Plan: gold", 3, 0, tooMany, 10 * perMinute},
		{"GET /, X-Api-Key: acme, X-Tenant: other%d", 3, 0, tooMany, 10 * perMinute},
		{"GET /, X-Api-Key: umbrella/gold", 110, 100, tooMany, 100 * perMinute},
		{"GET /, X-Api-Key: us/internal", 120, 120, 0, 0},
		{"GET /, X-Tenant: acme", 3, 0, forbidden, 0},
	}},
	{"tenant-by-path", []recipeStep{
		{"GET /api/acme/orders/%d", 55, 50, tooMany, 50 * perMinute},
		{"GET /api/other", 50, 50, 0, 0},
		{"GET /", 55, 50, tooMany, 50 * perMinute},
	}},
	{"jwt-claim", []recipeStep{
		{"GET /, Authorization: Bearer e30.eyJzdWIiOiJhIn0.c2ln", 35, 30, tooMany, 0.5}, // {"sub":"a"}
		{"GET /, Authorization: Bearer e30.eyJzdWIiOiJiIn0.c2ln", 30, 30, 0, 0},         // {"sub":"b"}
		{"GET /, Authorization: Bearer e30.eyJzdWIiOiJhIn0.bad", 3, 0, http.StatusUnauthorized, 0},
		{"GET /, Authorization: Bearer e30.e30.c2ln", 3, 0, forbidden, 0}, // {}
	}},
	{"webhook-bursts", []recipeStep{
		{"POST /webhooks/shop", 520, 500, tooMany, 1},
		{"POST /webhooks/bank", 100, 100, 0, 0},
	}},
	{"crawlers", []recipeStep{
		{"GET /page/%d, User-Agent: examplebot/2", 15, 10, tooMany, 10 * perMinute},
		{"GET /, User-Agent: otherbot/1", 10, 10, 0, 0},
		{"GET /, User-Agent: a browser", 60, 60, 0, 0},
	}},
	{"health-and-preflights", []recipeStep{
		{"GET /", 12, 10, tooMany, 10 * perMinute},
		{"GET /healthz", 30, 30, 0, 0},
		{"OPTIONS /, Access-Control-Request-Method: PUT", 30, 30, 0, 0},
		{"OPTIONS /", 2, 0, tooMany, 10 * perMinute},
	}},
	{"internal-networks", []recipeStep{
		{"GET /, X-Forwarded-For: 10.1.2.3", 30, 30, 0, 0},
		{"GET /, X-Forwarded-For: fd00::1", 30, 30, 0, 0},
		{"GET /, X-Forwarded-For: 10.1.2.3, 192.0.2.1", 12, 10, tooMany, 10 * perMinute},
	}},
	{"deny-list", []recipeStep{
		{"GET /, X-Forwarded-For: 198.51.100.7", 3, 0, forbidden, 0},
		{"GET /, X-Forwarded-For: 203.0.113.66", 3, 0, forbidden, 0},
		{"GET /, X-Forwarded-For: 192.0.2.7, User-Agent: x badbot/1", 3, 0, forbidden, 0},
		{"GET /, X-Forwarded-For: 203.0.113.7", 110, 100, tooMany, 100 * perMinute},
		{"GET /, X-Forwarded-For: 192.0.2.7", 12, 10, tooMany, 10 * perMinute},
	}},
	{"penalty", []recipeStep{
		{"GET /, from 127.0.0.2", 300, 10, tooMany, 5}, // refused ten times soon, and altogether from then on
	}},
	{"waiting", []recipeStep{{"GET /", 12, 12, 0, 0}}},
	{"graphql-cost", []recipeStep{
		{"POST /graphql?cost=50", 3, 2, tooMany, 2 * perMinute},
		{"POST /graphql?cost=50, X-Query-Cost: 1", 3, 0, tooMany, 2 * perMinute},
	}},
	{"writes-cost-more", []recipeStep{
		{"POST /export", 3, 3, 0, 0},
		{"POST /", 6, 6, 0, 0},
		{"GET /", 12, 10, tooMany, 100 * perMinute},
	}},
	{"fallback-page", []recipeStep{
		{"GET /?status=500", 5, 5, 0, 0}, // the circuit opens
		{"GET /", 10, 0, unavailable, 0},
	}},
	{"fallback-service", []recipeStep{
		{"POST /?status=500", 5, 5, 0, 0},
		{"POST /", 10, 0, http.StatusOK, 0}, // of the other service
	}},
	{"circuit-by-host", []recipeStep{
		{"GET /?status=500", 5, 5, 0, 0},
		{"GET /", 10, 0, unavailable, 0},
	}},
	{"dry-run", []recipeStep{{"GET /", 20, 20, 0, 0}}},
	{"tell-clients", []recipeStep{{"GET /", 12, 10, tooMany, 10 * perMinute}}},
	{"from-traefik", []recipeStep{
		{"GET /, X-Forwarded-For: 192.0.2.1", 35, 30, tooMany, 1},
		{"GET /, X-Forwarded-For: 192.0.2.2", 30, 30, 0, 0},
	}},
	{"from-nginx", []recipeStep{{"GET /", 30, 21, tooMany, 1}}},
	{"from-kong", []recipeStep{
		{"GET /, X-Consumer: a", 25, 20, tooMany, 20 * perMinute},
		{"GET /", 25, 20, tooMany, 20 * perMinute},
	}},
	{"from-kong" + quick, []recipeStep{{"GET /, X-Consumer: a", 120, 100, tooMany, 100 * perHour}}},
	{"from-envoy", []recipeStep{
		{"GET /, X-Tenant: a", 12, 10, tooMany, 10 * perMinute},
		{"POST /checkout, X-Tenant: a", 7, 5, tooMany, 5 * perMinute},
		{"GET /", 20, 15, tooMany, 30 * perMinute},
	}},
}

// TestRecipes loads all of docs/recipes into one Traefik, and checks what each of them does.
func TestRecipes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	service := httptest.NewServer(http.HandlerFunc(serveStatus))
	t.Cleanup(service.Close)
	auth := httptest.NewServer(http.HandlerFunc(serveAuth))
	t.Cleanup(auth.Close)
	pages, standby := httptest.NewServer(serveFrom("pages")), httptest.NewServer(serveFrom("standby"))
	t.Cleanup(pages.Close)
	t.Cleanup(standby.Close)
	folder := t.TempDir()
	writeDynamic(t, folder, block{"health": block{}})
	names := copyRecipes(t, folder, map[string]string{
		"redis:6379": server.Addr(), "http://shop:8081": service.URL, "http://auth:8080": auth.URL, "http://pages:8082": pages.URL, "http://standby:8082": standby.URL,
	})
	g := startTraefik(t, options{dynamic: folder, change: func(static map[string]any) {
		gateway.Set(static, []string{"127.0.0.1/32"}, "entryPoints", "web", "forwardedHeaders", "trustedIPs")
	}})
	tested := []string{}
	for _, row := range recipes {
		if !strings.HasSuffix(row.name, quick) {
			tested = append(tested, row.name)
		}
	}
	require.ElementsMatch(t, names, tested, "each file has a row here")
	for _, row := range recipes {
		t.Run(row.name, func(t *testing.T) { row.follow(t, g) })
	}
	t.Run("what a dry run would refuse is in the log", func(t *testing.T) {
		require.Contains(t, g.log.String(), "rate limit exceeded (dry run)")
	})
	t.Run("a client under a penalty waits for its end", func(t *testing.T) {
		time.Sleep(time.Second) // its bucket has tokens again
		r := askRecipe(t, g, "penalty", "GET /, from 127.0.0.2", 0)
		require.Equal(t, tooMany, r.status)
		seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
		require.NoError(t, err)
		require.Greater(t, seconds, 30)
		require.Equal(t, http.StatusOK, askRecipe(t, g, "penalty", "GET /, from 127.0.0.3", 0).status)
	})
	t.Run("while the circuit is open, a page is the answer", func(t *testing.T) {
		r := askRecipe(t, g, "fallback-page", "GET /cart", 0)
		require.Equal(t, unavailable, r.status)
		require.Equal(t, "GET /unavailable.html", r.body)
		require.Empty(t, r.header.Get("Retry-After"))
	})
	t.Run("while the circuit is open, the other service gets the request with its body", func(t *testing.T) {
		request, err := http.NewRequest("POST", g.url("/cart"), strings.NewReader("an order"))
		require.NoError(t, err)
		request.Host = "fallback-service.example"
		r := sendBy(client, request)
		require.NoError(t, r.err)
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, "POST /cart an order", r.body)
	})
	t.Run("another host of the same middleware passes", func(t *testing.T) {
		require.Equal(t, unavailable, askRecipe(t, g, "circuit-by-host", "GET /", 0).status)
		require.Equal(t, http.StatusOK, askRecipe(t, g, "other.circuit-by-host", "GET /", 0).status)
	})
	t.Run("clients are told what is left", func(t *testing.T) {
		r := askRecipe(t, g, "tell-clients", "GET /", 0)
		require.Contains(t, r.header.Get("RateLimit-Policy"), `"default";q=10`)
		require.Contains(t, r.header.Get("RateLimit"), `"default";r=0`)
	})
}

// copyRecipes copies the recipes into a folder, with other addresses, and returns their names.
func copyRecipes(t *testing.T, folder string, addresses map[string]string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "docs", "recipes", "*.yml"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		text := strings.ReplaceAll(string(content), "passwordEnv: REDIS_PASSWORD", "timeout: "+patience)
		for from, to := range addresses {
			text = strings.ReplaceAll(text, from, to)
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, filepath.Base(file)), []byte(text), 0o644))
		name := strings.TrimSuffix(filepath.Base(file), ".yml")
		text = strings.ReplaceAll(strings.ReplaceAll(text, name, name+quick), `"1m"`, "10ms")
		if strings.Contains(text, `"1h"`) && strings.Contains(text, "10ms") {
			require.NoError(t, os.WriteFile(filepath.Join(folder, name+quick+".yml"), []byte(text), 0o644))
		}
		var parsed struct{ HTTP struct{ Routers block } }
		require.NoError(t, yaml.Unmarshal(content, &parsed))
		for router := range parsed.HTTP.Routers {
			require.Equal(t, filepath.Base(file), router+".yml")
			names = append(names, router)
		}
	}
	return names
}

// follow takes the steps. More may pass than a step says only by what has come back since the recipe began.
func (r recipe) follow(t *testing.T, g *traefik) {
	begun := time.Now()
	for i, step := range r.steps {
		passed, others := 0, map[int]int{}
		for n := range step.times {
			switch a := askRecipe(t, g, r.name, step.request, n); {
			case a.header.Get("X-From") == "service":
				passed++
			default:
				others[a.status]++
				require.Equal(t, step.status == tooMany || isRefusal(a), a.header.Get("Retry-After") != "", "%s: %+v", step.request, a)
			}
		}
		about := fmt.Sprintf("step %d: %s: %v", i, step.request, others)
		keptBack := 0 // for standing leases, while the gateway has just started
		if step.passed > 100 {
			keptBack = step.passed/100 + 1
		}
		require.GreaterOrEqual(t, passed, step.passed-keptBack, about)
		require.LessOrEqual(t, float64(passed), float64(step.passed)+step.refill*time.Since(begun).Seconds(), about)
		require.Equal(t, step.times-passed, others[step.status], about)
	}
}

// isRefusal reports whether an answer is that of an open circuit, which no other middleware has replaced.
func isRefusal(a reply) bool {
	return a.status == unavailable && a.header.Get("X-From") == ""
}

// askRecipe sends a request of a step.
func askRecipe(t *testing.T, g *traefik, name, text string, number int) reply {
	t.Helper()
	parts := strings.Split(strings.ReplaceAll(text, "%d", strconv.Itoa(number)), ", ")
	method, path, _ := strings.Cut(parts[0], " ")
	request, err := http.NewRequest(method, g.url(path), nil)
	require.NoError(t, err)
	request.Host = name + ".example"
	asker, header := client, ""
	for _, part := range parts[1:] {
		if address, isAddress := strings.CutPrefix(part, "from "); isAddress {
			asker = clientAt(address)
		} else if field, value, isField := strings.Cut(part, ": "); isField {
			header = field
			request.Header.Set(field, value)
		} else { // a list in one header
			request.Header.Set(header, request.Header.Get(header)+", "+part)
		}
	}
	r := sendBy(asker, request)
	require.NoError(t, r.err)
	return r
}

// clientAt returns a client at an address of this machine, which sends one request.
func clientAt(address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
}

// serveStatus is a service that answers with the status in the query.
func serveStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-From", "service")
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
}

// serveFrom is a service that stands in for another one, and says what it was asked.
func serveFrom(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-From", name)
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	}
}

// serveAuth is what the recipes with forwardAuth ask: /tenant knows the keys "<tenant>" and "<tenant>/<plan>", /verify accepts one signature,
// and /estimate reads the cost of a query.
func serveAuth(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/tenant":
		if tenant, plan, _ := strings.Cut(r.Header.Get("X-Api-Key"), "/"); tenant != "" {
			w.Header().Set("X-Tenant", tenant)
			w.Header().Set("X-Plan", plan)
		}
	case "/verify":
		if !strings.HasSuffix(r.Header.Get("Authorization"), ".c2ln") {
			w.WriteHeader(http.StatusUnauthorized)
		}
	case "/estimate":
		_, cost, _ := strings.Cut(r.Header.Get("X-Forwarded-Uri"), "cost=")
		w.Header().Set("X-Query-Cost", cost)
	}
	io.WriteString(w, "")
}
