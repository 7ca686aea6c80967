package resilience

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// countedIn returns how many requests, failures and slow requests the window in Redis holds.
func countedIn(t *testing.T, server *redistest.Server) (requests, failed, slow int) {
	for _, text := range strings.Fields(server.Hash(breakerOf(t))["window"]) {
		var start, n, f, s int
		fmt.Sscanf(text, "%d:%d:%d:%d", &start, &n, &f, &s)
		requests += n
		failed += f
		slow += s
	}
	return requests, failed, slow
}

// everyThird fails at every third request, not at random.
func everyThird(n *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 == 0 {
			w.WriteHeader(500)
		}
	})
}

// Two gateways each see half of the requests to a service that fails at every third one.
func TestRatios_everyThirdRequestFails(t *testing.T) {
	for _, row := range []struct {
		ratio string
		opens bool
	}{{"30", true}, {"40", false}} {
		for _, limit := range limits() {
			row, limit := row, limit
			t.Run(row.ratio+" %, "+limit.name, func(t *testing.T) {
				server := redistest.Start(t)
				n := &atomic.Int64{}
				service := everyThird(n)
				var gateways []*Middleware
				for i := 0; i < 2; i++ {
					newProcess(t, 0)
					m, up := newInstance(t, &Config{Redis: at(server.Addr()), RateLimit: limit.limit, CircuitBreaker: &CircuitBreakerConfig{
						FailureThreshold: "0", FailureRatio: row.ratio, Window: "1m", MinimumRequests: "30", ResetTimeout: "1h"}})
					up.will(service)
					gateways = append(gateways, m)
				}
				const requests = 60
				for i := 0; i < requests; i++ {
					gateways[i%2].handler.ServeHTTP(statuswriter.New(), httptest.NewRequest("GET", "/", nil))
				}
				if row.opens {
					for _, m := range gateways {
						m := m
						waitFor(t, func() bool {
							advance(100 * time.Millisecond)
							get(m.handler)
							return circuitOf(m) == "open"
						})
					}
					return
				}
				waitFor(t, func() bool {
					seen, failed, _ := countedIn(t, server)
					return seen == requests && failed == requests/3
				}, "every request is counted")
				require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
			})
		}
	}
}

// Every way to learn a status counts each request once.
func TestRatios_everyWriterCountsTheSame(t *testing.T) {
	for _, row := range []struct {
		name   string
		writer func() http.ResponseWriter
		change func(c *CircuitBreakerConfig)
	}{
		{"a writer with a status", func() http.ResponseWriter { return statuswriter.New() }, func(*CircuitBreakerConfig) {}},
		{"a recorder", func() http.ResponseWriter { return httptest.NewRecorder() }, func(*CircuitBreakerConfig) {}},
		{"hangTimeout", func() http.ResponseWriter { return statuswriter.New() }, func(c *CircuitBreakerConfig) { c.HangTimeout = "1m" }},
		{"slowRatio", func() http.ResponseWriter { return statuswriter.New() }, func(c *CircuitBreakerConfig) { c.SlowRatio = "100" }},
		{"a list of statuses", func() http.ResponseWriter { return statuswriter.New() }, func(c *CircuitBreakerConfig) { c.FailureStatus = "500" }},
		{"ignored paths", func() http.ResponseWriter { return statuswriter.New() }, func(c *CircuitBreakerConfig) {
			c.Ignore = &IgnoreConfig{Paths: []string{"/health"}}
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			newProcess(t, 0)
			config := &CircuitBreakerConfig{FailureRatio: "100", Window: "1m", MinimumRequests: "1000"}
			row.change(config)
			handler, up := newGateway(t, &Config{Redis: at(server.Addr()), CircuitBreaker: config})
			up.will(everyThird(&atomic.Int64{}))
			for i := 0; i < 30; i++ {
				handler.ServeHTTP(row.writer(), httptest.NewRequest("GET", "/", nil))
			}
			handler.ServeHTTP(row.writer(), httptest.NewRequest("GET", "/health", nil))
			want := 31
			if config.Ignore != nil {
				want = 30
			}
			waitFor(t, func() bool {
				requests, failed, _ := countedIn(t, server)
				return requests == want && failed == 10
			})
		})
	}
}

