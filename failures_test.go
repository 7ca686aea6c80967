package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"

	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// What counts as a failure of the upstream, seen from outside: by whether the circuit opens.

// outcomeOf returns what an answer counts as: failure, success or nothing. It puts the answer between failures of a breaker that opens
// after two.
func outcomeOf(t *testing.T, redis *RedisConfig, answer func(handler http.Handler, up *upstream)) string {
	return outcomeUnder(t, &Config{Redis: redis, CircuitBreaker: failures("2")}, answer)
}

// outcomeUnder is outcomeOf for any breaker that opens after two failures, of which a 500 is one.
func outcomeUnder(t *testing.T, config *Config, answer func(handler http.Handler, up *upstream)) string {
	handler, up := newGateway(t, config)
	fail := func() {
		up.will(status(500))
		require.Equal(t, 500, get(handler))
	}
	require.Equal(t, 200, get(handler))
	fail()
	answer(handler, up)
	up.will(nil)
	before := up.count()
	if get(handler) == 503 {
		require.Equal(t, before, up.count())
		return "failure"
	}
	fail() // the first of a new streak: the request before was a success
	answer(handler, up)
	fail()
	up.will(nil)
	if get(handler) == 503 {
		return "nothing"
	}
	return "success"
}

// outcomeRow is an answer of the upstream and what it counts as.
type outcomeRow struct {
	name   string
	answer http.Handler
	want   string
}

// requireOutcomes requires the outcome of each row in each store. send sends the request that is answered.
func requireOutcomes(t *testing.T, rows []outcomeRow, send func(handler http.Handler)) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			row := row
			t.Run(row.name, func(t *testing.T) {
				got := outcomeOf(t, redis, func(handler http.Handler, up *upstream) {
					up.will(row.answer)
					send(handler)
				})
				require.Equal(t, row.want, got)
			})
		}
	})
}

func TestFailure_dependsOnTheStatus(t *testing.T) {
	rows := []outcomeRow{
		{"a handler that writes nothing", nothingWritten, "success"},
		{"a body without a status", nil, "success"},
		{"200", status(200), "success"},
		{"204", status(204), "success"},
		{"304", status(304), "success"},
		{"404", status(404), "success"},
		{"the upstream's 429", status(429), "success"},
		{"499", status(499), "success"},
		{"500", status(500), "failure"},
		{"501", status(501), "failure"},
		{"502", status(502), "failure"},
		{"the upstream's 503", status(503), "failure"},
		{"504", status(504), "failure"},
		{"599", status(599), "failure"},
		{"101", status(101), "success"},
		{"early hints, then 200", hintsThen(200), "success"},
		{"early hints, then 502", hintsThen(502), "failure"},
		{"200, then 500: the first status counts", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.WriteHeader(500)
		}), "success"},
	}
	requireOutcomes(t, rows, func(handler http.Handler) { get(handler) })
}

// Whatever the handlers answer to a client that has disconnected, it proves neither a failure nor a success of the upstream.
func TestFailure_isNotCountedAfterTheClientDisconnects(t *testing.T) {
	rows := []outcomeRow{
		{"200", status(200), "nothing"},
		{"499, which Traefik's proxy answers then", status(499), "nothing"},
		{"502", status(502), "nothing"},
		{"no answer", nothingWritten, "nothing"},
		{"a panic", panicking, "nothing"},
		{"a WebSocket that was open", status(101), "success"},
	}
	requireOutcomes(t, rows, func(handler http.Handler) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		panicOf(handler, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	})
}

// Over HTTP/2 the stream of a HEAD request ends with the response headers. The request's context ends with it, before the next handler
// has returned.
func TestFailure_ofAHeadRequestWhoseStreamHasEnded(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for code, want := range map[int]string{200: "success", 404: "success", 499: "nothing", 503: "failure"} {
			code, want := code, want
			t.Run(strconv.Itoa(code), func(t *testing.T) {
				got := outcomeOf(t, redis, func(handler http.Handler, up *upstream) {
					ctx, cancel := context.WithCancel(context.Background())
					up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.WriteHeader(code)
						cancel()
					}))
					handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("HEAD", "/", nil).WithContext(ctx))
				})
				require.Equal(t, want, got)
			})
		}
	})
}

