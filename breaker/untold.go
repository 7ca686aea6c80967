package breaker

// untold is what became of requests that passed while Redis was away, and that nobody decided on.
type untold struct {
	generation int64
	succeeded  bool  // one did, before the failures
	failed     int64 // in a row
}

// Unasked returns the permit of a request that passes though Redis is away. What becomes of it is told when Redis is back, if it
// still belongs to what the circuit was then.
func (b *Breaker) Unasked() Permit {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.asked == 0 || b.ours || b.machine.state != closed {
		return Permit{}
	}
	return Permit{generation: b.machine.generation, unasked: true, counts: true}
}

// keep keeps an outcome that Redis cannot be told of.
func (b *Breaker) keep(permit Permit, outcome Outcome) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.untold.generation != permit.generation {
		b.untold = untold{generation: permit.generation}
	}
	if outcome == Success {
		b.untold.succeeded = true
		b.untold.failed = 0
	} else if outcome == Failure {
		b.untold.failed++
	}
}

// tellUntold tells Redis, which has just answered, of the failures that it could not be told of. Mu is held.
func (b *Breaker) tellUntold(policy *Policy) {
	kept := b.untold
	b.untold = untold{}
	if kept.failed == 0 || b.machine.state != closed || b.machine.generation != kept.generation {
		return
	}
	call := b.reportCall(Permit{generation: kept.generation}, kept.succeeded, kept.failed, policy)
	b.repeat(call, b.patience(0, policy))
}
