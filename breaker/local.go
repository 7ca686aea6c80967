package breaker

import "time"

// AllowLocal asks this process for a permit: what Allow does while Redis is away.
func (b *Breaker) AllowLocal(policy *Policy, now int64) (Permit, time.Duration) {
	b.Mu.Lock()
	before, generation := b.machine.state, b.machine.generation
	probe := b.machine.permit(now, policy)
	after := b.machine.state
	b.ours = b.ours || b.machine.generation != generation
	b.show()
	granted := Permit{generation: b.machine.generation, probe: probe, local: true, counts: true}
	wait := b.machine.wait(now)
	b.Mu.Unlock()
	b.tell(before, after)
	if probe != 0 || after == closed {
		return granted, 0
	}
	if wait > 0 {
		return Permit{}, time.Duration(wait) * time.Microsecond
	}
	return Permit{}, oneRetry
}

func (b *Breaker) doneLocal(permit Permit, outcome Outcome, policy *Policy) {
	now := b.Now()
	failed := int64(0)
	if outcome == Failure {
		failed = 1
	}
	b.Mu.Lock()
	before, generation := b.machine.state, b.machine.generation
	b.machine.report(permit.generation, permit.probe, outcome == Success, failed, now, policy)
	after := b.machine.state
	b.ours = b.ours || b.machine.generation != generation
	b.show()
	b.Mu.Unlock()
	b.tell(before, after)
}
