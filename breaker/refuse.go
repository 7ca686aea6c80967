package breaker

import "time"

const retryInASecond = time.Second // Retry-After where no deadline is known

// MustRefuse reports, from what this gateway knows, whether a request must be refused at the time now, and when its client
// may retry. upload says that the request's body is still being received.
func (b *Breaker) MustRefuse(upload bool, now int64) (retryAfter time.Duration, refused bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.passes() || b.supersededLocked() {
		return 0, false
	}
	return b.mustRefuseLocked(upload, now)
}

// Probing reports whether the circuit is, as far as this gateway knows, open or half-open: a request that passes is a probe.
func (b *Breaker) Probing() bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return !b.machine.passes()
}

// LastKnown decides as Redis last said, for a request that Redis did not answer in time although it is available. known is
// false if Redis is unavailable or has said nothing yet.
func (b *Breaker) LastKnown(now int64) (permit Permit, retryAfter time.Duration, known bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.requestedAt == 0 || b.divergedLocally || b.Store.IsUnavailable() {
		return Permit{}, 0, false
	}
	if b.machine.passes() {
		return Permit{generation: b.machine.generation, counts: true}, 0, true
	}
	if left := b.machine.remaining(now); left > 0 {
		return Permit{}, time.Duration(left) * time.Microsecond, true
	}
	return Permit{}, retryInASecond, true
}

// supersededLocked reports whether the state was made here while Redis was unavailable, and Redis is back: its state counts.
func (b *Breaker) supersededLocked() bool {
	return b.divergedLocally && b.Store != nil && !b.Store.IsUnavailable()
}

func (b *Breaker) mustRefuseLocked(upload bool, now int64) (retryAfter time.Duration, refused bool) {
	if b.machine.passes() {
		return 0, false
	}
	if left := b.machine.remaining(now); left > 0 {
		return time.Duration(left) * time.Microsecond, true
	}
	return retryInASecond, now < b.noPlaceUntil || upload && now < b.noUploadPlaceUntil
}
