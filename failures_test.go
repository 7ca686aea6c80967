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

// verdict tells what an answer counts as, by what the breaker makes of it between failures: with two it opens.
func outcomeOf(t *testing.T, place place, answer func(handler http.Handler, up *upstream)) string {
	handler, up := newGateway(t, &Config{Redis: place.redis, CircuitBreaker: failures("2")})
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
	fail() // the request before was a success: the count begins anew
	answer(handler, up)
	fail()
	up.will(nil)
	if get(handler) == 503 {
		return "nothing"
	}
	return "success"
}

// cutShort is a proxy, compiled as all that is below us in Traefik, whose upstream ends its answer in the midst.
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

func TestFailure_dependsOnTheStatus(t *testing.T) {
	rows := []struct {
		name   string
		answer http.Handler
		want   string
	}{
		{"a handler that writes nothing", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "success"},
		{"a body without a status", nil, "success"},
		{"200", status(200), "success"},
		{"204", status(204), "success"},
		{"304", status(304), "success"},
		{"404", status(404), "success"},
		{"429 of the upstream's own", status(429), "success"},
		{"499", status(499), "success"},
		{"500", status(500), "failure"},
		{"501", status(501), "failure"},
		{"502", status(502), "failure"},
		{"503 of the upstream's own", status(503), "failure"},
		{"504", status(504), "failure"},
		{"599", status(599), "failure"},
		{"101", status(101), "success"},
		{"early hints, then 200", hintsThen(200), "success"},
		{"early hints, then 502", hintsThen(502), "failure"},
		{"the first status is the one that counts", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.WriteHeader(500)
		}), "success"},
	}
	for _, place := range places(t) {
		for _, row := range rows {
			place, row := place, row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				got := outcomeOf(t, place, func(handler http.Handler, up *upstream) {
					up.will(row.answer)
					get(handler)
				})
				require.Equal(t, row.want, got)
			})
		}
	}
}

// A client that went away is no fault of the upstream's, nor a proof of its health, whatever the handlers make of it.
func TestFailure_isNotCountedAfterTheClientDisconnects(t *testing.T) {
	rows := []struct {
		name   string
		answer http.Handler
		want   string
	}{
		{"200", status(200), "nothing"},
		{"499, as Traefik's proxy answers then", status(499), "nothing"},
		{"502", status(502), "nothing"},
		{"no answer", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "nothing"},
		{"a panic", http.HandlerFunc(nil), "nothing"},
		{"a WebSocket that was open", status(101), "success"},
	}
	for _, place := range places(t) {
		for _, row := range rows {
			place, row := place, row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				got := outcomeOf(t, place, func(handler http.Handler, up *upstream) {
					up.will(row.answer)
					ctx, cancel := context.WithCancel(context.Background())
					cancel()
					request := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
					panicOf(handler, httptest.NewRecorder(), request)
				})
				require.Equal(t, row.want, got)
			})
		}
	}
}

// Over HTTP/2 the stream of a HEAD request ends with the response headers, and the request's context with it, before the next
// handler has returned.
func TestFailure_ofAHeadRequestWhoseStreamHasEnded(t *testing.T) {
	for _, place := range places(t) {
		for code, want := range map[int]string{200: "success", 404: "success", 499: "nothing", 503: "failure"} {
			place, code, want := place, code, want
			t.Run(strconv.Itoa(code)+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				got := outcomeOf(t, place, func(handler http.Handler, up *upstream) {
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
	}
}

func TestFailure_isTheSameForEveryWriter(t *testing.T) {
	limits := []struct {
		name  string
		limit *RateLimitConfig
	}{
		{"no limit", nil}, {"a limit too low for leases", tokens("90")}, {"a lease", tokens("100000")},
	}
	writers := []struct {
		name   string
		before func() http.ResponseWriter // of the requests before: what is found out of the one is not the other's
	}{
		{"its first writer of the kind", func() http.ResponseWriter { return httptest.NewRecorder() }},
		{"a writer like those before", func() http.ResponseWriter { return statuswriter.New() }},
		{"a writer unlike those before", func() http.ResponseWriter { return statuswriter.NewSized() }},
	}
	for _, place := range places(t) {
		for _, row := range []struct {
			name     string
			answer   http.Handler
			failures bool
		}{
			{"nothing written", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), false},
			{"a body without a status", nil, false},
			{"404", status(404), false},
			{"early hints, then 200", hintsThen(200), false},
			{"500", status(500), true},
			{"early hints, then 502", hintsThen(502), true},
			{"a panic", http.HandlerFunc(nil), true},
		} {
			for _, of := range limits {
				for _, writer := range writers {
					place, row, of, writer := place, row, of, writer
					t.Run(row.name+", "+of.name+", "+writer.name+", "+place.name, func(t *testing.T) {
						newProcess(t, 0)
						handler, up := newGateway(t, &Config{Redis: place.redis, RateLimit: of.limit, CircuitBreaker: failures("1")})
						for i := 0; i < 5; i++ {
							handler.ServeHTTP(writer.before(), httptest.NewRequest("GET", "/", nil))
						}
						require.Equal(t, 5, up.count())
						up.will(row.answer)
						panicOf(handler, statuswriter.New(), httptest.NewRequest("GET", "/", nil))
						up.will(nil)
						require.Equal(t, row.failures, get(handler) == 503)
					})
				}
			}
		}
	}
}

func TestFailure_panicIsCountedAndPropagates(t *testing.T) {
	abort := abortingProxy(t)
	fault := panicOf(http.HandlerFunc(nil), httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	require.NotNil(t, fault)
	for _, place := range places(t) {
		for _, row := range []struct {
			name   string
			answer http.Handler
			value  interface{}
		}{
			{"an answer that is cut short", abort, http.ErrAbortHandler},
			{"a fault of a handler", http.HandlerFunc(nil), fault},
		} {
			place, row := place, row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				got := outcomeOf(t, place, func(handler http.Handler, up *upstream) {
					up.will(row.answer)
					request := httptest.NewRequest("GET", "/", nil)
					// Without a server in the context the proxy would not panic.
					request = request.WithContext(context.WithValue(request.Context(), http.ServerContextKey, &http.Server{}))
					value := panicOf(handler, httptest.NewRecorder(), request)
					require.Equal(t, row.value, value)
				})
				require.Equal(t, "failure", got)
			})
		}
	}
}

// Requests that were all under way before the first of them failed are heard of one by one.
func TestFailure_successResetsTheStreak(t *testing.T) {
	for _, place := range places(t) {
		for _, row := range []struct {
			name  string
			codes []int
			after int
		}{
			{"no two in a row", []int{500, 200, 500, 200, 500, 200, 500}, 200},
			{"two in a row", []int{500, 500, 200, 500, 500, 200, 500}, 200},
			{"three in a row", []int{500, 200, 500, 500, 500}, 503},
			{"a success that comes too late", []int{500, 500, 500, 200, 200}, 503},
		} {
			place, row := place, row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				handler, up := newGateway(t, &Config{Redis: place.redis, CircuitBreaker: failures("3")})
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
	}
}
