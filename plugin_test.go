package resilience

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// closedPort is where nobody listens. It is none of those that a test may be given.
const closedPort = "127.0.0.1:1"

// nameOf is what a middleware is called that has the test's name.
func nameOf(t *testing.T) string { return readName(&problems{}, "", t.Name()) }

// bucketOf and breakerOf are its keys in Redis. The client is that of httptest's requests.
func bucketOf(t *testing.T) string { return "resilience:{" + nameOf(t) + "}:bucket:ip:192.0.2.1" }

func breakerOf(t *testing.T) string { return "resilience:{" + nameOf(t) + "}:breaker" }

// upstream counts what reaches it, and answers as it is told: with 200 and "hello" where it is told nothing.
type upstream struct {
	mu     sync.Mutex
	calls  int
	answer http.Handler
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.calls++
	answer := u.answer
	u.mu.Unlock()
	if answer == nil {
		io.WriteString(w, "hello")
		return
	}
	answer.ServeHTTP(w, r)
}

func (u *upstream) will(answer http.Handler) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = answer
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls
}

func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
}

// newProcess begins anew, with nothing left of the tests before: what New returns from here on belongs to one process.
func newProcess(t *testing.T, grace time.Duration) *registry {
	before := processRegistry
	processRegistry = newRegistry(grace)
	t.Cleanup(func() { processRegistry = before })
	return processRegistry
}

// newGateway returns a middleware before a new upstream. Both end with the test.
func newGateway(t *testing.T, config *Config) (http.Handler, *upstream) {
	up := &upstream{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return newHandler(t, ctx, up, config), up
}

// newHandler is New, with the test's name for a middleware whose configuration has none.
func newHandler(t *testing.T, ctx context.Context, next http.Handler, config *Config) http.Handler {
	handler, err := New(ctx, next, config, t.Name())
	require.NoError(t, err)
	return handler
}

// at is a Redis that is given all the time it takes.
func at(address string) *RedisConfig {
	return &RedisConfig{Address: address, Timeout: "5s"}
}

// tokens is a limit under which a bucket does not refill while a test lasts.
func tokens(capacity string) *RateLimitConfig {
	return &RateLimitConfig{Capacity: capacity, RefillRate: "1", RefillPeriod: "1h"}
}

// failures is a breaker that stays open while a test lasts.
func failures(threshold string) *CircuitBreakerConfig {
	return &CircuitBreakerConfig{FailureThreshold: threshold, ResetTimeout: "1h"}
}

func send(handler http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// get has the handler answer a client's request, and returns the status.
func get(handler http.Handler) int {
	return send(handler, "GET", "/").Code
}

// places are where the state may be.
func places(t *testing.T) []place {
	return []place{{"in this process", nil}, {"in Redis", at(redistest.Start(t).Addr())}}
}

type place struct {
	name  string
	redis *RedisConfig
}

func TestNew_refusesWhatCannotWork(t *testing.T) {
	up := &upstream{}
	for _, row := range []struct {
		name    string
		next    http.Handler
		config  *Config
		problem string
	}{
		{"no next handler", nil, CreateConfig(), "resilience: there is no next handler"},
		{"a wrong value", up, &Config{RateLimit: &RateLimitConfig{Capacity: "many"}},
			`rateLimit.capacity: "many" is not a whole number from 1 to 1000000000`},
		{"several wrong values", up, &Config{Name: "a b", Redis: &RedisConfig{OnError: "panic"}},
			`2 problems: (1) name: "a b" is not a name of letters, digits and . _ @ -, 64 at the most` +
				` (2) redis.onError: "panic" is not one of local, allow and deny`},
		{"a key that there is not", up, &Config{Unknown: map[string]interface{}{"ratelimit": "1"}},
			`ratelimit: there is no such key; did you mean "rateLimit"?`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			processes := newProcess(t, time.Hour)
			handler, err := New(context.Background(), row.next, row.config, "gateway@file")

			require.EqualError(t, err, row.problem)
			require.True(t, handler == nil)
			require.Len(t, processes.engines, 0)
		})
	}
}

// The plugin catalogue does this, in an environment without our Redis. The values are those of .traefik.yml.
func TestNew_takesTheCatalogsTestData(t *testing.T) {
	newProcess(t, 0)
	config := CreateConfig()
	config.Redis = &RedisConfig{Address: "redis:6379", PasswordEnv: "REDIS_PASSWORD"}
	config.RateLimit = &RateLimitConfig{Capacity: "100", RefillRate: "10"}
	config.CircuitBreaker = &CircuitBreakerConfig{FailureThreshold: "5", ResetTimeout: "30s"}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begun := time.Now()
	handler, err := New(ctx, &upstream{}, config, "resilience")

	require.NoError(t, err)
	require.NotNil(t, handler)
	require.Less(t, time.Since(begun), time.Second)
}

func TestNew_dialsNothing(t *testing.T) {
	newProcess(t, 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := int64(0)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			atomic.AddInt64(&accepted, 1)
			c.Close()
		}
	}()
	defer listener.Close()
	config := &Config{Redis: at(listener.Addr().String()), RateLimit: tokens("5"), CircuitBreaker: failures("5")}

	handler, _ := newGateway(t, config)
	time.Sleep(50 * time.Millisecond)
	require.Equal(t, int64(0), atomic.LoadInt64(&accepted))

	get(handler)
	require.NotZero(t, atomic.LoadInt64(&accepted), "the first request does")
}

