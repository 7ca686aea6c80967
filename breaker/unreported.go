package breaker

// untold is what became of requests that passed while Redis was away, and that nobody decided on.
type unreported struct {
	generation int64
	succeeded  bool  // one did, before the failures
	failed     int64 // in a row
}

// Unasked returns the permit of a request that passes though Redis is away. What becomes of it is told when Redis is back, if it
// still belongs to what the circuit was then.
func (b *Breaker) UnaskedPermit() Permit {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.requestedAt == 0 || b.divergedLocally || b.machine.state != stateClosed {
		return Permit{}
	}
	return Permit{generation: b.machine.generation, unasked: true, counts: true}
}

// keep keeps an outcome that Redis cannot be told of.
func (b *Breaker) keepUnreported(permit Permit, outcome Outcome) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.unreported.generation != permit.generation {
		b.unreported = unreported{generation: permit.generation}
	}
	if outcome == Success {
		b.unreported.succeeded = true
		b.unreported.failed = 0
	} else if outcome == Failure {
		b.unreported.failed++
	}
}

// tellUntold tells Redis, which has just answered, of the failures that it could not be told of. Mu is held.
func (b *Breaker) reportUnreportedLocked(policy *Policy) {
	kept := b.unreported
	b.unreported = unreported{}
	if kept.failed == 0 || b.machine.state != stateClosed || b.machine.generation != kept.generation {
		return
	}
	call := b.reportCall(Permit{generation: kept.generation}, kept.succeeded, kept.failed, policy)
	b.repeatAsync(call, b.repeatFor(0, policy))
}