// Successes of requests that passed before the circuit opened count nothing when it has closed again, however their status is read.
func TestRatios_lateSuccesses(t *testing.T) {
	for _, row := range []struct {
		name  string
		serve func(handler http.HandlerFunc)
	}{
		{"a writer with a status", func(handler http.HandlerFunc) { handler(statuswriter.New(), httptest.NewRequest("GET", "/", nil)) }},
		{"net/http's own", func(handler http.HandlerFunc) { statuswriter.Serve(http1, "GET", handler) }},
		{"a recorder", func(handler http.HandlerFunc) { handler(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) }},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			newProcess(t, 0)
			redis := at(server.Addr())
			m, up := newInstance(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
				FailureThreshold: "1", FailureRatio: "100", Window: "10h", MinimumRequests: "1000", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1"}})
			ask := func() { row.serve(m.handler.ServeHTTP) }
			ask()
			waitFor(t, func() bool { return reported(m) })
			over := make(chan struct{})
			up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-over
				w.WriteHeader(200)
			}))
			const late = 5
			var done sync.WaitGroup
			done.Add(late)
			for i := 0; i < late; i++ {
				go func() {
					defer done.Done()
					ask()
				}()
			}
			waitFor(t, func() bool { return up.count() == 1+late })

			up.will(status(500))
			ask()
			waitFor(t, func() bool { return circuitOf(m) == "open" })
			elapse(t, redis, time.Hour)
			up.will(nil)
			ask()
			require.Equal(t, "closed", circuitOf(m))
			ask()
			close(over)
			done.Wait()
			ask()
			waitFor(t, func() bool { return reported(m) })
			requests, _, _ := countedIn(t, server)
			require.Equal(t, 2, requests, "those since the probe")
		})
	}
}

// A service that answers late opens the circuit; a client that sends or reads slowly never does.
func TestRatios_slow(t *testing.T) {
	late := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		advance(3 * time.Second)
		io.WriteString(w, "late")
	}
	reads := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "in time")
	}
	slowAnswer := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "in time")
		advance(3 * time.Second)
		io.WriteString(w, "a body that takes long")
	}
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		body   func() io.Reader
		slow   bool
	}{
		{"a service that answers late", late, nil, true},
		{"also after a body", late, func() io.Reader { return strings.NewReader("a body") }, true},
		{"a client that sends slowly", reads, func() io.Reader { return &slowly{} }, false},
		{"a client that reads slowly", slowAnswer, nil, false},
		{"an answer before the end of the body", slowAnswer, func() io.Reader { return &slowly{} }, false},
		{"in time", reads, nil, false},
	} {
		row := row
		forEachStore(t, func(t *testing.T, redis *RedisConfig) {
			t.Run(row.name, func(t *testing.T) {
				m, up := newInstance(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
					FailureThreshold: "0", SlowRatio: "50", SlowDuration: "2s", Window: "1h", MinimumRequests: "4", ResetTimeout: "10h"}})
				up.will(row.answer)
				for i := 0; i < 4; i++ {
					var body io.Reader
					if row.body != nil {
						body = row.body()
					}
					m.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", body))
				}
				if row.slow {
					waitFor(t, func() bool { return circuitOf(m) == "open" })
					return
				}
				waitFor(t, func() bool { return reported(m) })
				require.Equal(t, "closed", circuitOf(m))
			})
		})
	}
}

// slowly is a body that takes three seconds.
type slowly struct{ ended bool }

func (s *slowly) Read(p []byte) (int, error) {
	if s.ended {
		return 0, io.EOF
	}
	s.ended = true
	advance(3 * time.Second)
	return 1, nil
}

// reported reports whether a breaker has nothing left to report.
func reported(m *Middleware) bool { return !m.breaker.ReportPending() }

// A slow probe opens the circuit again.
func TestRatios_aSlowProbe(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		opener, failing := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("1")})
		failing.will(status(500))
		require.Equal(t, 500, get(opener))
		elapse(t, redis, time.Hour)
		m, up := newInstance(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
			ResetTimeout: "1h", HalfOpenSuccessThreshold: "1", SlowRatio: "50"}})
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			advance(3 * time.Second)
			w.WriteHeader(200)
		}))
		require.Equal(t, 200, get(m.handler))
		require.Equal(t, "open", circuitOf(m))
	})
}