func TestServeHTTP_letsTheNextHandlerAnswer(t *testing.T) {
	for _, place := range places(t) {
		place := place
		t.Run(place.name, func(t *testing.T) {
			newProcess(t, 0)
			handler, up := newGateway(t, &Config{Redis: place.redis, RateLimit: tokens("5"), CircuitBreaker: failures("5")})
			up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("X-Method", r.Method)
				w.Header().Set("X-Query", r.URL.RawQuery)
				w.WriteHeader(418)
				w.Write(body)
			}))
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest("PUT", "/pot?a=b", strings.NewReader("tea")))

			require.Equal(t, 418, w.Code)
			require.Equal(t, http.Header{"X-Method": {"PUT"}, "X-Query": {"a=b"}}, w.Result().Header, "and none of ours")
			require.Equal(t, "tea", w.Body.String())
		})
	}
}

func TestServeHTTP_partsThatAreLeftOutDoNothing(t *testing.T) {
	for _, place := range places(t) {
		for _, row := range []struct {
			name   string
			config Config
			sent   []int // statuses of the upstream
			got    []int
		}{
			{"no part", Config{},
				[]int{200, 500, 500, 500, 500, 200}, []int{200, 500, 500, 500, 500, 200}},
			{"the rate limiter alone", Config{RateLimit: tokens("4")},
				[]int{500, 500, 500, 200, 200}, []int{500, 500, 500, 200, 429}},
			{"the circuit breaker alone", Config{CircuitBreaker: failures("2")},
				[]int{200, 200, 200, 200, 200, 500, 500, 200}, []int{200, 200, 200, 200, 200, 500, 500, 503}},
			{"health alone", Config{Health: &HealthConfig{}},
				[]int{500, 500, 500, 500, 200}, []int{500, 500, 500, 500, 200}},
			{"all parts", Config{RateLimit: tokens("4"), CircuitBreaker: failures("2"), Health: &HealthConfig{}},
				[]int{200, 500, 500, 200, 200}, []int{200, 500, 500, 503, 503}},
			{"all parts, the other way", Config{RateLimit: tokens("2"), CircuitBreaker: failures("2"), Health: &HealthConfig{}},
				[]int{200, 500, 500, 500}, []int{200, 500, 429, 429}},
		} {
			config, sent, want := row.config, row.sent, row.got
			config.Redis = place.redis
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				handler, up := newGateway(t, &config)
				var got []int
				for _, code := range sent {
					up.will(status(code))
					got = append(got, get(handler))
				}
				require.Equal(t, want, got)
			})
		}
	}
}

func TestServeHTTP_health(t *testing.T) {
	newProcess(t, 0)
	handler, up := newGateway(t, &Config{RateLimit: tokens("3"), Health: &HealthConfig{Path: "/healthz"}})
	for _, row := range []struct {
		name, method, path string
		ours               bool
	}{
		{"GET", "GET", "/healthz", true},
		{"HEAD", "HEAD", "/healthz", true},
		{"with a query", "GET", "/healthz?full=1", true},
		{"POST", "POST", "/healthz", false},
		{"a path below", "GET", "/healthz/", false},
		{"a path above", "GET", "/health", false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			before := up.count()
			w := send(handler, row.method, row.path)

			require.Equal(t, 200, w.Code)
			if row.ours {
				require.Equal(t, before, up.count())
				require.Equal(t, `{"status":"healthy"}`, w.Body.String())
			} else {
				require.Equal(t, before+1, up.count())
			}
		})
	}
	require.Equal(t, 429, get(handler), "those that went on took a token each, the others none")
	require.Equal(t, 200, send(handler, "GET", "/healthz").Code)
}

