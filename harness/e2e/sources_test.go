package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// sourceScenario is a middleware of each group of key sources: its sourceCriterion, in a file and as tags, and what 5 tokens let pass.
type sourceScenario struct {
	name   string
	source block
	tags   []string // the same, after sourceCriterion.
	asked  []sourceRequest
}

// sourceRequest is sent 20 times. %d in its header is the number of the time.
type sourceRequest struct {
	method, path  string
	header, value string
	want          map[int]int
}

const (
	acmeToken  = "Bearer e30.eyJyZWFsbSI6eyJ0ZW5hbnQiOiJhY21lIn19.c2ln"   // {"realm":{"tenant":"acme"}}
	otherToken = "Bearer e30.eyJyZWFsbSI6eyJ0ZW5hbnQiOiJvdGhlciJ9fQ.c2ln" // {"realm":{"tenant":"other"}}
)

var (
	allLimited = map[int]int{429: 20}
	allDenied  = map[int]int{403: 20}
	allPassed  = map[int]int{passed: 20}
)

var sourceScenarios = []sourceScenario{
	{"cookie", block{"requestCookieName": "session", "missingSource": "deny"}, []string{"requestCookieName=session", "missingSource=deny"}, []sourceRequest{
		{"GET", "/", "Cookie", "n=%d; session=a", fiveOfTwenty},
		{"GET", "/", "Cookie", `session="%61"; n=%d`, allLimited},
		{"GET", "/", "Cookie", "session=a; session=b%d", allDenied},
		{"GET", "/", "Cookie", "session=b", fiveOfTwenty},
		{"GET", "/", "", "", allDenied},
	}},
	{"query", block{"requestQueryName": "tenant", "missingSource": "pass"}, []string{"requestQueryName=tenant", "missingSource=pass"}, []sourceRequest{
		{"GET", "/?tenant=a", "", "", fiveOfTwenty},
		{"GET", "/?x=1&t%65nant=%61", "", "", allLimited},
		{"GET", "/?tenant=b", "", "", fiveOfTwenty},
		{"GET", "/", "", "", allPassed},
	}},
	{"path", block{"requestPath": "/path/{tenant}/*", "missingSource": "address"}, []string{"requestPath=/path/{tenant}/*", "missingSource=address"}, []sourceRequest{
		{"GET", "/acme/orders", "", "", fiveOfTwenty},
		{"GET", "/ac%6de", "", "", allLimited},
		{"GET", "/acme;v=1/orders", "", "", allLimited},
		{"GET", "/other/orders", "", "", fiveOfTwenty},
		{"GET", "/", "", "", fiveOfTwenty},
	}},
	{"claim", block{"requestJWTClaim": "realm.tenant"}, []string{"requestJWTClaim=realm.tenant"}, []sourceRequest{
		{"GET", "/", "Authorization", acmeToken, fiveOfTwenty},
		{"GET", "/", "Authorization", otherToken, fiveOfTwenty},
		{"GET", "/", "Authorization", "Bearer nonsense%d", fiveOfTwenty},
		{"GET", "/", "", "", allLimited},
	}},
	{"composite", block{"ipStrategy": block{"depth": 0}, "requestHeaderName": "X-Tenant", "requestMethod": true},
		[]string{"ipStrategy.depth=0", "requestHeaderName=X-Tenant", "requestMethod=true"}, []sourceRequest{
			{"GET", "/", "X-Tenant", "a", fiveOfTwenty},
			{"POST", "/", "X-Tenant", "a", fiveOfTwenty},
			{"GET", "/", "X-Tenant", "b", fiveOfTwenty},
			{"GET", "/", "X-Tenant", "a", allLimited},
		}},
	{"all", block{"all": true}, []string{"all=true"}, []sourceRequest{
		{"GET", "/", "X-Tenant", "a%d", fiveOfTwenty},
		{"POST", "/x", "", "", allLimited},
	}},
}