func TestRead_ratios(t *testing.T) {
	const head, tail = "circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s", " of at least 20 requests in 10s"
	for _, row := range []struct {
		config CircuitBreakerConfig
		want   breaker.Rules
		slow   time.Duration
		text   string
	}{
		{CircuitBreakerConfig{FailureRatio: "0", SlowRatio: " "}, breaker.Rules{}, 0, ""},
		{CircuitBreakerConfig{FailureRatio: "50"}, breaker.Rules{FailureRatio: 50, Window: 10 * time.Second, MinimumRequests: 20}, 0,
			"; opens at 50% failures" + tail},
		{CircuitBreakerConfig{SlowRatio: "80"}, breaker.Rules{SlowRatio: 80, Window: 10 * time.Second, MinimumRequests: 20}, 2 * time.Second,
			"; opens at 80% slower than 2s" + tail},
		{CircuitBreakerConfig{FailureRatio: "1", SlowRatio: "100", SlowDuration: "500ms", Window: "1m", MinimumRequests: "5"},
			breaker.Rules{FailureRatio: 1, SlowRatio: 100, Window: time.Minute, MinimumRequests: 5}, 500 * time.Millisecond,
			"; opens at 1% failures; opens at 100% slower than 500ms of at least 5 requests in 1m0s"},
	} {
		s := mustRead(t, &Config{CircuitBreaker: &row.config})
		require.Equal(t, breaker.NewPolicy(5, 30*time.Second, 2, 2, 10*time.Second).With(row.want), s.policy, row.text)
		require.Equal(t, row.slow, s.slowDuration)
		require.Equal(t, head+row.text, s.parts[0])
	}
	s := mustRead(t, &Config{CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "0", FailureRatio: "50"}})
	require.Equal(t, "circuit breaker: is open for 30s; closes after 2 successes, of 2 probes at once, each within 10s; opens at 50% failures"+tail, s.parts[0])
}

func TestRead_reportsInvalidRatios(t *testing.T) {
	for _, row := range []struct {
		config  CircuitBreakerConfig
		message string
	}{
		{CircuitBreakerConfig{FailureRatio: "101"}, `circuitBreaker.failureRatio: "101" is not a whole number from 0 to 100`},
		{CircuitBreakerConfig{SlowRatio: "0.5"}, `circuitBreaker.slowRatio: "0.5" is not a whole number from 0 to 100`},
		{CircuitBreakerConfig{FailureRatio: "50", MinimumRequests: "0"},
			`circuitBreaker.minimumRequests: "0" is not a whole number from 1 to 1000000000`},
		{CircuitBreakerConfig{FailureRatio: "50", Window: "100ms"},
			`circuitBreaker.window: "100ms" is out of bounds; write a duration from 1s to 10000d, in whole microseconds`},
		{CircuitBreakerConfig{FailureRatio: "50", SlowDuration: "1s"},
			"circuitBreaker.slowDuration: it has no effect without slowRatio; write that too, or leave it out"},
		{CircuitBreakerConfig{Window: "1m"},
			"circuitBreaker.window: it has no effect without failureRatio or slowRatio; write one of them, or leave it out"},
		{CircuitBreakerConfig{MinimumRequests: "5"},
			"circuitBreaker.minimumRequests: it has no effect without failureRatio or slowRatio; write one of them, or leave it out"},
		{CircuitBreakerConfig{FailureThreshold: "0"}, `circuitBreaker.failureThreshold: "0" is not a whole number from 1 to 1000000000`},
	} {
		row := row
		t.Run(row.message, func(t *testing.T) {
			requireProblem(t, &Config{CircuitBreaker: &row.config}, row.message)
		})
	}
}

// Under full load, with failures among the requests, a gateway makes at most 20 calls a second.
func TestRatios_underLoadThereAreFewCalls(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	relay := redistest.NewRelay(t, server)
	handler, up := newGateway(t, &Config{Redis: at(relay.Addr()), CircuitBreaker: &CircuitBreakerConfig{
		FailureThreshold: "0", FailureRatio: "100", Window: "1h"}})
	up.will(everyThird(&atomic.Int64{}))
	handler.ServeHTTP(statuswriter.New(), httptest.NewRequest("GET", "/", nil)) // the connection is made
	before, begun, requests := relay.Sent(), time.Now(), 1
	for time.Since(begun) < time.Second {
		handler.ServeHTTP(statuswriter.New(), httptest.NewRequest("GET", "/", nil))
		requests++
	}
	calls := relay.Sent() - before
	require.LessOrEqual(t, calls, int64(time.Since(begun)/(50*time.Millisecond))+1, "%d requests", requests)
	waitFor(t, func() bool {
		seen, _, _ := countedIn(t, server)
		return seen == requests
	}, "each is counted once")
}