func TestServeHTTP_healthAlsoWhereRequestsPassUnasked(t *testing.T) {
	for _, place := range places(t) {
		for _, row := range []struct {
			name   string
			config Config
		}{
			{"with a limiter", Config{RateLimit: tokens("100000")}},
			{"with a breaker", Config{CircuitBreaker: failures("5")}},
			{"with both", Config{RateLimit: tokens("100000"), CircuitBreaker: failures("5")}},
		} {
			config := row.config
			config.Redis = place.redis
			config.Health = &HealthConfig{}
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				handler, up := newGateway(t, &config)
				for i := 0; i < 50; i++ {
					require.Equal(t, 200, get(handler))
					require.Equal(t, healthyBody, send(handler, "GET", "/health").Body.String())
				}
				require.Equal(t, 50, up.count())
			})
		}
	}
}

// verdict tells what an answer counts as, by what the breaker makes of it between failures: with two it opens.
func verdict(t *testing.T, place place, answer func(handler http.Handler, up *upstream)) string {
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

func TestBreaker_countsWhatTheUpstreamIsToBlameFor(t *testing.T) {
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
				got := verdict(t, place, func(handler http.Handler, up *upstream) {
					up.will(row.answer)
					get(handler)
				})
				require.Equal(t, row.want, got)
			})
		}
	}
}

func hintsThen(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(code)
	})
}

