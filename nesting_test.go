package resilience

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// nested returns a chain of middlewares, the outermost first, before a new upstream, as Traefik makes it: from the inside.
func nest(t *testing.T, between func(http.Handler) http.Handler, configs ...*Config) (http.Handler, *upstream) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	up := &upstream{}
	return nestBefore(t, ctx, http.HandlerFunc(up.ServeHTTP), between, configs...), up
}

func nestBefore(t *testing.T, ctx context.Context, next http.Handler, between func(http.Handler) http.Handler, configs ...*Config) http.Handler {
	for n := len(configs) - 1; n >= 0; n-- {
		next = newHandler(t, ctx, next, configs[n])
		if n > 0 && between != nil {
			next = between(next)
		}
	}
	return next
}

// sum tells how many of so many requests got each status.
func countStatuses(handler http.Handler, requests int) map[int]int {
	counts := map[int]int{}
	for i := 0; i < requests; i++ {
		counts[get(handler)]++
	}
	return counts
}

// askings are the ways to learn a status: by the writer's method, and by recording the answer.
func writers() []writerKind {
	return []writerKind{
		{"its writer tells", func(handler http.Handler, path string) int {
			w := statuswriter.New()
			handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			return w.Code
		}},
		{"it is watched", func(handler http.Handler, path string) int { return send(handler, "GET", path).Code }},
	}
}

type writerKind struct {
	name string
	get  func(handler http.Handler, path string) int
}

// named is a configuration with a name, where the state is.
func named(name string, place place, limit *RateLimitConfig, circuit *CircuitBreakerConfig) *Config {
	return &Config{Name: redact(name), Redis: place.redis, RateLimit: limit, CircuitBreaker: circuit}
}

func byClient(limit *RateLimitConfig) *RateLimitConfig {
	limit.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Client"}
	return limit
}

// short is a breaker that gives one place to a probe, a moment after it has opened.
func shortReset(threshold string) *CircuitBreakerConfig {
	return &CircuitBreakerConfig{
		FailureThreshold: threshold, ResetTimeout: "50ms", HalfOpenSuccessThreshold: "1", HalfOpenMaxProbes: "1",
	}
}

func TestNesting_requestTakesOneToken(t *testing.T) {
	for _, place := range places(t) {
		for _, row := range []struct {
			name    string
			configs func(name string) []*Config
			passed  int // of 20
		}{
			{"the same twice", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil)}
			}, 10},
			{"the same three times", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil)}
			}, 10},
			{"with a breaker", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), failures("5")), named(name, place, tokens("10"), failures("5"))}
			}, 10},
			{"another between", func(name string) []*Config {
				return []*Config{
					named(name, place, tokens("10"), nil), named(name+"-other", place, tokens("15"), failures("5")),
					named(name, place, tokens("10"), nil),
				}
			}, 10},
			{"another inside", func(name string) []*Config {
				return []*Config{
					named(name, place, tokens("10"), nil), named(name, place, tokens("10"), nil), named(name+"-other", place, tokens("7"), nil),
				}
			}, 7},
			{"the outer one only breaks", func(name string) []*Config {
				return []*Config{named(name, place, nil, failures("5")), named(name, place, tokens("10"), failures("5"))}
			}, 10},
			{"the inner one has buckets of its own", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name, place, byClient(tokens("6")), nil)}
			}, 6},
			{"the inner one limits the same buckets otherwise: each takes", func(name string) []*Config {
				return []*Config{named(name, place, tokens("1000"), nil), named(name, place, tokens("6"), nil)}
			}, 3},
			{"two scopes", func(name string) []*Config {
				return []*Config{named(name, place, tokens("10"), nil), named(name+"-other", place, tokens("6"), nil)}
			}, 6},
		} {
			row := row
			t.Run(row.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				handler, up := nest(t, nil, row.configs(nameOf(t))...)
				require.Equal(t, map[int]int{200: row.passed, 429: 20 - row.passed}, countStatuses(handler, 20))
				require.Equal(t, row.passed, up.count())
			})
		}
	}
}

func TestNesting_failureCountsOnce(t *testing.T) {
	for _, place := range places(t) {
		for _, asking := range writers() {
			asking := asking
			place := place
			t.Run(asking.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				both := named(nameOf(t), place, tokens("1000"), failures("4"))
				handler, up := nest(t, nil, both, both)
				up.will(status(500))
				for i := 0; i < 4; i++ {
					require.Equal(t, 500, asking.get(handler, "/"))
				}
				require.Equal(t, 503, asking.get(handler, "/"))
				require.Equal(t, 4, up.count())
			})
		}
	}
}

func TestNesting_oneProbeClosesTheCircuit(t *testing.T) {
	for _, place := range places(t) {
		for _, asking := range writers() {
			asking := asking
			place := place
			t.Run(asking.name+", "+place.name, func(t *testing.T) {
				newProcess(t, 0)
				one := named(nameOf(t), place, nil, shortReset("1"))
				handler, up := nest(t, nil, one, one)
				up.will(status(500))
				require.Equal(t, 500, asking.get(handler, "/"))
				up.will(nil)
				require.Eventually(t, func() bool { return asking.get(handler, "/") == 200 }, time.Second, time.Millisecond)
				for i := 0; i < 20; i++ {
					require.Equal(t, 200, asking.get(handler, "/"))
				}
			})
		}
	}
}

func TestNesting_concurrentRequestsTakeOneTokenEach(t *testing.T) {
	newProcess(t, 0)
	place := place{"in this process", nil}
	one := named(t.Name(), place, tokens("450"), failures("5"))
	handler, up := nest(t, nil, one, named(t.Name()+"-between", place, tokens("100000"), failures("5")), one)
	passed := int64(0)
	var done sync.WaitGroup
	for i := 0; i < 10; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for j := 0; j < 60; j++ {
				if get(handler) == 200 {
					atomic.AddInt64(&passed, 1)
				}
			}
		}()
	}
	done.Wait()
	require.Equal(t, int64(450), passed)
	require.Equal(t, 450, up.count())
}
