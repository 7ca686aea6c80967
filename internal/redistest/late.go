package redistest

import (
	"sync"
	"testing"
	"time"
)

// Late watches, from now to the end of the test, how late this machine is, and returns a function that tells it: what a
// request of some steps takes longer than on a machine at rest. A test adds it to what it allows a request.
func Late(t testing.TB) func() time.Duration {
	const (
		step  = time.Millisecond
		steps = 5 // in which a request may be as late as the sleeper that is watched
	)
	var mu sync.Mutex // guards longest and woke
	longest, woke := time.Duration(0), time.Now()
	look := func(now time.Time) time.Duration {
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
			look(now)
			mu.Lock()
			woke = now
			mu.Unlock()
		}
	}()
	return func() time.Duration { return steps * look(time.Now()) }
}
