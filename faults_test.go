package resilience

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/stretchr/testify/require"
)

// rules is a breaker that opens after two failures, and whose circuit stays open during a test.
func rules(change func(c *CircuitBreakerConfig)) *CircuitBreakerConfig {
	c := failures("2")
	change(c)
	return c
}

// callEnding answers a gRPC call with a message, and with its code in the trailers. announced says that the headers announce them.
func callEnding(code string, announced bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		name := http.TrailerPrefix + "Grpc-Status"
		if announced {
			w.Header().Set("Trailer", "Grpc-Status")
			name = "Grpc-Status"
		}
		w.WriteHeader(200)
		w.Write([]byte("a message"))
		w.Header()[name] = []string{code}
	})
}

// trailersOnly answers a gRPC call with its code alone.
func trailersOnly(kind, code string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Grpc-Status", code)
		w.WriteHeader(200)
	})
}

func TestFaults_whatCounts(t *testing.T) {
	list := rules(func(c *CircuitBreakerConfig) { c.FailureStatus = "500, 503-504,429" })
	calls := rules(func(c *CircuitBreakerConfig) { c.FailureGrpcStatus = "13, unavailable" })
	ignoring := rules(func(c *CircuitBreakerConfig) {
		c.Ignore = &IgnoreConfig{Paths: []string{"/health", "/internal/*"}, Methods: []string{"GET"}}
	})
	const json, grpc = "application/json", "application/grpc+proto"
	noServer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no available server", http.StatusServiceUnavailable)
	})
	for _, row := range []struct {
		name         string
		breaker      *CircuitBreakerConfig
		method, path string
		answer       http.Handler
		want         string
	}{
		{"a status in the list", list, "GET", "/", status(503), "failure"},
		{"a status below 500 in the list", list, "GET", "/", status(429), "failure"},
		{"a status of 500 or more that is not in the list", list, "GET", "/", dated(502), "success"},
		{"the service cannot be reached: its status is not in the list", list, "GET", "/", status(502), "failure"},
		{"a panic, whatever the list says", list, "GET", "/", panicking, "failure"},
		{"200", list, "GET", "/", nil, "success"},

		{"a service without servers", rules(func(c *CircuitBreakerConfig) { c.FailureStatus = "500" }), "GET", "/", noServer, "failure"},
		{"the service's own 503 then", rules(func(c *CircuitBreakerConfig) { c.FailureStatus = "500" }), "GET", "/", dated(503), "success"},

		{"a code in the headers", calls, "GET", "/", trailersOnly(grpc, "14"), "failure"},
		{"a code in announced trailers", calls, "GET", "/", callEnding("13", true), "failure"},
		{"a code in trailers that were not announced", calls, "GET", "/", callEnding("14", false), "failure"},
		{"another code", calls, "GET", "/", callEnding("5", false), "success"},
		{"no error", calls, "GET", "/", callEnding("0", true), "success"},
		{"not a code", calls, "GET", "/", callEnding("UNAVAILABLE", true), "success"},
		{"an answer that is no call", calls, "GET", "/", trailersOnly(json, "14"), "success"},
		{"a status of HTTP", calls, "GET", "/", status(503), "failure"},

		{"an ignored failure", ignoring, "GET", "/health", status(500), "nothing"},
		{"an ignored success", ignoring, "GET", "/internal/a", nil, "nothing"},
		{"an ignored panic", ignoring, "GET", "/health", panicking, "nothing"},
		{"another method", ignoring, "POST", "/health", status(500), "failure"},
		{"another path", ignoring, "GET", "/healthy", status(500), "failure"},
		{"a path that a later middleware changes", ignoring, "GET", "/health", stripping(500), "nothing"},
	} {
		for _, limit := range limits() {
			row, limit := row, limit
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				t.Run(row.name+", "+limit.name, func(t *testing.T) {
					got := outcomeUnder(t, &Config{Redis: redis, RateLimit: limit.limit, CircuitBreaker: row.breaker}, func(handler http.Handler, up *upstream) {
						up.will(row.answer)
						panicOf(handler, httptest.NewRecorder(), httptest.NewRequest(row.method, row.path, nil))
					})
					require.Equal(t, row.want, got)
				})
			})
		}
	}
}

