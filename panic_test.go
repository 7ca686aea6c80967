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

// Where the key of a request is made the interpreter may stumble. The lock that all requests of a scope take is free afterwards.
func TestMiddleware_aPanicWhereAKeyIsMade(t *testing.T) {
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
		keyOf, stumbles := m.bucketKeyOf, false
		m.bucketKeyOf = func(r *http.Request) string { // before any request: copies of the middleware have it too
			if stumbles {
				panic("stumbled")
			}
			return keyOf(r)
		}
		for i := 0; i < row.before; i++ {
			get(m.handler)
		}
		stumbles = true
		require.Panics(t, func() { get(m.handler) }, row.name)
		stumbles = false
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

// A transport reads the body in a goroutine of its own, where a panic would be the end of Traefik.
func TestWatchedBody_aPanicAtItsEnd(t *testing.T) {
	r := httptest.NewRequest("POST", "/", strings.NewReader("hello"))
	body := watchBody(r)
	body.onWhole(func() { panic("stumbled") })
	got, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.Equal(t, bodyWhole, body.end())
}

// stumblingContext panics where it is asked whether it may ever be done.
type stumblingContext struct{}

func (stumblingContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (stumblingContext) Done() <-chan struct{}                   { panic("stumbled") }
func (stumblingContext) Err() error                              { return nil }
func (stumblingContext) Value(key interface{}) interface{}       { return nil }

func TestRegistry_aPanicWhereAHandlerJoins(t *testing.T) {
	registry := newRegistry(time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := readConfig(&Config{RateLimit: &RateLimitConfig{}}, t.Name())
	require.NoError(t, err)
	require.Panics(t, func() { registry.acquire(stumblingContext{}, s) })
	done := make(chan bool, 1)
	go func() { done <- registry.acquire(ctx, s) != nil }()
	select {
	case joined := <-done:
		require.True(t, joined)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "the next handler is not made")
	}
}