// A client that went away is no fault of the upstream's, nor a proof of its health, whatever the handlers make of it.
func TestBreaker_countsNothingOfAClientThatWentAway(t *testing.T) {
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
				got := verdict(t, place, func(handler http.Handler, up *upstream) {
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
func TestBreaker_countsAnAnswerToHEADWhoseStreamHasEnded(t *testing.T) {
	for _, place := range places(t) {
		for code, want := range map[int]string{200: "success", 404: "success", 499: "nothing", 503: "failure"} {
			place, code, want := place, code, want
			t.Run(strconv.Itoa(code)+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				got := verdict(t, place, func(handler http.Handler, up *upstream) {
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

func TestBreaker_countsTheSameWhereTraefikKnowsTheStatus(t *testing.T) {
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

// panicOf returns what the handler panics with, or nil.
func panicOf(handler http.Handler, w http.ResponseWriter, r *http.Request) (value interface{}) {
	defer func() { value = recover() }()
	handler.ServeHTTP(w, r)
	return nil
}

// cutShort is a proxy, compiled as all that is below us in Traefik, whose upstream ends its answer in the midst.
func cutShort(t *testing.T) http.Handler {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
	}))
	t.Cleanup(origin.Close)
	address, err := url.Parse(origin.URL)
	require.NoError(t, err)
	return httputil.NewSingleHostReverseProxy(address)
}

func TestBreaker_aPanicCountsAndGoesOn(t *testing.T) {
	abort := cutShort(t)
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
				got := verdict(t, place, func(handler http.Handler, up *upstream) {
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
func TestBreaker_aSuccessEndsARowOfFailures(t *testing.T) {
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

// ready returns a middleware whose circuit is open, and has been for long enough: its next request is a probe. One probe at
// a time may pass; one success closes the circuit, and one failure opens it for good.
func ready(t *testing.T, place place) (http.Handler, *upstream) {
	config := &Config{Redis: place.redis, CircuitBreaker: &CircuitBreakerConfig{
		FailureThreshold: "1", ResetTimeout: "1ms", HalfOpenSuccessThreshold: "1"}}
	opener, broken := newGateway(t, config)
	broken.will(status(500))
	require.Equal(t, 500, get(opener))
	time.Sleep(5 * time.Millisecond)
	return newGateway(t, &Config{Redis: place.redis, CircuitBreaker: &CircuitBreakerConfig{
		FailureThreshold: "2", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1"}})
}

// stateOf tells the state of a breaker that takes one failure to open it when half-open, and two when closed.
func stateOf(handler http.Handler, up *upstream) string {
	up.will(status(500))
	if get(handler) == 503 {
		return "open"
	}
	up.will(nil)
	if get(handler) == 503 {
		return "half-open"
	}
	return "closed"
}

func TestProbe_itsVerdict(t *testing.T) {
	here := context.Background()
	gone, cancel := context.WithCancel(here)
	cancel()
	rows := []struct {
		name   string
		ctx    context.Context
		answer http.Handler
		after  string
	}{
		{"success", here, nil, "closed"},
		{"a status that is not the upstream's fault", here, status(404), "closed"},
		{"nothing written", here, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "closed"},
		{"another protocol", here, status(101), "closed"},
		{"early hints, then success", here, hintsThen(200), "closed"},
		{"failure", here, status(503), "open"},
		{"early hints, then failure", here, hintsThen(500), "open"},
		{"a panic", here, http.HandlerFunc(nil), "open"},
		{"a client that went away gives its place back", gone, status(502), "half-open"},
		{"a client that went away before a panic does so too", gone, http.HandlerFunc(nil), "half-open"},
	}
	for _, place := range places(t) {
		for _, row := range rows {
			place, row := place, row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				handler, up := ready(t, place)
				up.will(row.answer)
				panicOf(handler, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(row.ctx))
				require.Equal(t, row.after, stateOf(handler, up))
			})
		}
	}
}

func TestProbe_theVerdictIsItsHeaders(t *testing.T) {
	for _, place := range places(t) {
		place := place
		t.Run(place.name, func(t *testing.T) {
			newProcess(t, 0)
			handler, up := ready(t, place)
			begun, headers, end := make(chan bool), make(chan bool), make(chan bool)
			up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begun <- true
				<-headers
				w.WriteHeader(200)
				begun <- true
				<-end
				panic(http.ErrAbortHandler) // what comes after the headers is another matter
			}))
			var done sync.WaitGroup
			done.Add(1)
			go func() {
				defer done.Done()
				panicOf(handler, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			}()

			<-begun
			up.will(nil)
			before := up.count()
			requireAnswer(t, send(handler, "GET", "/"), 503, openBody, 1)
			require.Equal(t, before, up.count(), "there is one place, and it is taken")

			headers <- true
			<-begun
			if place.redis != nil {
				time.Sleep(60 * time.Millisecond) // for so long it is remembered that there was no place
			}
			require.Equal(t, 200, get(handler), "the answer is under way still")
			end <- true
			done.Wait()
			require.Equal(t, "closed", stateOf(handler, up))
		})
	}
}

func TestProbe_givesItsPlaceBackWhenItsClientIsGone(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, up := ready(t, place{redis: at(server.Addr())})
	up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		w.WriteHeader(499)
	}))
	front := httptest.NewServer(handler)
	defer front.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequest("GET", front.URL, nil)
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		answer, err := http.DefaultClient.Do(request.WithContext(ctx))
		if err == nil {
			answer.Body.Close()
		}
	}()
	key := breakerOf(t)
	underWay := func() bool { return server.Hash(key)["probe:1"] != "" }
	require.Eventually(t, underWay, 5*time.Second, time.Millisecond)

	cancel()
	done.Wait()
	require.Eventually(t, func() bool { return !underWay() }, 5*time.Second, time.Millisecond)
	require.Equal(t, "half-open", server.Hash(key)["state"])
	require.Equal(t, "", server.Hash(key)["successes"])
	up.will(nil)
	require.Equal(t, 200, get(handler))
	require.Equal(t, "closed", server.Hash(key)["state"])
}

func TestOnError_rulesWhileRedisIsAway(t *testing.T) {
	for _, row := range []struct {
		name    string
		onError string
		config  Config
		code    int // of the upstream
		got     []int
	}{
		{"local limits", "local", Config{RateLimit: tokens("2")}, 200, []int{200, 200, 429, 429}},
		{"local breaks", "local", Config{CircuitBreaker: failures("2")}, 500, []int{500, 500, 503, 503}},
		{"local does both", "local", Config{RateLimit: tokens("3"), CircuitBreaker: failures("2")}, 500, []int{500, 500, 503, 503}},
		{"local is the default", "", Config{RateLimit: tokens("1"), CircuitBreaker: failures("2")}, 200, []int{200, 429, 429}},
		{"allow does not limit", "allow", Config{RateLimit: tokens("1")}, 200, []int{200, 200, 200, 200}},
		{"allow does not break", "allow", Config{CircuitBreaker: failures("1")}, 500, []int{500, 500, 500, 500}},
		{"allow does neither", "allow", Config{RateLimit: tokens("1"), CircuitBreaker: failures("1")}, 500, []int{500, 500, 500}},
		{"deny", "deny", Config{RateLimit: tokens("2"), CircuitBreaker: failures("2")}, 200, []int{503, 503, 503}},
		{"deny, the limiter alone", "deny", Config{RateLimit: tokens("2")}, 200, []int{503, 503, 503}},
		{"deny, the breaker alone", "deny", Config{CircuitBreaker: failures("2")}, 200, []int{503, 503, 503}},
		{"deny has no say where nothing is asked", "deny", Config{Health: &HealthConfig{}}, 200, []int{200, 200, 200}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			row.config.Redis = &RedisConfig{Address: closedPort, OnError: row.onError}
			handler, up := newGateway(t, &row.config)
			up.will(status(row.code))
			var got []int
			for range row.got {
				got = append(got, get(handler))
			}
			require.Equal(t, row.got, got)
		})
	}
}

func TestOnError_rulesForAKeyThatIsNotOurs(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		onError string
		got     []int
	}{
		{"local", []int{200, 200, 429, 429}},
		{"allow", []int{200, 200, 200, 200}},
		{"deny", []int{503, 503, 503, 503}},
	} {
		row := row
		t.Run("a bucket, "+row.onError, func(t *testing.T) {
			newProcess(t, 0)
			server.Do("RPUSH", bucketOf(t), "theirs")
			redis := at(server.Addr())
			redis.OnError = row.onError
			handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: tokens("2"), CircuitBreaker: failures("1")})
			var got, other []int
			for range row.got {
				got = append(got, get(handler))
				request := httptest.NewRequest("GET", "/", nil)
				request.RemoteAddr = "192.0.2.2:1234"
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, request)
				other = append(other, w.Code)
			}
			require.Equal(t, row.got, got)
			require.Equal(t, []int{200, 200, 429, 429}, other, "whose bucket is one")
			require.Equal(t, int64(1), server.Int("EXISTS", strings.Replace(bucketOf(t), "192.0.2.1", "192.0.2.2", 1)))
			require.Equal(t, "list", server.Text("TYPE", bucketOf(t)), "we do not touch what is not ours")
		})
	}
	for _, row := range []struct {
		onError string
		got     []int
	}{
		{"local", []int{500, 500, 503, 429}},
		{"allow", []int{500, 500, 500, 429}},
		{"deny", []int{503, 503, 503, 429}},
	} {
		row := row
		t.Run("the breaker, "+row.onError, func(t *testing.T) {
			newProcess(t, 0)
			server.Do("RPUSH", breakerOf(t), "theirs")
			redis := at(server.Addr())
			redis.OnError = row.onError
			handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("3"), CircuitBreaker: failures("2")})
			up.will(status(500))
			var got []int
			for range row.got {
				got = append(got, get(handler))
			}
			require.Equal(t, row.got, got)
			require.Equal(t, int64(1), server.Int("EXISTS", bucketOf(t)), "the limiter has Redis still")
			require.Equal(t, "list", server.Text("TYPE", breakerOf(t)), "we do not touch what is not ours")
		})
	}
}

