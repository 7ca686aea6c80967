package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const adminToken = "the-token-of-the-tests-5f3a9c"

// writeAdmin writes a router for the middleware admin on the internal entry point.
func writeAdmin(t *testing.T, dynamic string, admin block) {
	t.Helper()
	writeYAML(t, filepath.Join(dynamic, "admin.yml"), block{"http": block{
		"routers":     block{"admin": block{"rule": "PathPrefix(`/resilience`)", "entryPoints": []string{"traefik"}, "middlewares": []string{"admin"}, "service": "noop@internal"}},
		"middlewares": block{"admin": block{"plugin": block{"resilience": block{"admin": admin}}}},
	}})
}

// startWithAdmin starts a gateway with the middleware gateway on /proxy, and admin.
func startWithAdmin(t *testing.T, up *upstream, plugin, admin block, env ...string) *traefik {
	t.Helper()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, plugin)
	writeAdmin(t, dynamic, admin)
	return startTraefik(t, options{upstream: up, dynamic: dynamic, env: env})
}

// admin sends a request to admin. Headers are names and values in turn.
func (g *traefik) admin(method, path string, headers ...string) reply {
	g.t.Helper()
	request, err := http.NewRequest(method, "http://"+g.api+"/resilience"+path, nil)
	require.NoError(g.t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return send(request)
}

// metrics returns the samples of admin's metrics.
func (g *traefik) metrics() map[string]float64 {
	g.t.Helper()
	r := g.admin("GET", "/metrics")
	require.NoError(g.t, r.err)
	require.Equal(g.t, 200, r.status, r.body)
	samples := map[string]float64{}
	for _, line := range strings.Split(strings.TrimSpace(r.body), "\n") {
		if name, value, ok := strings.Cut(line, "} "); ok && !strings.HasPrefix(line, "#") {
			n, err := strconv.ParseFloat(value, 64)
			require.NoError(g.t, err)
			samples[name+"}"] = n
		}
	}
	return samples
}

func (g *traefik) decided(decision string) int {
	g.t.Helper()
	return int(g.metrics()[`resilience_requests_total{middleware="gateway",decision="`+decision+`"}`])
}

func TestAdmin_withAToken(t *testing.T) {
	t.Parallel()
	g := startWithAdmin(t, startUpstream(t), block{"rateLimit": block{"capacity": 5}}, block{"tokenEnv": "ADMIN_TOKEN"}, "ADMIN_TOKEN="+adminToken)
	require.Equal(t, 401, g.admin("GET", "/status").status)
	require.Equal(t, 401, g.admin("GET", "/metrics", "Authorization", "Bearer wrong").status)
	r := g.admin("GET", "/status", "Authorization", "Bearer "+adminToken)
	require.Equal(t, 200, r.status)
	require.Contains(t, r.body, `"name":"gateway"`)
	require.NotContains(t, g.log.String(), adminToken)
}

// TestMetrics_agreeWithTheServiceAndItsClients sends a load through a restart of Redis and a reload, and compares the counts of the gateways
// with those of the service and with the statuses that the clients saw.
func TestMetrics_agreeWithTheServiceAndItsClients(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":          block{"address": server.Addr(), "timeout": "200ms", "dialTimeout": patience},
		"rateLimit":      block{"capacity": 300, "refillRate": 1, "refillPeriod": "1h"},
		"circuitBreaker": block{"failureThreshold": 5, "resetTimeout": "1h"},
	}
	var gateways []*traefik
	var folders []string
	for range 2 {
		folder := t.TempDir()
		writeDynamic(t, folder, plugin)
		writeAdmin(t, folder, block{"path": "/resilience"})
		folders = append(folders, folder)
		gateways = append(gateways, startTraefik(t, options{upstream: up, dynamic: folder}))
	}
	statuses := map[int]int{}
	load := func(n int, path string) {
		for status, times := range burst(n, path, gateways...) {
			statuses[status] += times
		}
	}
	load(200, "/proxy/ok")
	server.Kill()
	load(60, "/proxy/ok")
	server.Run()
	time.Sleep(time.Second)
	load(100, "/proxy/ok")
	for i := range gateways { // a reload with other settings of the same middleware
		plugin["circuitBreaker"] = block{"failureThreshold": 4, "resetTimeout": "1h"}
		writeDynamic(t, folders[i], plugin)
	}
	load(200, "/proxy/ok")
	time.Sleep(3 * time.Second)
	load(300, "/proxy/ok")
	server.Do("DEL", "resilience:{gateway}:bucket:ip:127.0.0.1")
	time.Sleep(2 * time.Second)
	load(40, "/proxy/fail")
	load(100, "/proxy/ok")
	counts := map[string]int{}
	for _, g := range gateways {
		for _, decision := range []string{"admitted", "limited", "circuit_open", "denied", "unavailable"} {
			counts[decision] += g.decided(decision)
		}
	}
	t.Log(statuses, counts)
	require.Equal(t, up.stats().Requests, counts["admitted"], "the service's count")
	require.Equal(t, statuses[200]+statuses[500], counts["admitted"])
	require.Equal(t, statuses[429], counts["limited"])
	require.Equal(t, statuses[503], counts["circuit_open"])
	require.Equal(t, 1000, counts["admitted"]+counts["limited"]+counts["circuit_open"])
	require.Zero(t, counts["denied"]+counts["unavailable"])
}

func TestAdmin_withoutATokenAnswersOnlyThisHost(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"rateLimit": block{"capacity": 5}})
	writeAdmin(t, dynamic, block{"public": "false"})
	// A client of another address, as the PROXY protocol tells of it: Traefik takes it for that of the connection.
	g := startTraefik(t, options{upstream: up, dynamic: dynamic, change: func(static map[string]any) {
		gateway.Set(static, []string{"127.0.0.1"}, "entryPoints", "traefik", "proxyProtocol", "trustedIPs")
	}})
	require.Equal(t, 200, g.admin("GET", "/status").status)
	require.Equal(t, 403, proxied(t, g.api, "203.0.113.7", "/resilience/status"))
	require.Equal(t, 200, g.admin("GET", "/status", "X-Forwarded-For", "203.0.113.7").status)
}

// TestAdmin_asShipped uses the dynamic file of the image.
func TestAdmin_asShipped(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		env    []string
		status int
	}{{"without a token", nil, 200}, {"with a token", []string{"RESILIENCE_ADMIN_TOKEN=" + adminToken}, 401}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dynamic := t.TempDir()
			writeDynamic(t, dynamic, block{"rateLimit": block{"capacity": 5}})
			content, err := os.ReadFile(filepath.Join(root(t), "dynamic", "admin.yml"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dynamic, "admin.yml"), content, 0o644))
			g := startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, env: row.env})
			require.Equal(t, row.status, g.admin("GET", "/status").status)
			require.Equal(t, 200, g.admin("GET", "/status", "Authorization", "Bearer "+adminToken).status)
			require.Equal(t, 200, g.admin("GET", "/").status, "the page")
		})
	}
}
