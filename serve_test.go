package resilience

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

func TestServeHTTP_forwardsRequestAndAnswerUnchanged(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("5"), CircuitBreaker: failures("5")})
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
		require.Equal(t, http.Header{"X-Method": {"PUT"}, "X-Query": {"a=b"}}, w.Result().Header, "and no header of the middleware")
		require.Equal(t, "tea", w.Body.String())
	})
}

func TestServeHTTP_omittedPartsDoNothing(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range []struct {
			name   string
			config Config
			sent   []int // statuses of the upstream
			want   []int
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
			{"all parts, with an empty bucket", Config{RateLimit: tokens("2"), CircuitBreaker: failures("2"), Health: &HealthConfig{}},
				[]int{200, 500, 500, 500}, []int{200, 500, 429, 429}},
		} {
			config, sent, want := row.config, row.sent, row.want
			config.Redis = redis
			t.Run(row.name, func(t *testing.T) {
				handler, up := newGateway(t, &config)
				var got []int
				for _, code := range sent {
					up.will(status(code))
					got = append(got, get(handler))
				}
				require.Equal(t, want, got)
			})
		}
	})
}

func TestHealth_answersItsPathOnly(t *testing.T) {
	newProcess(t, 0)
	handler, up := newGateway(t, &Config{RateLimit: tokens("3"), Health: &HealthConfig{Path: "/healthz"}})
	for _, row := range []struct {
		name, method, path string
		status             int    // of the middleware's own answer; 0: the service answers
		body, allow        string // of the middleware's own answer
	}{
		{"GET", "GET", "/healthz", 200, healthyBody, ""},
		{"HEAD", "HEAD", "/healthz", 200, healthyBody, ""},
		{"with a query", "GET", "/healthz?full=1", 200, healthyBody, ""},
		{"POST", "POST", "/healthz", 405, methodBody, "GET, HEAD"},
		{"PUT with a query", "PUT", "/healthz?full=1", 405, methodBody, "GET, HEAD"},
		{"DELETE", "DELETE", "/healthz", 405, methodBody, "GET, HEAD"},
		{"OPTIONS", "OPTIONS", "/healthz", 405, methodBody, "GET, HEAD"},
		{"an unknown method", "get", "/healthz", 405, methodBody, "GET, HEAD"},
		{"a path below", "GET", "/healthz/", 0, "", ""},
		{"POST of a path below", "POST", "/healthz/", 0, "", ""},
		{"a path above", "GET", "/health", 0, "", ""},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			before := up.count()
			w := send(handler, row.method, row.path)

			if row.status == 0 {
				require.Equal(t, 200, w.Code)
				require.Equal(t, before+1, up.count())
				return
			}
			require.Equal(t, row.allow, w.Header().Get("Allow"))
			w.Result().Header.Del("Allow")
			requireAnswer(t, w, row.status, row.body, 0)
			require.Equal(t, before, up.count())
		})
	}
	require.Equal(t, 429, get(handler), "each forwarded request took a token, the others none")
	require.Equal(t, 200, send(handler, "GET", "/healthz").Code)
}

func TestHealth_answersBesideTheFastPath(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range []struct {
			name   string
			config Config
		}{
			{"with a limiter", Config{RateLimit: tokens("100000")}},
			{"with a breaker", Config{CircuitBreaker: failures("5")}},
			{"with both", Config{RateLimit: tokens("100000"), CircuitBreaker: failures("5")}},
		} {
			config := row.config
			config.Redis = redis
			config.Health = &HealthConfig{}
			t.Run(row.name, func(t *testing.T) {
				handler, up := newGateway(t, &config)
				for i := 0; i < 50; i++ {
					require.Equal(t, 200, get(handler))
					require.Equal(t, healthyBody, send(handler, "GET", "/health").Body.String())
				}
				require.Equal(t, 50, up.count())
			})
		}
	})
}

// A request that finds the view too old passes like any other, with the writer that it came with: the view is refreshed in the background,
// or by the call for a token.
func TestServeHTTP_keepsTheWriterWhileTheViewIsRefreshed(t *testing.T) {
	redis := at(redistest.Start(t).Addr())
	for _, limit := range limits() {
		for _, idle := range []time.Duration{0, 60 * time.Millisecond, 110 * time.Millisecond} {
			limit, idle := limit, idle
			t.Run(limit.name+", after "+idle.String(), func(t *testing.T) {
				newProcess(t, 0)
				handler, up := newGateway(t, &Config{Redis: redis, RateLimit: limit.limit, CircuitBreaker: failures("2")})
				var given, got http.ResponseWriter
				up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = w }))
				for i := 0; i < 5; i++ {
					if i == 4 {
						advance(idle)
					}
					given = statuswriter.New()
					handler.ServeHTTP(given, httptest.NewRequest("GET", "/", nil))
				}
				require.True(t, got == given)
			})
		}
	}
}

// Requests that are refused without asking Redis have the view refreshed. Otherwise each request of a flood would find it too old.
func TestServeHTTP_refusedRequestsRefreshTheView(t *testing.T) {
	newProcess(t, 0)
	m, _ := newInstance(t, &Config{
		Redis: at(redistest.Start(t).Addr()), RateLimit: tokens("1"), CircuitBreaker: failures("5"),
	})
	require.Equal(t, 200, get(m.handler))
	require.Equal(t, 429, get(m.handler))
	advance(120 * time.Millisecond)
	_, closed := closedNow(m)
	require.False(t, closed)

	require.Equal(t, 429, get(m.handler))
	waitFor(t, func() bool {
		_, closed := closedNow(m)
		return closed
	})
}
