package breaker

import "time"

// AllowLocal asks this process for a permit. It is what Allow does while Redis is away.
func (b *Breaker) AllowLocal(policy *Policy, upload bool, now int64) (Permit, time.Duration) {
	c := beginLocalChange(b)
	defer c.commit()
	m := &b.machine
	probe := m.acquire(upload, now, policy)
	if probe != 0 || m.state == stateClosed {
		return Permit{generation: m.generation, probe: probe, upload: upload && probe != 0, requestedAt: now, local: true, counts: true}, 0
	}
	if wait := m.remaining(now); wait > 0 {
		return Permit{}, time.Duration(wait) * time.Microsecond
	}
	return Permit{}, retryInASecond
}

func (b *Breaker) reportLocal(permit Permit, outcome Outcome, policy *Policy) {
	now := b.Now()
	c := beginLocalChange(b)
	defer c.commit()
	b.machine.report(permit.generation, permit.probe, outcome == Success, failuresOf(outcome), now, policy)
}

func (b *Breaker) bodySentLocal(permit Permit, late bool, policy *Policy) {
	now := b.Now()
	c := beginLocalChange(b)
	defer c.commit()
	b.machine.bodySent(permit.generation, permit.probe, late, now, policy)
}

// change is a change of the state in this process. The breaker is locked until it ends.
type localChange struct {
	b                 *Breaker
	state, generation int64 // before
}

func beginLocalChange(b *Breaker) *localChange {
	b.Mu.Lock()
	return &localChange{b: b, state: b.machine.state, generation: b.machine.generation}
}

func (c *localChange) commit() {
	c.b.notifyChange(c.state, c.publishAndUnlock())
}

// close ends it, but tells nobody. It returns the state.
func (c *localChange) publishAndUnlock() int64 {
	b := c.b
	defer b.Mu.Unlock()
	b.divergedLocally = b.divergedLocally || b.machine.generation != c.generation
	b.publishLocked()
	return b.machine.state
}
