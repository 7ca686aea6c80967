package resilience

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A request whose lease must be renewed takes a token of its client's lease, not of the lease of the request before it.
func TestFastPath_takesNoTokenOfAnotherClient(t *testing.T) {
	redis := at(redistest.Start(t).Addr())
	for _, row := range []struct {
		name, headers string
		circuit       *CircuitBreakerConfig
	}{
		{"limiter", "", nil}, {"both", "", failures("5")}, {"limiter, refused", "refused", nil}, {"both, refused", "refused", failures("5")},
		{"limiter, always", "always", nil}, {"both, always", "always", failures("5")},
	} {
		name, which := t.Name()+"-"+row.name, ""
		if row.headers != "" {
			which = "both"
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		m, err := newMiddleware(ctx, status(http.StatusOK), &Config{
			Redis: redis, CircuitBreaker: row.circuit,
			RateLimit: &RateLimitConfig{
				Capacity: "10000", RefillRate: "10000", ResponseHeaders: which, ResponseHeadersOn: row.headers,
				SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Client"},
			},
		}, name)
		require.NoError(t, err)
		ask := func(client string) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("X-Client", client)
			w := httptest.NewRecorder()
			m.handler.ServeHTTP(w, r)
			require.Equal(t, http.StatusOK, w.Code, name)
		}

		for i := 0; i < 5; i++ {
			ask("before")
		}
		m.mu.Lock()
		e := m.cache.Grants["before"]
		require.NotNil(t, e, name)
		e.Until = 0
		left := e.Tokens
		m.mu.Unlock()
		require.NotZero(t, left, name)

		ask("after")
		require.Equal(t, left, e.Tokens, name)
		require.Zero(t, e.Until, name)
		ask("before")
		require.Equal(t, left-1, e.Tokens, name)
	}
}
