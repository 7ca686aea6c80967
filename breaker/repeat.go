package breaker

import (
	"errors"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

const repeatPause = 20 * time.Millisecond // between two attempts

// repeatAsync repeats a call that got no answer, in the background, until it gets one or the duration has passed. The call
// counts once: the scripts recognise its id.
func (b *Breaker) repeatAsync(call *store.Call, duration time.Duration) {
	go b.runRepeat(call, time.Now().Add(duration))
}

// repeatFor returns for how long a call is repeated: a call about a probe while the probe may hold a place in Redis, even if
// Redis is unavailable meanwhile, but at most a minute; any other call for four timeouts.
func (b *Breaker) repeatFor(probe int64, policy *Policy) time.Duration {
	if probe == 0 {
		return 4 * b.Timeout
	}
	probeTimeout := time.Duration(policy.probeTimeout) * time.Microsecond
	if probeTimeout > time.Minute {
		return time.Minute
	}
	return probeTimeout
}

func (b *Breaker) runRepeat(call *store.Call, until time.Time) {
	defer func() { recover() }()
	for time.Now().Before(until) {
		if !b.Store.IsUnavailable() {
			err := b.run(call, time.Now().Add(b.Timeout))
			if !errors.Is(err, store.ErrUnavailable) {
				return
			}
		}
		time.Sleep(repeatPause)
	}
}
