package resilience

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// In a dry run the circuit does what a real one does, and refuses nothing.
func TestBreakerDryRun(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, limit := range limits() {
			limit := limit
			t.Run(limit.name, func(t *testing.T) {
				config := &Config{Redis: redis, RateLimit: limit.limit, CircuitBreaker: rules(func(c *CircuitBreakerConfig) {
					c.DryRun = "true"
					c.HalfOpenSuccessThreshold = "1"
				})}
				m, up := newInstance(t, config)
				up.will(status(500))
				require.Equal(t, []int{500, 500, 500, 500}, statuses(m.handler, 4))
				require.Equal(t, "open", circuitOf(m))
				up.will(nil)
				require.Equal(t, []int{200, 200, 200}, statuses(m.handler, 3))
				require.Equal(t, "open", circuitOf(m), "their outcomes do not count")
				require.Equal(t, 7, up.count())

				elapse(t, redis, 2*time.Hour)
				if redis != nil {
					advance(2 * time.Hour)
				}
				require.Equal(t, 200, get(m.handler))
				require.Equal(t, "closed", circuitOf(m), "the probe has closed it")
			})
		}
	})
}

func TestBreakerDryRun_theLimiterRefuses(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("3"), CircuitBreaker: rules(func(c *CircuitBreakerConfig) { c.DryRun = "true" })})
		up.will(status(500))
		require.Equal(t, []int{500, 500, 500, 429, 429}, statuses(handler, 5))
	})
}

// A request without a place for a probe passes, too.
func TestBreakerDryRun_whileAProbeIsInFlight(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		opener, failing := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("1")})
		failing.will(status(500))
		require.Equal(t, 500, get(opener))
		elapse(t, redis, time.Hour)
		m, _ := newInstance(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{ResetTimeout: "1h", HalfOpenSuccessThreshold: "1", DryRun: "true"}})
		probe, _, err := m.breaker.Allow(m.policy, false, m.now(), time.Now().Add(5*time.Second))
		require.NoError(t, err)
		require.True(t, probe.Probe())
		require.Equal(t, []int{200, 200}, statuses(m.handler, 2))
		require.True(t, m.breaker.Probing(), "only the probe counts")
	})
}

func TestBreakerDryRun_denyWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	redis := at(server.Addr())
	redis.OnError = "deny"
	redis.Timeout = "50ms"
	handler, _ := newGateway(t, &Config{Redis: redis, CircuitBreaker: rules(func(c *CircuitBreakerConfig) { c.DryRun = "true" })})
	server.Kill()
	advance(time.Second)
	require.Equal(t, []int{200, 200}, statuses(handler, 2))
}

func TestRead_breakerDryRun(t *testing.T) {
	s := mustRead(t, &Config{CircuitBreaker: &CircuitBreakerConfig{DryRun: "true"}})
	require.True(t, s.breakerDryRun)
	require.Equal(t, "circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s; dry run, nothing is refused", s.parts[0])
	requireProblem(t, &Config{CircuitBreaker: &CircuitBreakerConfig{DryRun: "yes"}}, `circuitBreaker.dryRun: "yes" is neither true nor false; write "true" or "false"`)
}
