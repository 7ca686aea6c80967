package breaker

import "time"

// Permit lets one request pass, and is given back to Done with the request's outcome. The zero value is the permit of a
// request whose outcome does not count.
type Permit struct {
	generation  int64
	probe       int64 // its number; 0: the request is not a probe
	local       bool  // given by this process, not by Redis
	unasked     bool  // given without asking: Redis was unavailable
	upload      bool  // a probe whose body is still being received
	requestedAt int64 // when it was asked for
	counts      bool  // its outcome counts
}

// Probe reports whether the request is a probe: its outcome is reported with its response headers.
func (p Permit) Probe() bool {
	return p.probe != 0
}

// Allow asks for a permit: from the view if that is fresh enough, else from Redis. upload says that the request's body is
// still being received. A retryAfter that is not 0 says that the request is refused. An error, which comes by the deadline,
// wraps store.ErrUnavailable or is the script's own.
func (b *Breaker) Allow(policy *Policy, upload bool, now int64, deadline time.Time) (permit Permit, retryAfter time.Duration, err error) {
	if b.Store == nil {
		permit, retryAfter = b.AllowLocal(policy, upload, now)
		return permit, retryAfter, nil
	}
	if err := b.ensureFresh(policy, now, deadline); err != nil {
		return Permit{}, 0, err
	}
	permit, retryAfter, decided := b.allowByView(upload, b.Now()) // the view may be newer than the request
	if decided {
		return permit, retryAfter, nil
	}
	return b.Await(newPermitRequest(policy, upload), deadline)
}

// allowByView decides from the view; decided is false if Redis must be asked for a probe.
func (b *Breaker) allowByView(upload bool, now int64) (permit Permit, retryAfter time.Duration, decided bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.passes() {
		return Permit{generation: b.machine.generation, counts: true}, 0, true
	}
	retryAfter, refused := b.mustRefuseLocked(upload, now)
	return Permit{}, retryAfter, refused
}
