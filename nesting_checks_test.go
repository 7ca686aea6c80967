package resilience

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newMember returns an instance with its state in this process, for tests that look into the middleware.
func newMember(t *testing.T, ctx context.Context, next http.Handler, name string, limit *RateLimitConfig, circuit *CircuitBreakerConfig) *Middleware {
	m, err := newMiddleware(ctx, next, &Config{Name: name, RateLimit: limit, CircuitBreaker: circuit}, name+"@file")
	require.NoError(t, err)
	return m
}

// checks reports whether an instance checks its requests for other instances on their way.
func checks(m *Middleware) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checks
}

// finishChecks sends requests to an instance until it checks no more.
func finishChecks(t *testing.T, m *Middleware) {
	for i := 0; i < maxChecks; i++ {
		require.True(t, checks(m))
		require.Equal(t, 200, get(m.handler))
	}
	require.False(t, checks(m))
}

// tokensLeft returns how many requests the client's bucket still lets pass. It empties the bucket.
func tokensLeft(handler http.Handler) int { return countStatuses(handler, 2000)[200] }

// newChain returns the context and the innermost handler of a chain that a test puts together, in a new process.
func newChain(t *testing.T) (context.Context, http.Handler) {
	newProcess(t, 0)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, status(200)
}

func TestNesting_checksOnlyTheFirstRequests(t *testing.T) {
	for _, row := range []struct {
		name    string
		limit   *RateLimitConfig
		circuit *CircuitBreakerConfig
	}{{"limiter", tokens("5000"), nil}, {"breaker", nil, failures("1")}, {"both", tokens("5000"), failures("1")}} {
		ctx, _ := newChain(t)
		marked := false
		m := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { marked = len(outersOf(r)) > 0 }),
			"gateway", row.limit, row.circuit)
		finishChecks(t, m)
		require.True(t, marked, row.name)
		get(m.handler)
		require.False(t, marked, row.name)
	}
}

func TestNesting_refusedRequestsEndTheChecksToo(t *testing.T) {
	ctx, next := newChain(t)
	m := newMember(t, ctx, next, "gateway", tokens("1"), nil)
	countStatuses(m.handler, maxChecks-1)
	require.True(t, checks(m))
	get(m.handler)
	require.False(t, checks(m))
}

func TestNesting_innerReachedLateCountsOneRequestTwice(t *testing.T) {
	ctx, next := newChain(t)
	inner := newMember(t, ctx, next, "gateway", tokens("1000"), nil)
	rarely := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			inner.handler.ServeHTTP(w, r)
		}
	})
	outer := newMember(t, ctx, rarely, "gateway", tokens("1000"), nil)
	finishChecks(t, outer)

	for i := 0; i < 100; i++ {
		require.Equal(t, 200, send(outer.handler, "PUT", "/").Code)
	}
	require.Equal(t, 1000-maxChecks-100-1, tokensLeft(outer.handler))
	require.True(t, checks(outer))
	require.True(t, checks(inner))
}

func TestNesting_outerAddedLateIsDetectedAtOnce(t *testing.T) {
	ctx, next := newChain(t)
	inner := newMember(t, ctx, next, "gateway", tokens("1000"), nil)
	other := newMember(t, ctx, next, "other", tokens("1000"), nil)
	outer := newMember(t, ctx, inner.handler, "gateway", tokens("1000"), nil)
	finishChecks(t, inner)
	finishChecks(t, other)

	require.Equal(t, 200, get(outer.handler))
	require.True(t, checks(other), "it may be inside as well")
	require.Equal(t, 1000-maxChecks-1, tokensLeft(outer.handler))
	require.True(t, checks(outer))
	require.True(t, checks(inner))
	require.Equal(t, 200, get(other.handler))
	require.Equal(t, 1000-maxChecks-1, tokensLeft(other.handler))
	require.False(t, checks(other), "but it is not")
}

func TestNesting_otherConfigurationsDoNotCheckAgain(t *testing.T) {
	ctx, next := newChain(t)
	earlier := newMember(t, ctx, next, "gateway", tokens("1000"), nil)
	finishChecks(t, earlier)
	later, cancel := context.WithCancel(context.Background())
	defer cancel()
	get(newMember(t, later, next, "gateway", tokens("1000"), nil).handler)
	require.False(t, checks(earlier))
}

// Two limiters of different names have nothing to tell each other.
func TestNesting_unrelatedInstancesStopChecking(t *testing.T) {
	ctx, next := newChain(t)
	inner := newMember(t, ctx, next, "inner", tokens("5000"), failures("5"))
	outer := newMember(t, ctx, inner.handler, "outer", tokens("5000"), nil)
	for i := 0; i < 2*maxChecks; i++ {
		require.Equal(t, 200, get(outer.handler))
	}
	require.False(t, checks(inner))
	require.False(t, checks(outer))
}

// The handler of an open circuit does not look at the request. It is not used where an outer instance must learn of the refusal.
func TestNesting_openCircuitChecksAgainToo(t *testing.T) {
	setSwitch(t, true)
	ctx, _ := newChain(t)
	answer := 200
	inner := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(answer) }), "inner", nil, failures("1"))
	finishChecks(t, inner)
	outer := newMember(t, ctx, inner.handler, "outer", nil, failures("3"))
	answer = 500
	require.Equal(t, 500, get(inner.handler))
	for i := 0; i < 10; i++ {
		require.Equal(t, 503, get(inner.handler))
	}
	for i := 0; i < 10; i++ {
		require.Equal(t, 503, get(outer.handler))
	}
	retryAfter, refuses := outer.breaker.MustRefuse(false, outer.now())
	require.False(t, refuses, retryAfter)
}

func TestNesting_warnsOnce(t *testing.T) {
	newProcess(t, time.Hour)
	log := captureLog(t)
	const warning = "come through this middleware twice"
	for i := 0; i < 2; i++ { // a reload
		ctx, cancel := context.WithCancel(context.Background())
		inner := newMember(t, ctx, status(200), "gateway", tokens("1000"), nil)
		middle := newMember(t, ctx, inner.handler, "other", tokens("1000"), failures("5"))
		outer := newMember(t, ctx, middle.handler, "gateway", tokens("1000"), nil)
		for j := 0; j < 5; j++ {
			require.Equal(t, 200, get(outer.handler))
		}
		cancel()
	}
	log.eventually(t, 1, warning)
	log.eventually(t, 1, `"inner":"gateway@file"`)
	log.flush(t)
	require.Equal(t, 1, log.count(warning))
}
