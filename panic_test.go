package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// The interpreter may panic while it makes the key of a request. The lock that all requests share is free afterwards.
func TestMiddleware_panicInTheKeySourceReleasesTheLock(t *testing.T) {
	redis := at(redistest.Start(t).Addr())
	for _, row := range []struct {
		name     string
		redis    *RedisConfig
		capacity string
		circuit  *CircuitBreakerConfig
		before   int // requests
	}{
		{"limiter", redis, "1000", nil, 0},
		{"both", redis, "1000", failures("5"), 0},
		{"both, with a lease", redis, "1000", failures("5"), 10},
		{"both, with an empty bucket", redis, "3", failures("5"), 10},
		{"without a redis", nil, "1000", failures("5"), 3},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		m, err := newMiddleware(ctx, status(http.StatusOK), &Config{
			Redis: row.redis, CircuitBreaker: row.circuit,
			RateLimit: &RateLimitConfig{
				Capacity: row.capacity, RefillRate: row.capacity, RefillPeriod: "1h",
				SourceCriterion: &SourceCriterionConfig{RequestHost: "true"},
			},
		}, t.Name()+row.name)
		require.NoError(t, err)
		keyOf, fails := m.bucketKeyOf, false
		m.bucketKeyOf = func(r *http.Request) string { // set before any request: copies of the middleware have it too
			if fails {
				panic("fault")
			}
			return keyOf(r)
		}
		m.identify = m.bucketKeyOf
		for i := 0; i < row.before; i++ {
			get(m.handler)
		}
		fails = true
		require.Panics(t, func() { get(m.handler) }, row.name)
		fails = false
		done := make(chan int, 1)
		go func() { done <- get(m.handler) }()
		select {
		case code := <-done:
			require.Equal(t, row.capacity == "3", code == http.StatusTooManyRequests, row.name)
		case <-time.After(5 * time.Second):
			require.FailNow(t, "the next request is not served", row.name)
		}
	}
}

// A transport reads the body in another goroutine, where a panic would end Traefik.
func TestWatchedBody_recoversFromAPanicAtItsEnd(t *testing.T) {
	r := httptest.NewRequest("POST", "/", strings.NewReader("hello"))
	body := watchBody(r)
	body.onWhole(func() { panic("fault") })
	got, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.Equal(t, bodyWhole, body.end())
}

// panickingContext panics when it is asked for its Done channel.
type panickingContext struct{}

func (panickingContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (panickingContext) Done() <-chan struct{}                   { panic("fault") }
func (panickingContext) Err() error                              { return nil }
func (panickingContext) Value(key interface{}) interface{}       { return nil }

func TestRegistry_panicInAcquireReleasesTheLock(t *testing.T) {
	registry := newRegistry(time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := readConfig(&Config{RateLimit: &RateLimitConfig{}}, t.Name())
	require.NoError(t, err)
	require.Panics(t, func() { registry.acquire(panickingContext{}, s) })
	done := make(chan bool, 1)
	go func() { done <- registry.acquire(ctx, s) != nil }()
	select {
	case joined := <-done:
		require.True(t, joined)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "the next handler is not made")
	}
}
