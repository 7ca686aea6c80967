package resilience

import (
	"sync"
	"testing"
	"time"
)

// clock is the clock of all middlewares that are made while it is the registry's. A test lets time pass by advancing it, not by sleeping.
// Redis has a clock of its own: what is in Redis ages by that.
type clock struct {
	mu      sync.Mutex
	ahead   time.Duration
	stopped bool // time passes by advance only
}

// newClock returns a clock that runs as usual, and may be advanced. It belongs to the present registry: newProcess comes before it.
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
