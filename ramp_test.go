package resilience

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// After the probes a rising share of the requests passes, and a failure opens the circuit again.
func TestRamp(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, limit := range limits() {
			limit := limit
			t.Run(limit.name, func(t *testing.T) {
				opener, failing := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("1")})
				failing.will(status(500))
				require.Equal(t, 500, get(opener))
				elapse(t, redis, time.Hour)
				m, up := newInstance(t, &Config{Redis: redis, RateLimit: limit.limit, CircuitBreaker: &CircuitBreakerConfig{
					ResetTimeout: "1h", HalfOpenSuccessThreshold: "1", Recovery: "ramp", RampDuration: "100m"}})
				require.Equal(t, 200, get(m.handler), "the probe")
				elapse(t, redis, 30*time.Minute)
				refreshed(t, m)
				counts := map[int]int{}
				for _, code := range statuses(m.handler, 50) {
					counts[code]++
				}
				require.InDelta(t, 15, counts[200], 3, "30 %%: %v", counts)
				require.Equal(t, 50, counts[200]+counts[503])
				require.Equal(t, "1", lastRetryAfter(m))

				up.will(status(500))
				waitFor(t, func() bool { return get(m.handler) == 500 })
				require.Equal(t, "open", circuitOf(m))
			})
		}
	})
}

// lastRetryAfter returns the Retry-After of the next refusal.
func lastRetryAfter(m *Middleware) string {
	for {
		if w := send(m.handler, "GET", "/"); w.Code == 503 {
			return w.Header().Get("Retry-After")
		}
	}
}

// refreshed waits until the view has been refreshed.
func refreshed(t *testing.T, m *Middleware) {
	advance(time.Second)
	_, _, err := m.breaker.Allow(m.policy, false, m.now(), time.Now().Add(5*time.Second))
	require.NoError(t, err)
}

func TestRead_recovery(t *testing.T) {
	s := mustRead(t, &Config{CircuitBreaker: &CircuitBreakerConfig{Recovery: "ramp"}})
	require.Equal(t, "circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s"+
		"; then the share of requests that pass rises over 30s", s.parts[0])
	for _, row := range []struct {
		config  CircuitBreakerConfig
		message string
	}{
		{CircuitBreakerConfig{Recovery: "slow"}, `circuitBreaker.recovery: "slow" is not one of probes and ramp`},
		{CircuitBreakerConfig{RampDuration: "1m"}, "circuitBreaker.rampDuration: it has no effect without recovery: ramp; write that too, or leave it out"},
		{CircuitBreakerConfig{Recovery: "ramp", RampDuration: "10ms"},
			`circuitBreaker.rampDuration: "10ms" is out of bounds; write a duration from 1s to 10000d, in whole microseconds`},
	} {
		row := row
		t.Run(row.message, func(t *testing.T) {
			requireProblem(t, &Config{CircuitBreaker: &row.config}, row.message)
		})
	}
}