func TestRedis_lostAndBack(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, up := newGateway(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("90"), CircuitBreaker: failures("2")})
	require.Equal(t, 200, get(handler))

	server.Kill()
	up.will(status(500))
	var got []int
	for i := 0; i < 4; i++ {
		got = append(got, get(handler))
	}
	require.Equal(t, []int{500, 500, 503, 503}, got, "this gateway breaks by itself")

	server.Run()
	up.will(nil)
	require.Eventually(t, func() bool { return get(handler) == 200 }, 2*time.Second, 10*time.Millisecond,
		"Redis, which has heard of no failure, rules")
	require.Equal(t, int64(1), server.Int("EXISTS", bucketOf(t)))
	require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
	require.Equal(t, "", server.Hash(breakerOf(t))["failures"])
}

func TestBudget_aRequestWaitsForRedisNoLongerThanTheTimeout(t *testing.T) {
	const (
		timeout = 300 * time.Millisecond
		slack   = 150 * time.Millisecond
	)
	atOnce := func(handler http.Handler, up *upstream, server *redistest.Server) {
		server.Pause()
	}
	afterAnother := func(handler http.Handler, up *upstream, server *redistest.Server) {
		get(handler)
		time.Sleep(110 * time.Millisecond) // what the breaker knows is too old by then
		server.Pause()
	}
	inTheAnswer := func(before, code int) func(handler http.Handler, up *upstream, server *redistest.Server) {
		return func(handler http.Handler, up *upstream, server *redistest.Server) {
			up.will(status(before))
			get(handler)
			time.Sleep(5 * time.Millisecond) // a circuit that this has opened takes a probe by then
			up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				server.Pause()
				w.WriteHeader(code)
			}))
		}
	}
	for _, row := range []struct {
		name    string
		config  Config
		onError string
		before  func(handler http.Handler, up *upstream, server *redistest.Server)
		code    int
	}{
		{"a limiter's first request", Config{RateLimit: tokens("90")}, "local", atOnce, 200},
		{"a breaker's first request", Config{CircuitBreaker: failures("5")}, "local", atOnce, 200},
		{"the first request of both", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "local", atOnce, 200},
		{"one more of both", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "local", afterAnother, 200},
		{"one that passes", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "allow", afterAnother, 200},
		{"one that is denied", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "deny", afterAnother, 503},
		{"a failure to be told of", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "local", inTheAnswer(200, 500), 500},
		{"a probe's verdict to be told of", Config{CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "1ms"}},
			"local", inTheAnswer(500, 204), 204},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			newProcess(t, 0)
			late := redistest.Late(t)
			row.config.Redis = &RedisConfig{Address: server.Addr(), Timeout: timeout.String(), OnError: row.onError}
			handler, up := newGateway(t, &row.config)
			row.before(handler, up, server)
			defer server.Resume()

			begun := time.Now()
			code := get(handler)
			took := time.Since(begun)
			require.Equal(t, row.code, code)
			require.GreaterOrEqual(t, took, timeout/2, "Redis was asked")
			require.Less(t, took, timeout+slack+late())

			// A call that left late says nothing about Redis until it has had the whole timeout: meanwhile one more may ask.
			begun = time.Now()
			get(handler)
			require.Less(t, time.Since(begun), timeout+slack+late())
			begun = time.Now()
			for i := 0; i < 10; i++ {
				get(handler)
			}
			require.Less(t, time.Since(begun), timeout+late(), "the others do not wait at all")
		})
	}
}

