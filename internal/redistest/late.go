package redistest

import (
	"sync"
	"testing"
	"time"
)

// Late measures, until the end of the test, how late a busy machine wakes its sleepers. It returns a function that returns
// how much longer a request of some steps may take than on an idle machine. A test adds that to what it allows a request.
func Late(t testing.TB) func() time.Duration {
	const (
		step  = time.Millisecond
		steps = 5 // of a request, each of which may be as late as the sleeper
	)
	var mu sync.Mutex // guards longest and woke
	longest, woke := time.Duration(0), time.Now()
	measure := func(now time.Time) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if late := now.Sub(woke) - step; late > longest {
			longest = late
		}
		return longest
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(step):
			}
			now := time.Now()
			measure(now)
			mu.Lock()
			woke = now
			mu.Unlock()
		}
	}()
	return func() time.Duration { return steps * measure(time.Now()) }
}