// TestSources_inAFile gives each group of key sources to Traefik in a file.
func TestSources_inAFile(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	routers, middlewares := block{}, block{}
	for _, scenario := range sourceScenarios {
		middlewares[scenario.name] = block{"plugin": block{"resilience": block{"redis": block{"address": server.Addr()}, "rateLimit": scarce(scenario.source)}}}
		routers[scenario.name] = block{
			"rule": "PathPrefix(`/" + scenario.name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{scenario.name}, "service": "noop@internal",
		}
	}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	writeYAML(t, filepath.Join(dynamic, "sources.yml"), block{"http": block{"routers": routers, "middlewares": middlewares}})
	requireSources(t, startTraefik(t, options{dynamic: dynamic}), server)
}

// TestSources_asLabels gives them to Traefik as the tags of a service in a catalogue, which are labels with an equals sign.
func TestSources_asLabels(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	tags := []string{"traefik.enable=true"}
	for _, scenario := range sourceScenarios {
		router := "traefik.http.routers." + scenario.name + "."
		plugin := "traefik.http.middlewares." + scenario.name + ".plugin.resilience."
		tags = append(tags, router+"rule=PathPrefix(`/"+scenario.name+"`)", router+"entryPoints=web", router+"middlewares="+scenario.name,
			router+"service=noop@internal", plugin+"redis.address="+server.Addr(),
			plugin+"rateLimit.capacity=5", plugin+"rateLimit.refillRate=1", plugin+"rateLimit.refillPeriod=1h")
		for _, tag := range scenario.tags {
			tags = append(tags, plugin+"rateLimit.sourceCriterion."+tag)
		}
	}
	g := startTraefik(t, options{plugin: block{"health": block{}}, change: func(static map[string]any) {
		static["providers"].(map[string]any)["consulCatalog"] = block{"endpoint": block{"address": catalogueOf(t, tags)}, "exposedByDefault": false}
	}})
	requireSources(t, g, server)
}

// catalogueOf serves a catalogue with one service that has tags.
func catalogueOf(t *testing.T, tags []string) (address string) {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(path string, value any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Consul-Index", "1")
			json.NewEncoder(w).Encode(value)
		})
	}
	answer("/v1/catalog/services", block{"shop": tags})
	answer("/v1/health/service/shop", []block{{
		"Node":    block{"ID": "node", "Node": "node", "Address": "127.0.0.1", "Datacenter": "here"},
		"Service": block{"ID": "shop", "Service": "shop", "Address": "127.0.0.1", "Port": 1, "Tags": tags},
		"Checks":  []block{{"Status": "passing", "ServiceID": "shop"}},
	}})
	catalogue := httptest.NewServer(mux)
	t.Cleanup(catalogue.Close)
	return catalogue.Listener.Addr().String()
}

func requireSources(t *testing.T, g *traefik, server *redistest.Server) {
	t.Helper()
	for _, scenario := range sourceScenarios {
		require.Eventually(t, func() bool { return g.get("/"+scenario.name).status != http.StatusNotFound }, 10*time.Second, 20*time.Millisecond)
	}
	server.Do("FLUSHALL")
	for _, scenario := range sourceScenarios {
		for i, asked := range scenario.asked {
			require.Equal(t, asked.want, asked.send(t, g, "/"+scenario.name), "%s, request %d", scenario.name, i)
		}
	}
}

func (a *sourceRequest) send(t *testing.T, g *traefik, prefix string) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for i := range 20 {
		request, err := http.NewRequest(a.method, g.url(prefix+a.path), nil)
		require.NoError(t, err)
		if a.header != "" {
			request.Header.Set(a.header, strings.ReplaceAll(a.value, "%d", strconv.Itoa(i)))
		}
		r := send(request)
		require.NoError(t, r.err)
		counts[r.status]++
		if r.status == http.StatusForbidden {
			require.Equal(t, `{"error":"Forbidden."}`, r.body)
			require.Empty(t, r.header.Get("Retry-After"))
		}
	}
	return counts
}
