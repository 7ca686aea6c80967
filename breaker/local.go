package breaker

import "time"

// AllowLocal asks this process for a permit. It is what Allow does while Redis is away.
func (b *Breaker) AllowLocal(policy *Policy, upload bool, now int64) (Permit, time.Duration) {
	c := newChange(b)
	defer c.end()
	m := &b.machine
	probe := m.permit(upload, now, policy)
	if probe != 0 || m.state == closed {
		return Permit{generation: m.generation, probe: probe, upload: upload && probe != 0, since: now, local: true, counts: true}, 0
	}
	if wait := m.wait(now); wait > 0 {
		return Permit{}, time.Duration(wait) * time.Microsecond
	}
	return Permit{}, oneRetry
}

func (b *Breaker) doneLocal(permit Permit, outcome Outcome, policy *Policy) {
	now := b.Now()
	c := newChange(b)
	defer c.end()
	b.machine.report(permit.generation, permit.probe, outcome == Success, failuresOf(outcome), now, policy)
}

func (b *Breaker) sentLocal(permit Permit, late bool, policy *Policy) {
	now := b.Now()
	c := newChange(b)
	defer c.end()
	b.machine.sent(permit.generation, permit.probe, late, now, policy)
}

// change is a change of the state in this process. The breaker is locked until it ends.
type change struct {
	b                 *Breaker
	state, generation int64 // before
}

func newChange(b *Breaker) *change {
	b.Mu.Lock()
	return &change{b: b, state: b.machine.state, generation: b.machine.generation}
}

func (c *change) end() {
	c.b.notifyChange(c.state, c.close())
}

// close ends it, but tells nobody. It returns the state.
func (c *change) close() int64 {
	b := c.b
	defer b.Mu.Unlock()
	b.divergedLocally = b.divergedLocally || b.machine.generation != c.generation
	b.publishLocked()
	return b.machine.state
}
