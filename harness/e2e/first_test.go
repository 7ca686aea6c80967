package e2e

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const (
	limitedBody = `{"error":"Too many requests, please try again later."}`
	openBody    = `{"error":"Service temporarily unavailable due to circuit open."}`
)

func TestFirstSteps(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, env: append(redisEnv(server), "RATE_LIMIT_REFILL_PERIOD=1h")})

	t.Run("health is the gateway's own", func(t *testing.T) {
		r := g.get("/health")
		require.Equal(t, http.StatusOK, r.status)
		require.Equal(t, `{"status":"healthy"}`, r.body)
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
	})
	t.Run("health is read, and nothing else", func(t *testing.T) {
		request, err := http.NewRequest(http.MethodPost, g.url("/health"), strings.NewReader("a body"))
		require.NoError(t, err)
		r := send(request)
		require.Equal(t, http.StatusMethodNotAllowed, r.status)
		require.Equal(t, "GET, HEAD", r.header.Get("Allow"))
		require.Equal(t, `{"error":"Method not allowed, please use GET or HEAD."}`, r.body)
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
	})
	t.Run("health below proxy is the upstream's", func(t *testing.T) {
		require.Equal(t, http.StatusOK, g.get("/proxy/health").status)
	})
	t.Run("of the rest of a hundred requests at once, each passes", func(t *testing.T) {
		require.Equal(t, map[int]int{200: 99}, burst(99, "/proxy/ok", g))
	})
	t.Run("one more does not", func(t *testing.T) {
		r := g.get("/proxy/ok")
		require.Equal(t, http.StatusTooManyRequests, r.status)
		require.Equal(t, limitedBody, r.body)
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
		after, err := strconv.Atoi(r.header.Get("Retry-After"))
		require.NoError(t, err)
		require.InDelta(t, 360, after, 10, "a tenth of the refill's hour")
		require.Equal(t, 99, up.stats().ByPath["/ok"])
	})
	t.Run("the dashboard's API shows the middleware", func(t *testing.T) {
		var shown struct {
			Status string
			Plugin map[string]map[string]map[string]any
		}
		getJSON(t, "http://"+g.api+"/api/http/middlewares/gateway@file", &shown)
		require.Equal(t, "enabled", shown.Status)
		require.Equal(t, "100", shown.Plugin["resilience"]["rateLimit"]["capacity"])
		require.Equal(t, "1h", shown.Plugin["resilience"]["rateLimit"]["refillPeriod"])
		require.Equal(t, "30s", shown.Plugin["resilience"]["circuitBreaker"]["resetTimeout"])
	})
	t.Run("the log tells what is on, and of the refusal", func(t *testing.T) {
		on := g.events("middleware configured")
		require.Len(t, on, 3, "that of /proxy, that of /health, and that with which deploy.sh tries the limit")
		require.Equal(t, "info", on[0]["level"])
		refused := g.events("refused: rate limit exceeded")
		require.Len(t, refused, 1)
		require.Equal(t, "info", refused[0]["level"])
		require.Equal(t, "gateway", refused[0]["middleware"])
		require.Equal(t, "ip:127.0.0.1", refused[0]["client"])
		require.NotEmpty(t, refused[0]["time"])
	})
}

func TestOneHundredAndOneAtOnce(t *testing.T) {
	t.Parallel()
	g := startTraefik(t, options{upstream: startUpstream(t), env: append(redisEnv(redistest.Start(t)), "RATE_LIMIT_REFILL_PERIOD=1h")})
	require.Equal(t, map[int]int{200: 100, 429: 1}, burst(101, "/proxy/ok", g))
}

func TestDefaultsLimitABurst(t *testing.T) {
	t.Parallel()
	g := startTraefik(t, options{upstream: startUpstream(t), env: redisEnv(redistest.Start(t))})
	begun := time.Now()
	counts := burst(200, "/proxy/ok", g)
	allowed := 100 + int(10*time.Since(begun).Seconds()) + 1
	require.GreaterOrEqual(t, counts[200], 100)
	require.LessOrEqual(t, counts[200], allowed)
	require.Equal(t, 200, counts[200]+counts[429])
	r := g.get("/proxy/ok")
	if r.status == 429 {
		require.Equal(t, "1", r.header.Get("Retry-After"))
	}
}