func TestBudget_holdsForEachOfACrowd(t *testing.T) {
	const (
		timeout = 300 * time.Millisecond
		slack   = 150 * time.Millisecond
	)
	server := redistest.Start(t)
	newProcess(t, 0)
	late := redistest.Late(t)
	handler, up := newGateway(t, &Config{
		Redis:     &RedisConfig{Address: server.Addr(), Timeout: timeout.String()},
		RateLimit: tokens("90"), CircuitBreaker: failures("5")})
	get(handler)
	server.Pause()
	defer server.Resume()
	var mu sync.Mutex
	longest := time.Duration(0)
	var done sync.WaitGroup
	for i := 0; i < 30; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			begun := time.Now()
			get(handler)
			took := time.Since(begun)
			mu.Lock()
			defer mu.Unlock()
			if took > longest {
				longest = took
			}
		}()
		time.Sleep(time.Millisecond)
	}
	done.Wait()
	require.Equal(t, 31, up.count())
	require.GreaterOrEqual(t, longest, timeout/2, "Redis was asked")
	require.Less(t, longest, timeout+slack+late())
}

// relay stands between the middlewares and Redis, counts what is sent to it, and holds its answers back for a while.
type relay struct {
	server *redistest.Server
	addr   string
	sent   int64 // pieces, of which each round trip has one
	delay  int64 // nanoseconds
}

func newRelay(t *testing.T, server *redistest.Server) *relay {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	r := &relay{server: server, addr: listener.Addr().String()}
	go r.listen(listener)
	return r
}

func (r *relay) listen(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		redis, err := net.Dial("tcp", r.server.Addr())
		if err != nil {
			client.Close()
			continue
		}
		go r.pass(client, redis, false)
		go r.pass(redis, client, true)
	}
}