// dated answers as a service does: with a date.
func dated(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", "Mon, 02 Nov 2026 10:00:00 GMT")
		w.WriteHeader(code)
	})
}

// stripping changes the path of the request, as stripPrefix does, and answers with a status.
func stripping(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/"
		w.WriteHeader(code)
	})
}

func TestFaults_decideProbes(t *testing.T) {
	calls := func(c *CircuitBreakerConfig) { c.FailureGrpcStatus = "14" }
	for _, row := range []struct {
		name   string
		change func(c *CircuitBreakerConfig)
		answer http.Handler
		after  string
	}{
		{"a status in the list", func(c *CircuitBreakerConfig) { c.FailureStatus = "429,500" }, dated(429), "open"},
		{"a status that is not in the list", func(c *CircuitBreakerConfig) { c.FailureStatus = "500" }, dated(503), "closed"},
		{"a code in the headers", calls, trailersOnly("application/grpc", "14"), "open"},
		{"a code in the trailers", calls, callEnding("14", false), "open"},
		{"a code that is no failure", calls, callEnding("3", true), "closed"},
		{"an ignored success", func(c *CircuitBreakerConfig) { c.Ignore = &IgnoreConfig{Methods: []string{"GET"}} }, nil, "half-open"},
		{"an ignored failure", func(c *CircuitBreakerConfig) { c.Ignore = &IgnoreConfig{Methods: []string{"GET"}} }, dated(500), "half-open"},
	} {
		row := row
		forEachStore(t, func(t *testing.T, redis *RedisConfig) {
			t.Run(row.name, func(t *testing.T) {
				opener, failing := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("1")})
				failing.will(status(500))
				require.Equal(t, 500, get(opener))
				elapse(t, redis, time.Hour)
				config := &CircuitBreakerConfig{FailureThreshold: "2", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1"}
				row.change(config)
				m, up := newInstance(t, &Config{Redis: redis, CircuitBreaker: config})
				up.will(row.answer)
				send(m.handler, "GET", "/")
				require.Equal(t, row.after, circuitOf(m))
			})
		})
	}
}

// circuitOf returns the state of a circuit after one probe: closed, open, or half-open with a place for the next probe.
func circuitOf(m *Middleware) string {
	if !m.breaker.Probing() {
		return "closed"
	}
	if _, refused := m.breaker.MustRefuse(false, m.now()); refused {
		return "open"
	}
	return "half-open"
}

// A call that streams for long is no failure: after half of the probeTimeout the probe is a success, and earlier if its headers came so late that
// it would have lost its place by then.
func TestFaults_aStreamIsASuccessfulProbe(t *testing.T) {
	for _, row := range []struct {
		name, timeout string
		headers       time.Duration // after which the headers come
	}{
		{"headers at once", "400ms", 0},
		{"late headers", "4s", 3 * time.Second},
	} {
		row := row
		forEachStore(t, func(t *testing.T, redis *RedisConfig) {
			t.Run(row.name, func(t *testing.T) {
				opener, failing := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("1")})
				failing.will(status(500))
				require.Equal(t, 500, get(opener))
				elapse(t, redis, time.Hour)
				m, up := newInstance(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
					ResetTimeout: "1h", HalfOpenSuccessThreshold: "1", ProbeTimeout: row.timeout, FailureGrpcStatus: "14"}})
				closed := make(chan bool)
				up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if row.headers > 0 {
						elapse(t, redis, row.headers)
					}
					w.Header().Set("Content-Type", "application/grpc")
					w.WriteHeader(200)
					<-closed
					w.Header()["Grpc-Status"] = []string{"14"} // what comes later does not count for a probe
				}))
				ended := make(chan bool)
				go func() {
					send(m.handler, "GET", "/")
					ended <- true
				}()
				waitFor(t, func() bool { return circuitOf(m) == "closed" })
				closed <- true
				<-ended
				require.Equal(t, "closed", circuitOf(m))
			})
		})
	}
}