func TestCircuit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, env: append(redisEnv(server),
		"RATE_LIMIT_CAPACITY=100000", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=2")})

	for range 5 {
		require.Equal(t, http.StatusInternalServerError, g.get("/proxy/fail").status)
	}
	before := up.stats().Requests
	for range 20 {
		r := g.get("/proxy/ok")
		require.Equal(t, http.StatusServiceUnavailable, r.status)
		require.Equal(t, openBody, r.body)
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
		require.Contains(t, []string{"1", "2"}, r.header.Get("Retry-After"))
	}
	require.Equal(t, before, up.stats().Requests, "the upstream is spared")

	time.Sleep(2100 * time.Millisecond)
	require.Equal(t, http.StatusOK, g.get("/proxy/ok").status)
	require.Equal(t, "half-open", server.Hash("resilience:{gateway}:breaker")["state"])
	require.Equal(t, http.StatusOK, g.get("/proxy/ok").status)
	require.Equal(t, "closed", server.Hash("resilience:{gateway}:breaker")["state"])
	require.Equal(t, map[int]int{200: 50}, burst(50, "/proxy/ok", g))

	var changes []string
	for _, message := range []string{"circuit open", "circuit half-open", "circuit closed"} {
		for _, e := range g.events(message) {
			require.Equal(t, "warn", e["level"])
			changes = append(changes, e["from"]+" to "+e["to"])
		}
	}
	require.Equal(t, []string{"closed to open", "open to half-open", "half-open to closed"}, changes)
	require.NotEmpty(t, g.events("upstream failed"))
}

func TestOnlyTheUpstreamsFaultsCount(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, plugin: block{
		"circuitBreaker": block{"failureThreshold": 3},
	}})
	for range 10 {
		require.Equal(t, 404, g.get("/proxy/status/404").status)
		require.Equal(t, 499, g.get("/proxy/status/499").status)
	}
	for range 10 {
		request, err := http.NewRequest(http.MethodGet, g.url("/proxy/slow?seconds=5"), nil)
		require.NoError(t, err)
		hasty := &http.Client{Timeout: 20 * time.Millisecond}
		_, err = hasty.Do(request)
		require.Error(t, err, "the client went away")
	}
	require.Equal(t, 200, g.get("/proxy/ok").status)
	for range 3 {
		// A GET cut off before its headers have left would be sent again by the client itself.
		request, err := http.NewRequest(http.MethodPost, g.url("/proxy/abort?after=10"), nil)
		require.NoError(t, err)
		require.Error(t, send(request).err, "cut mid-body")
	}
	require.Equal(t, 503, g.get("/proxy/ok").status)
}

func TestAClosedPortCounts(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, plugin: block{"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h"}}})
	up.process.Stop()
	for range 3 {
		require.Equal(t, http.StatusBadGateway, g.get("/proxy/health").status, "the upstream's, also when it is down")
	}
	require.Equal(t, http.StatusServiceUnavailable, g.get("/proxy/health").status)
	require.Equal(t, http.StatusOK, g.get("/health").status)
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, plugin: block{"rateLimit": block{"capacity": 100}, "circuitBreaker": block{"failureThreshold": 5}}})
	request, err := http.NewRequest(http.MethodPut, g.url("/proxy/echo?a=1&b=2"), strings.NewReader("a body"))
	require.NoError(t, err)
	request.Header.Set("X-Custom", "value")
	request.Header.Set("X-Forwarded-For", "203.0.113.9")
	r := send(request)
	require.Equal(t, http.StatusOK, r.status)
	var echo struct {
		Method, Path, Query, Body string
		Headers                   map[string][]string
	}
	require.NoError(t, json.Unmarshal([]byte(r.body), &echo))
	require.Equal(t, "PUT", echo.Method)
	require.Equal(t, "/echo", echo.Path)
	require.Equal(t, "a=1&b=2", echo.Query)
	require.Equal(t, "a body", echo.Body)
	require.Equal(t, []string{"value"}, echo.Headers["X-Custom"])
	require.Equal(t, []string{"127.0.0.1"}, echo.Headers["X-Forwarded-For"], "a stranger's own is replaced")

	trusting := startTraefik(t, options{upstream: up, plugin: block{"circuitBreaker": block{"failureThreshold": 5}},
		change: func(static map[string]any) {
			gateway.Set(static, []any{"127.0.0.1/32"}, "entryPoints", "web", "forwardedHeaders", "trustedIPs")
		}})
	request, err = http.NewRequest(http.MethodGet, trusting.url("/proxy/echo"), nil)
	require.NoError(t, err)
	request.Header.Set("X-Forwarded-For", "203.0.113.9")
	require.NoError(t, json.Unmarshal([]byte(send(request).body), &echo))
	require.Equal(t, []string{"203.0.113.9, 127.0.0.1"}, echo.Headers["X-Forwarded-For"], "a trusted one's is appended to")
}
