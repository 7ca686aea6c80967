package resilience

import (
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
)

// clock is the clock of all middlewares that are made while it is the registry's. A test lets time pass by advancing it, not by sleeping.
type clock struct {
	mu      sync.Mutex
	ahead   time.Duration
	stopped bool // time passes by advance only
}

// gatewayClock is the clock of each new process. It runs as usual, and tests advance it.
var gatewayClock = &clock{}

// advance advances the clock of the gateways. Redis has a clock of its own: what is in Redis does not grow older. A limiter that has asked
// Redis before waits for it longer by what the clock was advanced: Redis must be prompt from then on.
func advance(d time.Duration) { gatewayClock.advance(d) }

// elapse is advance, also for circuits in Redis (nil: in this process).
func elapse(t *testing.T, redis *RedisConfig, d time.Duration) {
	if redis != nil {
		redistest.Elapse(t, redis.Address, d)
	}
	advance(d)
}

// newClock returns a clock of the present registry's own: newProcess comes before it.
func newClock(t *testing.T) *clock {
	c := &clock{}
	registry := processRegistry
	before := registry.since
	registry.since = c.since
	t.Cleanup(func() { registry.since = before })
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

// advance lets time pass.
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
