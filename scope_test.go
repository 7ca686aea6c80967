package resilience

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// failsFor answers requests of one host or path with 500, and others with 200.
func failsFor(fails func(r *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fails(r) {
			w.WriteHeader(500)
		}
	})
}

// getFrom sends a request to a host and returns the status of the answer.
func getFrom(handler http.Handler, host, path string) int {
	r := httptest.NewRequest("GET", path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code
}

// scopedConfigs are what else a middleware with circuits of scopes may do.
func scopedConfigs() []struct {
	name  string
	limit *RateLimitConfig
} {
	return []struct {
		name  string
		limit *RateLimitConfig
	}{
		{"only a breaker", nil},
		{"with a limit", tokens("100000")},
		{"with several limits", &RateLimitConfig{Capacity: "100000", RefillRate: "1", RefillPeriod: "1h",
			Limits: map[string]*LimitConfig{"all": {Capacity: "100000", SourceCriterion: &SourceCriterionConfig{All: "true"}}}}},
		{"with headers", &RateLimitConfig{Capacity: "100000", RefillRate: "1", RefillPeriod: "1h", ResponseHeaders: "ratelimit"}},
		{"with a delay", &RateLimitConfig{Capacity: "100000", RefillRate: "1", RefillPeriod: "1h", MaxDelay: "10ms"}},
	}
}

func TestScope_aHostThatFailsDoesNotCloseOthers(t *testing.T) {
	for _, row := range scopedConfigs() {
		row := row
		t.Run(row.name, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				breaker := failures("3")
				breaker.Scope = "host"
				handler, up := newGateway(t, &Config{Name: "scopes", Redis: redis, RateLimit: row.limit, CircuitBreaker: breaker})
				up.will(failsFor(func(r *http.Request) bool { return r.Host == "bad.example" }))
				for i := 0; i < 3; i++ {
					require.Equal(t, 500, getFrom(handler, "bad.example", "/"))
					require.Equal(t, 200, getFrom(handler, "good.example", "/"), "a success of another host resets nothing here")
				}
				for i := 0; i < 200; i++ { // also when requests are no longer checked for other instances
					require.Equal(t, 503, getFrom(handler, "bad.example", "/"))
					require.Equal(t, 200, getFrom(handler, "good.example", "/"))
				}
				require.Equal(t, 503, getFrom(handler, "BAD.example:443", "/"), "another spelling of the same host")
				require.Equal(t, 3+3+200, up.count(), "a refused request does not reach the service")
			})
		})
	}
}

func TestScope_aPartOfThePath(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		breaker := failures("2")
		breaker.Scope = "path:/api/{tenant}/*"
		handler, up := newGateway(t, &Config{Redis: redis, CircuitBreaker: breaker})
		up.will(failsFor(func(r *http.Request) bool { return r.URL.Path == "/api/one/x" || r.URL.Path == "/other" }))
		for i := 0; i < 2; i++ {
			require.Equal(t, 500, getFrom(handler, "a.example", "/api/one/x"))
		}
		require.Equal(t, 503, getFrom(handler, "b.example", "/api/one/y"), "the same tenant")
		require.Equal(t, 200, getFrom(handler, "a.example", "/api/two/x"))
		require.Equal(t, 200, getFrom(handler, "a.example", "/"), "without a scope: the middleware's own circuit")
		for i := 0; i < 2; i++ {
			require.Equal(t, 500, getFrom(handler, "a.example", "/other"))
		}
		require.Equal(t, 503, getFrom(handler, "a.example", "/"))
		require.Equal(t, 200, getFrom(handler, "a.example", "/api/two/x"), "which is not that of a scope")
	})
}

// Two gateways share the circuits of scopes, under keys in which what a client sent is hashed.
func TestScope_isShared(t *testing.T) {
	server := redistest.Start(t)
	breaker := failures("2")
	breaker.Scope = "host"
	config := &Config{Redis: at(server.Addr()), RateLimit: tokens("1000"), CircuitBreaker: breaker}
	newProcess(t, 0)
	one, failed := newGateway(t, config)
	newProcess(t, 0)
	other, up := newGateway(t, config)
	require.Equal(t, 200, getFrom(other, "bad.example", "/"))
	failed.will(status(500))
	for i := 0; i < 2; i++ {
		require.Equal(t, 500, getFrom(one, "bad.example", "/"))
	}
	advance(150 * time.Millisecond)
	waitFor(t, func() bool { return getFrom(other, "bad.example", "/") == 503 })
	require.Equal(t, 200, getFrom(other, "good.example", "/"))
	require.Equal(t, "open", server.Hash(breakerOf(t) + ":host:" + identity.Hash("bad.example"))["state"])
	require.Empty(t, server.Hash(breakerOf(t)), "the middleware's own circuit has seen nothing")
	require.Equal(t, 2, up.count())
}