// An ignored request is refused as all others while the circuit is open, and is no probe: if the service does not answer it, nothing happens.
func TestFaults_anIgnoredRequestIsNoProbe(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := &Config{Redis: redis, CircuitBreaker: rules(func(c *CircuitBreakerConfig) {
			c.Ignore = &IgnoreConfig{Paths: []string{"/health"}}
		})}
		m, up := newInstance(t, config)
		up.will(status(500))
		get(m.handler)
		get(m.handler)
		require.Equal(t, 503, send(m.handler, "GET", "/health").Code)

		elapse(t, redis, time.Hour)
		m, up = newInstance(t, config)
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { elapse(t, redis, 10*time.Second) }))
		require.Equal(t, 200, send(m.handler, "GET", "/health").Code)
		permit, retryAfter, err := m.breaker.Allow(m.policy, false, m.now(), time.Now().Add(5*time.Second))
		require.NoError(t, err)
		require.Zero(t, retryAfter)
		require.True(t, permit.Probe(), "the circuit is still half-open, and the place is free")
		m.breaker.Done(permit, breaker.Success, m.policy, time.Second)
	})
}

func TestRead_faultsAreNilByDefault(t *testing.T) {
	for _, c := range []*CircuitBreakerConfig{{}, {FailureStatus: " "}, {FailureStatus: "500-599"}, {FailureStatus: " 500 - 599 ", FailureGrpcStatus: " "}} {
		require.True(t, mustRead(t, &Config{CircuitBreaker: c}).faults == nil)
	}
}

func TestRead_describesTheFaults(t *testing.T) {
	s := mustRead(t, &Config{CircuitBreaker: &CircuitBreakerConfig{FailureStatus: "500,502-504", FailureGrpcStatus: "14",
		Ignore: &IgnoreConfig{Paths: []string{"/health"}}}})
	require.Equal(t, "circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s"+
		`; failures are 500, 502-504; failures of gRPC calls are 14; ignores ["/health"] []`, s.parts[0])
}

func TestRead_reportsInvalidFaults(t *testing.T) {
	const statuses = ` is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`
	const codes = ` is not a gRPC code from 1 to 16 or its name, or a range of codes, such as "UNAVAILABLE" or "13-14"`
	for _, row := range []struct {
		config  CircuitBreakerConfig
		message string
	}{
		{CircuitBreakerConfig{FailureStatus: "5xx"}, `circuitBreaker.failureStatus: "5xx"` + statuses},
		{CircuitBreakerConfig{FailureStatus: "500-499"}, `circuitBreaker.failureStatus: "500-499"` + statuses},
		{CircuitBreakerConfig{FailureStatus: "500,600"}, `circuitBreaker.failureStatus: "600"` + statuses},
		{CircuitBreakerConfig{FailureGrpcStatus: "0"}, `circuitBreaker.failureGrpcStatus: "0"` + codes},
		{CircuitBreakerConfig{FailureGrpcStatus: "17"}, `circuitBreaker.failureGrpcStatus: "17"` + codes},
		{CircuitBreakerConfig{FailureGrpcStatus: "14,"}, `circuitBreaker.failureGrpcStatus: ""` + codes},
		{CircuitBreakerConfig{FailureGrpcStatus: "14-13"}, `circuitBreaker.failureGrpcStatus: "14-13"` + codes},
		{CircuitBreakerConfig{FailureGrpcStatus: "GONE"}, `circuitBreaker.failureGrpcStatus: "GONE"` + codes},
		{CircuitBreakerConfig{Ignore: &IgnoreConfig{}}, "circuitBreaker.ignore: it names nothing; write paths or methods, or leave it out"},
		{CircuitBreakerConfig{Ignore: &IgnoreConfig{Paths: []string{"health"}}},
			`circuitBreaker.ignore.paths: "health" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`},
		{CircuitBreakerConfig{Ignore: &IgnoreConfig{Methods: []string{"get"}}},
			`circuitBreaker.ignore.methods: "get" is not a method in upper case, such as "POST"`},
		{CircuitBreakerConfig{Ignore: &IgnoreConfig{Methods: []string{"GET"}, Unknown: map[string]interface{}{"path": "/"}}},
			`circuitBreaker.ignore.path: there is no such key; did you mean "paths"?`},
	} {
		row := row
		t.Run(row.message, func(t *testing.T) {
			requireProblem(t, &Config{CircuitBreaker: &row.config}, row.message)
		})
	}
}
