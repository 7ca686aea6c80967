package resilience

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// clock is the clock of all middlewares that are made while it is the registry's. A test lets time pass by advancing it, not by sleeping.
// Redis's clock is another: what is in Redis ages by that.
type clock struct {
	mu      sync.Mutex
	ahead   time.Duration
	stopped bool // time passes by advance only
}

// gatewayClock is the clock of each new process. It runs as usual, and tests advance it.
var gatewayClock = &clock{}

// advance advances the clock of the gateways. What is in Redis does not grow older. A limiter that has asked Redis before waits for it longer
// by what the clock was advanced: Redis must be prompt from then on. A timer and no clock ends the notice of an open circuit: a circuit that
// has refused before needs setSwitch(t, false).
func advance(d time.Duration) { gatewayClock.advance(d) }

// elapse is advance, also for circuits in Redis (nil: in this process).
func elapse(t *testing.T, redis *RedisConfig, d time.Duration) {
	if redis != nil {
		redistest.Elapse(t, redis.Address, d)
	}
	advance(d)
}

// newClock gives the present registry another clock, and disables the switch: newProcess comes before it.
func newClock(t *testing.T) *clock {
	c := &clock{}
	registry := processRegistry
	before := registry.since
	registry.since = c.since
	t.Cleanup(func() { registry.since = before })
	setSwitch(t, false)
	return c
}

// newStoppedClock returns a clock that stands until it is advanced: what a test sees depends on nothing else. Only for state in this
// process.
func newStoppedClock(t *testing.T) *clock {
	c := newClock(t)
	c.stopped = true
	c.ahead = time.Hour
	return c
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func (c *clock) since(begun time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return c.ahead
	}
	return time.Since(begun) + c.ahead
}

func TestClock_letsABucketRefill(t *testing.T) {
	newProcess(t, time.Hour)
	clock := newStoppedClock(t)
	handler, _ := newGateway(t, &Config{RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h"}})
	require.Equal(t, 200, get(handler))
	clock.advance(time.Hour - time.Microsecond)
	require.Equal(t, 429, get(handler))
	clock.advance(time.Microsecond)
	require.Equal(t, 200, get(handler))
}

func TestClock_letsACircuitHalfOpen(t *testing.T) {
	newProcess(t, time.Hour)
	clock := newStoppedClock(t)
	m, err := newMiddleware(context.Background(), status(500), &Config{CircuitBreaker: failures("1")}, nameOf(t))
	require.NoError(t, err)
	fast := fastAlone(m)
	require.Equal(t, 500, get(fast))
	clock.advance(time.Hour - time.Microsecond)
	require.Equal(t, 503, get(fast))
	clock.advance(time.Microsecond)
	require.Equal(t, 500, get(fast), "a probe")
}
