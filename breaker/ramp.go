package breaker

import "time"

// In a ramp each gateway lets the same share of its requests pass, so that it is the share of the fleet's. It follows from the time that is
// left, which is a part of the view: no request needs a call.

const wholeShare = 1000000

// advanceRamp closes the machine at the end of its ramp.
func (m *machine) advanceRamp(now int64, p *Policy) {
	if ramp := p.rules.Ramp.Microseconds(); ramp > 0 && m.deadline > now+ramp {
		m.deadline = now + ramp
	}
	if now >= m.deadline {
		m.enter(stateClosed, now)
	}
}

// rampRefusesLocked reports whether the next request is not among those that pass. Each request must ask once.
func (b *Breaker) rampRefusesLocked(now int64, policy *Policy) bool {
	ramp := policy.rules.Ramp.Microseconds()
	left := b.machine.deadline - now
	if ramp == 0 || left <= 0 {
		return false
	}
	if left > ramp {
		left = ramp
	}
	b.rampCredit += (ramp - left) / 1000 * wholeShare / (ramp/1000 + 1)
	if b.rampCredit < wholeShare {
		return true
	}
	b.rampCredit -= wholeShare
	return false
}

// RampRefuses reports whether a request must be refused because the share of requests that pass in a ramp is used up, and when its client may
// retry. It must be asked once for each request.
func (b *Breaker) RampRefuses(now int64, policy *Policy) (retryAfter time.Duration, refused bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.state != stateRamp || b.supersededLocked() {
		return 0, false
	}
	if b.Store != nil && !b.divergedLocally && !b.Store.IsUnavailable() {
		b.refreshAsyncLocked(now, policy)
	}
	if !b.rampRefusesLocked(now, policy) {
		return 0, false
	}
	return retryInASecond, true
}

// InRamp reports whether the circuit is, as far as this gateway knows, in its ramp.
func (b *Breaker) InRamp() bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.machine.state == stateRamp
}