func (r *relay) pass(from, to net.Conn, answers bool) {
	defer from.Close()
	defer to.Close()
	piece := make([]byte, 65536)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		if answers {
			time.Sleep(time.Duration(atomic.LoadInt64(&r.delay)))
		} else {
			atomic.AddInt64(&r.sent, 1)
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

func TestBudget_isOneForAllThatARequestAsks(t *testing.T) {
	const (
		timeout = 500 * time.Millisecond
		delay   = 400 * time.Millisecond
		slack   = 150 * time.Millisecond
	)
	for _, row := range []struct {
		name   string
		before int // what the upstream answers before Redis is slow
		code   int
	}{
		{"a token, then a failure's report", 200, 500},
		{"a token, then a probe's permit", 500, 200},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			late := redistest.Late(t)
			slow := newRelay(t, redistest.Start(t))
			handler, up := newGateway(t, &Config{
				Redis:          &RedisConfig{Address: slow.addr, Timeout: timeout.String()},
				RateLimit:      tokens("90"),
				CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "1ms"},
			})
			up.will(status(row.before))
			require.Equal(t, row.before, get(handler))
			time.Sleep(5 * time.Millisecond) // an open circuit takes a probe by then
			up.will(status(row.code))
			atomic.StoreInt64(&slow.delay, int64(delay))

			begun := time.Now()
			code := get(handler)
			took := time.Since(begun)
			require.Equal(t, row.code, code)
			require.GreaterOrEqual(t, took, delay, "the token")
			require.Less(t, took, timeout+slack+late(), "and the other within what was left")
		})
	}
}

func TestRoundTrips(t *testing.T) {
	both := Config{RateLimit: tokens("90"), CircuitBreaker: failures("2")}
	none := func(handler http.Handler, up *upstream) {}
	opens := func(handler http.Handler, up *upstream) {
		up.will(status(500))
		get(handler)
		get(handler)
		up.will(nil)
	}
	opensAndProbes := func(handler http.Handler, up *upstream) {
		opens(handler, up)
		time.Sleep(5 * time.Millisecond)
		get(handler)
	}
	for _, row := range []struct {
		name   string
		config Config
		before func(handler http.Handler, up *upstream)
		sent   int64
	}{
		{"a token", Config{RateLimit: tokens("90")}, none, 1},
		{"a token, and a look at the breaker that is due", both, none, 1},
		{"a look at the breaker", Config{CircuitBreaker: failures("2")}, none, 1},
		{"an open circuit", both, opens, 0},
		{"a probe: its permit and its verdict", Config{CircuitBreaker: &CircuitBreakerConfig{
			FailureThreshold: "2", ResetTimeout: "1ms", HalfOpenSuccessThreshold: "2"}}, opensAndProbes, 2},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			counting := newRelay(t, redistest.Start(t))
			row.config.Redis = at(counting.addr)
			handler, up := newGateway(t, &row.config)
			get(handler) // from here on Redis knows the scripts
			row.before(handler, up)
			time.Sleep(110 * time.Millisecond) // and what the breaker has seen is too old
			before := atomic.LoadInt64(&counting.sent)
			get(handler)
			require.Equal(t, row.sent, atomic.LoadInt64(&counting.sent)-before)
		})
	}
}

// Who finds the view too old to be used as it is passes as others do, for it is renewed beside it, or on its way: its writer is left whole.
func TestServeHTTP_leavesTheWriterWhole(t *testing.T) {
	redis := at(redistest.Start(t).Addr())
	for _, row := range []struct {
		name  string
		limit *RateLimitConfig
	}{
		{"no limit", nil}, {"a limit too low for leases", tokens("90")}, {"a lease", tokens("100000")},
	} {
		for _, idle := range []time.Duration{0, 60 * time.Millisecond, 110 * time.Millisecond} {
			row, idle := row, idle
			t.Run(row.name+", after "+idle.String(), func(t *testing.T) {
				newProcess(t, 0)
				handler, up := newGateway(t, &Config{Redis: redis, RateLimit: row.limit, CircuitBreaker: failures("2")})
				var given, got http.ResponseWriter
				up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = w }))
				for i := 0; i < 5; i++ {
					if i == 4 {
						time.Sleep(idle)
					}
					given = statuswriter.New()
					handler.ServeHTTP(given, httptest.NewRequest("GET", "/", nil))
				}
				require.True(t, got == given)
			})
		}
	}
}

