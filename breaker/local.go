package breaker

import "time"

// AllowLocal asks this process for a permit, as Allow does without Redis. A retryAfter that is not 0 says that the request
// is refused.
func (b *Breaker) AllowLocal(policy *Policy, upload bool, now int64) (permit Permit, retryAfter time.Duration) {
	c := beginLocalChange(b)
	defer c.commit()
	m := &b.machine
	probe := m.acquire(upload, b.gateway, now, policy)
	if probe != 0 || m.passes() {
		return Permit{generation: m.generation, probe: probe, upload: upload && probe != 0, requestedAt: now, local: true, counts: true}, 0
	}
	if left := m.remaining(now); left > 0 {
		return Permit{}, time.Duration(left) * time.Microsecond
	}
	return Permit{}, retryInASecond
}

func (b *Breaker) reportLocal(permit Permit, outcome Outcome, policy *Policy) {
	b.reportTallyLocal(permit.generation, permit.probe, tallyOf(outcome), policy)
}

func (b *Breaker) reportTallyLocal(generation, probe int64, t tally, policy *Policy) {
	now := b.Now()
	t.gateway = b.gateway
	c := beginLocalChange(b)
	defer c.commit()
	b.machine.report(generation, probe, t, now, policy)
}

func (b *Breaker) bodySentLocal(permit Permit, late bool, policy *Policy) {
	now := b.Now()
	c := beginLocalChange(b)
	defer c.commit()
	b.machine.endUpload(permit.generation, permit.probe, late, b.gateway, now, policy)
}

// localChange is a change of the machine in this process. The breaker is locked from its begin to its commit.
type localChange struct {
	b                 *Breaker
	state, generation int64 // before it
}

// beginLocalChange locks the breaker. The caller must defer commit.
func beginLocalChange(b *Breaker) *localChange {
	b.Mu.Lock()
	return &localChange{b: b, state: b.machine.state, generation: b.machine.generation}
}

// commit publishes the change, unlocks the breaker and notifies.
func (c *localChange) commit() {
	c.b.notifyChange(c.state, c.publishAndUnlock())
}

func (c *localChange) publishAndUnlock() (state int64) {
	b := c.b
	defer b.Mu.Unlock()
	b.divergedLocally = b.divergedLocally || b.machine.generation != c.generation
	b.publishLocked()
	return b.machine.state
}
