package resilience

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// requireAnswer checks every part of an answer of the middleware. retryAfter is in seconds; 0: none. Retry-After may be up to half a minute
// less, because tests take time.
func requireAnswer(t *testing.T, w *httptest.ResponseRecorder, status int, body string, retryAfter int) {
	require.Equal(t, status, w.Code)
	require.Equal(t, body, w.Body.String())
	want := http.Header{"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(body))}}
	if retryAfter > 0 {
		text := w.Result().Header.Get("Retry-After")
		seconds, err := strconv.Atoi(text)
		require.NoError(t, err)
		require.LessOrEqual(t, seconds, retryAfter)
		require.Greater(t, seconds, retryAfter-30)
		require.Greater(t, seconds, 0)
		want.Set("Retry-After", text)
	}
	require.Equal(t, want, w.Result().Header, "these headers and no other")
}

func TestAnswer_limited(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("1"), CircuitBreaker: failures("1")})
		require.Equal(t, 200, get(handler))

		for i := 0; i < 3; i++ {
			requireAnswer(t, send(handler, "GET", "/"), 429, `{"error":"Too many requests, please try again later."}`, 3600)
		}
		require.Equal(t, 1, up.count())
		require.Equal(t, 200, getAs(handler, otherClient), "another client has its own bucket")
	})
}

func TestAnswer_open(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("100"), CircuitBreaker: failures("1")})
		up.will(status(500))
		require.Equal(t, 500, get(handler))

		for i := 0; i < 3; i++ {
			requireAnswer(t, send(handler, "GET", "/"), 503, `{"error":"Service temporarily unavailable due to circuit open."}`, 3600)
		}
		require.Equal(t, 1, up.count())
	})
}

func TestAnswer_openTakesNoToken(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, up := newGateway(t, &Config{
		Redis: at(server.Addr()), RateLimit: tokens("100"), CircuitBreaker: failures("1")})
	up.will(status(500))
	get(handler)
	before := server.Text("GET", bucketOf(t))
	for i := 0; i < 20; i++ {
		require.Equal(t, 503, get(handler))
	}
	require.Equal(t, before, server.Text("GET", bucketOf(t)))
}

func TestAnswer_unavailable(t *testing.T) {
	for _, row := range []struct {
		name   string
		config *Config
	}{
		{"for the limiter", &Config{RateLimit: tokens("1")}},
		{"for the breaker", &Config{CircuitBreaker: failures("1")}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			row.config.Redis = &RedisConfig{Address: closedPort, OnError: "deny"}
			handler, up := newGateway(t, row.config)

			for i := 0; i < 3; i++ {
				requireAnswer(t, send(handler, "GET", "/"), 503, `{"error":"Service temporarily unavailable, please try again later."}`, 1)
			}
			require.Equal(t, 0, up.count())
		})
	}
}

// The texts of Retry-After are prepared up to an hour, and the second refusal in a row uses the first one's.
func TestAnswer_openForAboutAnHour(t *testing.T) {
	for _, reset := range []string{"59m59s", "1h", "3600500ms", "1h1s", "24h"} {
		reset := reset
		t.Run(reset, func(t *testing.T) {
			newProcess(t, 0)
			breaker := failures("1")
			breaker.ResetTimeout = reset
			handler, up := newGateway(t, &Config{CircuitBreaker: breaker})
			up.will(status(500))
			require.Equal(t, 500, get(handler))
			length, err := time.ParseDuration(reset)
			require.NoError(t, err)
			seconds := int(length.Seconds() + 0.999)
			for i := 0; i < 3; i++ {
				requireAnswer(t, send(handler, "GET", "/"), 503, openBody, seconds)
			}
		})
	}
}

func TestAnswer_healthy(t *testing.T) {
	newProcess(t, 0)
	handler, _ := newGateway(t, &Config{Health: &HealthConfig{}})

	requireAnswer(t, send(handler, "GET", "/health"), 200, `{"status":"healthy"}`, 0)
}

// A server adds nothing but Date to the answers, and sends no body to HEAD.
func TestAnswer_onTheWire(t *testing.T) {
	newProcess(t, 0)
	handler, _ := newGateway(t, &Config{RateLimit: tokens("1"), Health: &HealthConfig{}})
	gateway := httptest.NewServer(handler)
	defer gateway.Close()
	get(handler)
	for _, row := range []struct {
		name, method, path string
		status             int
		length, body       string
	}{
		{"healthy", "GET", "/health", 200, "20", healthyBody},
		{"healthy, to HEAD", "HEAD", "/health", 200, "20", ""},
		{"not healthy or unhealthy, to POST", "POST", "/health", 405, "55", methodBody},
		{"to a client", "GET", "/", 200, "5", "hello"},
		{"limited", "GET", "/", 429, "54", limitedBody},
		{"limited, to HEAD", "HEAD", "/", 429, "54", ""},
		{"limited, to POST", "POST", "/", 429, "54", limitedBody},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			request, err := http.NewRequest(row.method, gateway.URL+row.path, nil)
			require.NoError(t, err)
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)

			require.Equal(t, row.status, answer.StatusCode)
			require.Equal(t, row.body, string(body))
			require.Equal(t, row.length, answer.Header.Get("Content-Length"))
			require.Equal(t, row.status == 429, answer.Header.Get("Retry-After") != "")
		})
	}
}

func TestSeconds(t *testing.T) {
	for _, row := range []struct {
		microseconds int64
		want         string
	}{
		{-3600000000, "1"},
		{-1, "1"},
		{0, "1"},
		{1, "1"},
		{999999, "1"},
		{1000000, "1"},
		{1000001, "2"},
		{1500000, "2"},
		{2000000, "2"},
		{59000001, "60"},
		{3600000000, "3600"},
		{maxDuration.Microseconds(), "864000000"},
	} {
		require.Equal(t, []string{row.want}, seconds(row.microseconds), row.microseconds)
	}
}
