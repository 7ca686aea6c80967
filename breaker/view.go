package breaker

import "math"

// How old a view may be, in microseconds.
const (
	freshFor   = 50000  // a younger view is used as it is
	staleAfter = 100000 // an older view is not used; between the two it is used, and refreshed in the background
)

// View is what a request may read of a breaker without a call, because calls are expensive in the interpreter. Times are
// microseconds by the breaker's Now.
type View struct {
	// Guarded by the breaker's Mu.
	Healthy int64 // the circuit is known to be closed, without a failure if not all requests are counted, until then; 0: it is not
	Open    int64 // the circuit is known to be open until then; 0: it is not
	Passes  int64 // successes that were counted since the last report (count.go)

	// A success of a request that arrived since then may be added to Passes; any other goes to CountPassLocked. It is beyond all times while
	// Passes is 0: one comparison is less expensive than two.
	PassesSince int64

	// Failing has length 1 if Redis must be told of successes too, else 0. Requests read only its length, which needs no
	// lock.
	Failing chan struct{}
}

// PermitAt returns the permit of a request that arrived at the time at and passed because View.Healthy allowed it. Such a request does
// not record its generation. Its outcome does not count if it may have passed under another one. A request that arrived before the
// view changed may have passed after that: it counts if no earlier view let it pass.
func (b *Breaker) PermitAt(at int64) Permit {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if at < b.publishedAt {
		return Permit{}
	}
	return Permit{generation: b.machine.generation, counts: true}
}

// publishLocked makes the view from the machine.
func (b *Breaker) publishLocked() {
	healthy, openUntil := int64(0), int64(0)
	if b.machine.state == stateClosed && (b.machine.failures == 0 || b.counts) {
		if b.Store == nil {
			healthy = math.MaxInt64
		} else if b.requestedAt != 0 && !b.divergedLocally {
			healthy = b.requestedAt + freshFor
		}
	}
	if b.ownHealthyLocked != nil && !b.ownHealthyLocked() {
		healthy = 0
	}
	if b.machine.state == stateOpen && (b.Store == nil || !b.divergedLocally) {
		openUntil = b.machine.deadline
	}
	changed := b.machine.generation != b.publishedGeneration
	if changed || healthy < b.View.Healthy {
		b.noteAdmittedLocked()
	}
	if changed {
		b.publishedGeneration = b.machine.generation
		b.publishedAt = b.lastAdmitted
		b.forgetCountedLocked()
	}
	left := b.publishedState == stateClosed && b.machine.state != stateClosed
	b.publishedState = b.machine.state
	failing := int64(1)
	if healthy > 0 && b.machine.failures == 0 {
		failing = 0
	}
	setLength(b.View.Failing, failing)
	b.endNoticeLocked(b.notice)
	b.View.Healthy = healthy
	b.View.Open = openUntil
	if b.publishedLocked != nil {
		b.publishedLocked()
	}
	if changed && b.closeOwnLocked != nil && b.isForcedClosedLocked() {
		b.closeOwnLocked()
	}
	if left && b.renewOwnLocked != nil {
		b.renewOwnLocked()
	}
}

// noteAdmittedLocked notes that requests may have passed by the view until now.
func (b *Breaker) noteAdmittedLocked() {
	admitted := b.Now()
	if b.View.Healthy < admitted {
		admitted = b.View.Healthy
	}
	if admitted > b.lastAdmitted {
		b.lastAdmitted = admitted
	}
}
