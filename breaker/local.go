package breaker

import "time"

// AllowLocal asks this process for a permit. It is what Allow does while Redis is away.
func (b *Breaker) AllowLocal(policy *Policy, upload bool, now int64) (Permit, time.Duration) {
	var granted Permit
	wait := int64(0)
	b.here(func(m *machine) {
		probe := m.permit(upload, now, policy)
		granted = Permit{generation: m.generation, probe: probe, upload: upload && probe != 0, since: now, local: true}
		granted.counts = probe != 0 || m.state == closed
		wait = m.wait(now)
	})
	if granted.counts {
		return granted, 0
	}
	if wait > 0 {
		return Permit{}, time.Duration(wait) * time.Microsecond
	}
	return Permit{}, oneRetry
}

func (b *Breaker) doneLocal(permit Permit, outcome Outcome, policy *Policy) {
	failed := int64(0)
	if outcome == Failure {
		failed = 1
	}
	now := b.Now()
	b.here(func(m *machine) {
		m.report(permit.generation, permit.probe, outcome == Success, failed, now, policy)
	})
}

// here lets the state in this process change.
func (b *Breaker) here(change func(m *machine)) {
	before, after := b.changeHere(change)
	b.tell(before, after)
}

func (b *Breaker) changeHere(change func(m *machine)) (before, after int64) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	before = b.machine.state
	generation := b.machine.generation
	change(&b.machine)
	b.ours = b.ours || b.machine.generation != generation
	b.show()
	return before, b.machine.state
}