// A circuit of a scope returns by a probe, and other scopes neither are probes nor wait for one.
func TestScope_returns(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("1000"),
			CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "300ms", HalfOpenSuccessThreshold: "2", Scope: "host"}})
		up.will(status(500))
		require.Equal(t, 500, getFrom(handler, "a.example", "/"))
		require.Equal(t, 503, getFrom(handler, "a.example", "/"))
		up.will(status(200))
		waitFor(t, func() bool { return getFrom(handler, "a.example", "/") == 200 })
		waitFor(t, func() bool { return getFrom(handler, "a.example", "/") == 200 })
		require.Equal(t, 200, getFrom(handler, "b.example", "/"))
		for i := 0; i < 10; i++ {
			require.Equal(t, 200, getFrom(handler, "a.example", "/"))
		}
	})
}

// Clients choose scopes. Beyond the bound, new ones have the middleware's own circuit; closed and unused ones make room, others do not.
func TestScope_circuitsAreBounded(t *testing.T) {
	newProcess(t, 0)
	m, up := newInstance(t, &Config{CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "1h", Scope: "host"}})
	up.will(failsFor(func(r *http.Request) bool { return r.Host == "open.example" || r.Host == "late.example" }))
	host := func(i int) string { return fmt.Sprintf("h%d.example", i) }
	known := func() int { return len(m.knownCircuits()) }

	require.Equal(t, 500, getFrom(m.handler, "open.example", "/"))
	for i := 0; i < 2*maxCircuits; i++ {
		require.Equal(t, 200, getFrom(m.handler, host(i), "/"))
	}
	require.Equal(t, maxCircuits, known())
	require.Equal(t, 500, getFrom(m.handler, "late.example", "/"), "it has the middleware's own circuit")
	require.Equal(t, 503, getFrom(m.handler, "late.example", "/"))
	require.Equal(t, 503, getFrom(m.handler, "another.example", "/"), "and so have others")
	require.Equal(t, 200, getFrom(m.handler, host(0), "/"), "but none of those that were there before")

	gatewayClock.advance(time.Duration(circuitUnusedFor) * time.Microsecond / 2)
	require.Equal(t, 200, getFrom(m.handler, host(1), "/"))
	gatewayClock.advance(time.Duration(circuitUnusedFor) * time.Microsecond / 2)
	require.Equal(t, 200, getFrom(m.handler, "another.example", "/"), "unused ones have made room")
	require.Equal(t, 3, known(), "that which is open, that which was used, and the new one")
	require.Equal(t, 503, getFrom(m.handler, "open.example", "/"))
}

// Clients choose scopes: Redis keeps the circuit of one for minutes after its last use, not for a day. A circuit that was opened by hand
// outlives that.
func TestScope_redisKeepsACircuitForMinutes(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	config := failures("2")
	config.Scope = "host"
	config.ResetTimeout = "30s"
	m, _ := newInstance(t, &Config{Redis: at(server.Addr()), CircuitBreaker: config})
	for _, row := range []struct {
		host, key string
		kept      time.Duration
	}{
		{"a.example", breakerOf(t) + ":host:" + identity.Hash("a.example"), 10*time.Minute + 2*(30+10)*time.Second},
		{"", breakerOf(t), 24*time.Hour + 2*(30+10)*time.Second},
	} {
		getFrom(m.handler, row.host, "/")
		waitFor(t, func() bool { return server.Int("EXISTS", row.key) == 1 }, row.host)
		left := time.Duration(server.Int("PTTL", row.key)) * time.Millisecond
		require.InDelta(t, row.kept.Seconds(), left.Seconds(), 5, row.host)
	}
	operator := &scopeEvent{host: "a", operator: "open"}
	operator.operate(t, m)
	left := time.Duration(server.Int("PTTL", breakerOf(t)+operator.keyPart())) * time.Millisecond
	require.Greater(t, left, 10*time.Hour)
}

