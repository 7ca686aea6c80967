package kubernetes

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// limitRequest is a number of equal requests, and how many of them are admitted; the others get the status.
type limitRequest struct {
	text     string // "METHOD path", then "Name: value", separated by ", "
	times    int
	admitted int
	status   int
}

// limitObjects are a rateLimit of each group of what puts requests under several limits, and what it does. Nothing comes back meanwhile.
var limitObjects = []struct {
	name  string
	limit object
	steps []limitRequest
}{
	{"several", object{"limits": object{
		"hourly":   object{"capacity": 4, "sourceCriterion": object{"requestHeaderName": "X-Tenant", "missingSource": "deny"}},
		"everyone": object{"capacity": 6, "sourceCriterion": object{"all": true}},
	}}, []limitRequest{
		{"GET /, X-Tenant: a", 5, 4, http.StatusTooManyRequests},
		{"GET /, X-Tenant: b", 5, 2, http.StatusTooManyRequests},
		{"GET /", 1, 0, http.StatusForbidden},
	}},
	{"matches", object{"limits": object{"search": object{"capacity": 2, "chargeStatus": "500-503", "match": object{
		"paths": []any{"/matches/search", "/matches/search/*"}, "methods": []any{"GET"}, "headers": object{"X-Kind": "slow*"},
	}}}}, []limitRequest{
		{"GET /search/a, X-Kind: slow", 3, 2, http.StatusTooManyRequests},
		{"GET /search/a, X-Kind: quick", 3, 3, 0},
		{"POST /search, X-Kind: slow", 3, 3, 0},
	}},
	{"charges", object{"limits": object{"failures": object{"capacity": 2, "chargeStatus": "401,403"}}}, []limitRequest{
		{"GET /", 9, 9, 0},
	}},
	{"tiers", object{"tiers": object{
		"partners": object{"match": object{"headers": object{"X-Plan": "gold"}}, "capacity": 20},
		"internal": object{"match": object{"hosts": []any{"*.internal"}, "clientIPs": []any{"10.0.0.0/8", "127.0.0.0/8"}}, "unlimited": true},
		"banned":   object{"priority": 10, "match": object{"headers": object{"User-Agent": "*badbot*"}}, "deny": true},
	}}, []limitRequest{
		{"GET /", 14, 11, http.StatusTooManyRequests},
		{"GET /, X-Plan: gold", 22, 20, http.StatusTooManyRequests},
		{"GET /, Host: shop.internal", 30, 30, 0},
		{"GET /, Host: shop.internal, User-Agent: a badbot/1", 2, 0, http.StatusForbidden},
	}},
	{"cost", object{"cost": object{"header": "X-Cost", "max": 6, "methods": object{"POST": 3}, "paths": object{"/cost/search/*": 4}}}, []limitRequest{
		{"GET /, X-Cost: 6", 1, 1, 0},
		{"GET /search/a", 2, 1, http.StatusTooManyRequests},
		{"POST /", 1, 0, http.StatusTooManyRequests},
		{"GET /", 3, 1, http.StatusTooManyRequests},
	}},
	{"penalty", object{"penalty": object{"refusals": 5, "time": "1m", "maxTime": "10m"}, "maxDelay": "10ms", "maxDelayed": 5}, []limitRequest{
		{"GET /", 40, 11, http.StatusTooManyRequests},
	}},
	{"dry", object{"dryRun": true}, []limitRequest{{"GET /", 20, 20, 0}}},
}

// requireLimits checks that objects limit as the same rules do in a file. The service behind them has no pods: what is admitted gets a 503.
func (s *site) requireLimits(t *testing.T, g *traefik) {
	t.Helper()
	for _, row := range limitObjects {
		limit := object{"capacity": 12, "refillRate": 1, "refillPeriod": "1h"}
		for key, value := range row.limit {
			limit[key] = value
		}
		s.createRoute(t, row.name, object{"rateLimit": limit})
		ready := http.StatusServiceUnavailable // which takes a token
		if row.name == "several" {
			ready = http.StatusForbidden // which takes none
		}
		g.eventually("/"+row.name, ready)
		for i, step := range row.steps {
			admitted := 0
			for range step.times {
				status := step.send(t, "http://"+g.web+"/"+row.name)
				if status == http.StatusServiceUnavailable {
					admitted++
				} else {
					require.Equal(t, step.status, status, "%s, step %d", row.name, i)
				}
			}
			require.Equal(t, step.admitted, admitted, "%s, step %d", row.name, i)
		}
	}
	require.Contains(t, g.log.String(), "rate limit exceeded (dry run)")
}

// createRoute adds a route for a path, with the plugin's configuration in front of the service without pods.
func (s *site) createRoute(t *testing.T, name string, plugin object) {
	t.Helper()
	for _, o := range []object{
		{
			"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": object{"name": name, "namespace": namespace},
			"spec": object{"plugin": object{"resilience": plugin}},
		},
		{
			"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": object{"name": name, "namespace": namespace},
			"spec": object{"ingressClassName": "resilience", "entryPoints": []any{"web"}, "routes": []any{object{
				"kind": "Rule", "match": "PathPrefix(`/" + name + "`)", "middlewares": []any{object{"name": name}},
				"services": []any{object{"name": "empty", "port": "http"}},
			}}},
		},
	} {
		out, err := s.create(o)
		require.NoError(t, err, out)
	}
}

func (l *limitRequest) send(t *testing.T, url string) (status int) {
	t.Helper()
	parts := strings.Split(l.text, ", ")
	method, path, _ := strings.Cut(parts[0], " ")
	request, err := http.NewRequest(method, url+strings.TrimSuffix(path, "/"), nil)
	require.NoError(t, err)
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, ": ")
		if name == "Host" {
			request.Host = value
		}
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	require.NoError(t, err)
	response.Body.Close()
	return response.StatusCode
}