// Who is refused without asking Redis has the view renewed too, which each of a flood would else find too old.
func TestServeHTTP_aFloodRenewsTheView(t *testing.T) {
	newProcess(t, 0)
	m, err := newMiddleware(context.Background(), status(200), &Config{
		Redis: at(redistest.Start(t).Addr()), RateLimit: tokens("1"), CircuitBreaker: failures("5"),
	}, nameOf(t))
	require.NoError(t, err)
	require.Equal(t, 200, get(m.handler))
	require.Equal(t, 429, get(m.handler))
	time.Sleep(120 * time.Millisecond)
	_, healthy := closedNow(m)
	require.False(t, healthy)

	require.Equal(t, 429, get(m.handler))
	require.Eventually(t, func() bool {
		_, healthy := closedNow(m)
		return healthy
	}, 5*time.Second, time.Millisecond)
}

// Where a bucket has plenty, most requests ask nobody; what they see of the upstream counts all the same.
func TestRoundTrips_areFewWhereThereAreTokensEnough(t *testing.T) {
	newProcess(t, 0)
	counting := newRelay(t, redistest.Start(t))
	handler, up := newGateway(t, &Config{Redis: at(counting.addr), RateLimit: tokens("100000"), CircuitBreaker: failures("3")})
	for i := 0; i < 200; i++ {
		require.Equal(t, 200, get(handler))
	}
	before := atomic.LoadInt64(&counting.sent)
	for i := 0; i < 200; i++ {
		require.Equal(t, 200, get(handler))
	}
	require.Less(t, atomic.LoadInt64(&counting.sent)-before, int64(100))

	up.will(status(500))
	var got []int
	for i := 0; i < 5; i++ {
		got = append(got, get(handler))
	}
	require.Equal(t, []int{500, 500, 500, 503, 503}, got)
}

// hammer sends requests and counts the answers by status.
type hammer struct {
	mu     sync.Mutex
	counts map[int]int
	done   sync.WaitGroup
}

func (h *hammer) strike(handler http.Handler, times int) {
	defer h.done.Done()
	for i := 0; i < times; i++ {
		code := get(handler)
		h.mu.Lock()
		h.counts[code]++
		h.mu.Unlock()
	}
}

func TestLimit_isExactUnderContention(t *testing.T) {
	for _, place := range places(t) {
		place := place
		t.Run(place.name, func(t *testing.T) {
			newProcess(t, 0)
			handler, up := newGateway(t, &Config{Redis: place.redis, RateLimit: tokens("70"), CircuitBreaker: failures("1")})
			h := &hammer{counts: map[int]int{}}
			for i := 0; i < 50; i++ {
				h.done.Add(1)
				go h.strike(handler, 4)
			}
			h.done.Wait()
			require.Equal(t, map[int]int{200: 70, 429: 130}, h.counts)
			require.Equal(t, 70, up.count())
		})
	}
}

// gateways returns two middlewares of one configuration in two processes, with nothing in common but Redis.
func gateways(t *testing.T, config *Config) (one, two http.Handler, first, second *upstream) {
	newProcess(t, 0)
	one, first = newGateway(t, config)
	newProcess(t, 0)
	two, second = newGateway(t, config)
	return one, two, first, second
}

func TestGateways_haveOneLimit(t *testing.T) {
	server := redistest.Start(t)
	one, two, first, second := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("50"), CircuitBreaker: failures("1")})
	h := &hammer{counts: map[int]int{}}
	for i := 0; i < 10; i++ {
		h.done.Add(2)
		go h.strike(one, 10)
		go h.strike(two, 10)
	}
	h.done.Wait()
	require.Equal(t, map[int]int{200: 50, 429: 150}, h.counts)
	require.Equal(t, 50, first.count()+second.count())
}

func TestGateways_haveOneCircuit(t *testing.T) {
	server := redistest.Start(t)
	one, two, first, second := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("50"), CircuitBreaker: failures("3")})
	require.Equal(t, 200, get(two))
	first.will(status(500))
	for i := 0; i < 3; i++ {
		require.Equal(t, 500, get(one))
	}
	require.Equal(t, 503, get(one))
	time.Sleep(100 * time.Millisecond)
	require.Equal(t, 503, get(two), "what one has seen fail, all stop sending")
	require.Equal(t, 1, second.count())
}
