package breaker

import "time"

// Snapshot is the circuit as this gateway knows it.
type Snapshot struct {
	State     string // closed, open, half-open or ramp
	Failures  int64  // closed: consecutive ones, as Redis last said; half-open: failed probes
	Successes int64  // half-open
	Remaining int64  // open: microseconds until a probe may pass; ramp: until it is closed
	Forced    string // open or closed, if an operator has made the state; else empty
	ForcedFor int64  // microseconds until that ends
	Age       int64  // microseconds since Redis was asked; -1: it never was
	Local     bool   // the state was decided without Redis
}

// Snapshot returns the circuit as this gateway knows it.
func (b *Breaker) Snapshot(now int64) *Snapshot {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	m := &b.machine
	s := &Snapshot{
		State: stateNames[m.state], Failures: m.failures, Successes: m.successes, Remaining: m.remaining(now), Age: -1,
		Local: b.Store == nil || b.divergedLocally,
	}
	if b.requestedAt != 0 {
		s.Age = now - b.requestedAt
	}
	s.setForced(m.forced, m.deadline-now)
	return s
}

func (s *Snapshot) setForced(forced, left int64) {
	if forced != 0 && left > 0 {
		s.Forced = forcedNames[forced]
		s.ForcedFor = left
	}
}

// Refresh asks Redis for the circuit's state, and waits for the reply at most until the deadline. It returns what Redis said, or nil if there
// is no Redis or it is unavailable.
func (b *Breaker) Refresh(policy *Policy, now int64, deadline time.Time) *Snapshot {
	if b.Store == nil || b.Store.IsUnavailable() {
		return nil
	}
	call := b.viewCall(now, policy)
	if b.run(call, deadline) != nil || call.Reply[0] < stateClosed || call.Reply[0] > stateRamp || call.Reply[8] < 0 || call.Reply[8] > forcedClosed {
		return nil
	}
	s := &Snapshot{State: stateNames[call.Reply[0]], Failures: call.Reply[2], Successes: call.Reply[3]}
	if call.Reply[0] != stateClosed {
		s.Remaining = call.Reply[4]
	}
	s.setForced(call.Reply[8], call.Reply[4])
	return s
}
