package breaker

// unreported counts the outcomes of requests that passed without asking while Redis was unavailable.
type unreported struct {
	generation int64
	succeeded  bool  // one succeeded, before the failures
	failed     int64 // consecutive failures since
}

// UnaskedPermit returns the permit of a request that passes although Redis is unavailable. Its outcome is reported once
// Redis is back, and counts if the circuit still has the present generation then.
func (b *Breaker) UnaskedPermit() Permit {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.requestedAt == 0 || b.divergedLocally || b.machine.state != stateClosed {
		return Permit{}
	}
	return Permit{generation: b.machine.generation, unasked: true, counts: true}
}

// keepUnreported keeps an outcome until Redis is back.
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

// reportUnreportedLocked tells Redis, which has just answered, the failures that it could not be told before.
func (b *Breaker) reportUnreportedLocked(policy *Policy) {
	kept := b.unreported
	b.unreported = unreported{}
	if kept.failed == 0 || b.machine.state != stateClosed || b.machine.generation != kept.generation {
		return
	}
	call := b.reportCall(Permit{generation: kept.generation}, tally{succeeded: kept.succeeded, run: kept.failed}, policy)
	b.repeatAsync(call, b.repeatFor(0, policy))
}