// limits are one for each way to a token: none is needed, a batch asks Redis for it, a lease has it.
func limits() []namedLimit {
	return []namedLimit{
		{"no limit", nil}, {"a limit too low for leases", tokens("90")}, {"a lease", tokens("100000")},
	}
}

type namedLimit struct {
	name  string
	limit *RateLimitConfig
}

func TestFailure_isTheSameForEveryWriter(t *testing.T) {
	writers := []struct {
		name   string
		before func() http.ResponseWriter // of the requests before: what is learned of one type does not hold for another
	}{
		{"the first writer of its type", func() http.ResponseWriter { return httptest.NewRecorder() }},
		{"a writer like those before", func() http.ResponseWriter { return statuswriter.New() }},
		{"a writer unlike those before", func() http.ResponseWriter { return statuswriter.NewSized() }},
	}
	rows := []struct {
		name    string
		answer  http.Handler
		failure bool
	}{
		{"nothing written", nothingWritten, false},
		{"a body without a status", nil, false},
		{"404", status(404), false},
		{"early hints, then 200", hintsThen(200), false},
		{"500", status(500), true},
		{"early hints, then 502", hintsThen(502), true},
		{"a panic", panicking, true},
	}
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			for _, limit := range limits() {
				for _, writer := range writers {
					row, limit, writer := row, limit, writer
					t.Run(row.name+", "+limit.name+", "+writer.name, func(t *testing.T) {
						handler, up := newGateway(t, &Config{Redis: redis, RateLimit: limit.limit, CircuitBreaker: failures("1")})
						for i := 0; i < 5; i++ {
							handler.ServeHTTP(writer.before(), httptest.NewRequest("GET", "/", nil))
						}
						require.Equal(t, 5, up.count())
						up.will(row.answer)
						panicOf(handler, statuswriter.New(), httptest.NewRequest("GET", "/", nil))
						up.will(nil)
						require.Equal(t, row.failure, get(handler) == 503)
					})
				}
			}
		}
	})
}

// abortingProxy is a proxy whose upstream ends its answer in the middle. It is compiled, as all is that comes after a plugin in Traefik.
func abortingProxy(t *testing.T) http.Handler {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
	}))
	t.Cleanup(origin.Close)
	address, err := url.Parse(origin.URL)
	require.NoError(t, err)
	return httputil.NewSingleHostReverseProxy(address)
}

func TestFailure_panicIsCountedAndPropagates(t *testing.T) {
	fault := panicOf(panicking, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	require.NotNil(t, fault)
	rows := []struct {
		name   string
		answer http.Handler
		value  interface{}
	}{
		{"an aborted answer", abortingProxy(t), http.ErrAbortHandler},
		{"a fault of a handler", panicking, fault},
	}
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			row := row
			t.Run(row.name, func(t *testing.T) {
				got := outcomeOf(t, redis, func(handler http.Handler, up *upstream) {
					up.will(row.answer)
					request := httptest.NewRequest("GET", "/", nil)
					// Without a server in the context the proxy would not panic.
					request = request.WithContext(context.WithValue(request.Context(), http.ServerContextKey, &http.Server{}))
					require.Equal(t, row.value, panicOf(handler, httptest.NewRecorder(), request))
				})
				require.Equal(t, "failure", got)
			})
		}
	})
}

// All requests are in flight before the first of them fails. They are reported one by one.
func TestFailure_successResetsTheStreak(t *testing.T) {
	rows := []struct {
		name  string
		codes []int
		after int // status of the next request
	}{
		{"no two in a row", []int{500, 200, 500, 200, 500, 200, 500}, 200},
		{"two in a row", []int{500, 500, 200, 500, 500, 200, 500}, 200},
		{"three in a row", []int{500, 200, 500, 500, 500}, 503},
		{"a success that comes too late", []int{500, 500, 500, 200, 200}, 503},
	}
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			row := row
			t.Run(row.name, func(t *testing.T) {
				handler, up := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("3")})
				require.Equal(t, 200, get(handler))
				begun, codes, ended := make(chan bool), make(chan int), make(chan bool)
				up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					begun <- true
					w.WriteHeader(<-codes)
				}))
				for range row.codes {
					go func() {
						get(handler)
						ended <- true
					}()
					<-begun
				}
				for _, code := range row.codes {
					codes <- code
					<-ended
				}
				up.will(nil)
				require.Equal(t, row.after, get(handler))
			})
		}
	})
}