func TestScope_isShown(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		breaker := failures("2")
		breaker.Scope = "host"
		handler, up := newGateway(t, &Config{Name: "shop", Redis: redis, CircuitBreaker: breaker})
		admin := console(t)
		up.will(failsFor(func(r *http.Request) bool { return r.Host == "bad.example" }))
		for i := 0; i < 3; i++ {
			getFrom(handler, "bad.example", "/")
			getFrom(handler, "good.example", "/")
		}
		circuit := shopIn(t, admin)["circuit"].(map[string]interface{})
		require.Equal(t, "closed", circuit["state"], "the middleware's own")
		scopes := circuit["scopes"].(map[string]interface{})
		require.Equal(t, 2.0, scopes["known"])
		require.Equal(t, map[string]interface{}{"closed": 1.0, "open": 1.0, "half-open": 0.0, "ramp": 0.0}, scopes["states"])
		first := scopes["circuits"].([]interface{})[0].(map[string]interface{})
		require.Equal(t, "host:bad.example", first["scope"])
		require.Equal(t, "open", first["state"])
		require.Equal(t, "host:bad.example", circuit["recent"].([]interface{})[0].(map[string]interface{})["scope"])

		metrics := ask(admin, asking{path: "/resilience/metrics"}).Body.String()
		require.Contains(t, metrics, `resilience_scope_circuits{middleware="shop",state="open"} 1`+"\n")
		require.Contains(t, metrics, `resilience_scope_circuits{middleware="shop",state="closed"} 1`+"\n")
		require.Contains(t, metrics, `resilience_circuit_transitions_total{middleware="shop",from="closed",to="open"} 0`+"\n", "that is of the middleware's own")
		require.Contains(t, metrics, `resilience_requests_total{middleware="shop",decision="admitted"} 5`+"\n")
		require.Contains(t, metrics, `resilience_requests_total{middleware="shop",decision="circuit_open"} 1`+"\n")
		require.NotContains(t, metrics, "bad.example", "what a client sent is no label")
	})
}

func TestScope_configuration(t *testing.T) {
	for _, row := range []struct{ scope, want string }{
		{"", ""},
		{"middleware", ""},
		{"host", ""},
		{" path:/api/{tenant} ", ""},
		{"hosts", `circuitBreaker.scope: "hosts" is not middleware, host, or path:`},
		{"path:", `circuitBreaker.scope: "" does not begin with /`},
		{"path:/api", `circuitBreaker.scope: "/api" holds none or more than eight of {name}`},
		{"header:X-Tenant", `circuitBreaker.scope: "header:X-Tenant" is not`},
	} {
		_, err := readConfig(&Config{CircuitBreaker: &CircuitBreakerConfig{Scope: row.scope}}, "shop")
		if row.want == "" {
			require.NoError(t, err, row.scope)
		} else {
			require.ErrorContains(t, err, row.want)
		}
	}
}

// anyReportPending reports whether a circuit of a scope has counted what it has not reported.
func anyReportPending(m *Middleware) bool {
	pending := false
	for _, one := range m.circuits.all(m.mu) {
		pending = pending || one.breaker.ReportPending()
	}
	return pending
}

// Each circuit has a window, and counts the requests of its scope only.
func TestScope_ratiosAreOfOneScope(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		m, up := newInstance(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
			FailureThreshold: "0", FailureRatio: "50", Window: "1m", MinimumRequests: "20", ResetTimeout: "1h", Scope: "host"}})
		handler := m.handler
		up.will(failsFor(func(r *http.Request) bool { return r.Host == "bad.example" }))
		for i := 0; i < 10; i++ {
			require.Equal(t, 500, getFrom(handler, "bad.example", "/"))
		}
		for i := 0; i < 40; i++ {
			require.Equal(t, 200, getFrom(handler, "good.example", "/"))
		}
		waitFor(t, func() bool { return !anyReportPending(m) })
		require.Equal(t, 500, getFrom(handler, "bad.example", "/"), "ten requests are too few")
		for i := 0; i < 9; i++ {
			getFrom(handler, "bad.example", "/")
		}
		waitFor(t, func() bool { return getFrom(handler, "bad.example", "/") == 503 })
		require.Equal(t, 200, getFrom(handler, "good.example", "/"))
	})
}

// getMany sends requests to a host one after another, and counts those that did not pass unless the host is one that fails.
func getMany(handler http.Handler, host string, done *sync.WaitGroup, wrong *atomic.Int64) {
	defer done.Done()
	for n := 0; n < 200; n++ {
		if code := getFrom(handler, host, "/"); code != 200 && host != "h0.example" {
			wrong.Add(1)
		}
	}
}

func TestScope_manyRequestsAtOnce(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		breaker := failures("3")
		breaker.Scope = "host"
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("100000"), CircuitBreaker: breaker})
		console(t)
		up.will(failsFor(func(r *http.Request) bool { return r.Host == "h0.example" }))
		done := &sync.WaitGroup{}
		wrong := &atomic.Int64{}
		for i := 0; i < 8; i++ {
			done.Add(1)
			go getMany(handler, fmt.Sprintf("h%d.example", i%4), done, wrong)
		}
		done.Wait()
		require.Zero(t, wrong.Load(), "requests of other hosts that did not pass")
		require.Equal(t, 503, getFrom(handler, "h0.example", "/"))
	})
}
