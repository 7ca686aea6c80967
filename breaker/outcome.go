package breaker

import (
	"errors"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// repeats is how often a report is made again that got no answer in time.
const repeats = 3

// Outcome is what became of a request that was let through.
type Outcome int

// The outcomes of a request.
const (
	// Unknown says nothing about the upstream: the client went away, or was at fault.
	Unknown Outcome = iota
	// Success is an answer that is not the upstream's fault.
	Success
	// Failure is the upstream's fault.
	Failure
)

// Done tells what became of a request that was let through with the permit. It waits for Redis no longer than patience;
// where that is too short to be worth a try, the call is made beside the request. It must be called once for each permit.
func (b *Breaker) Done(permit Permit, outcome Outcome, policy *Policy, patience time.Duration) {
	if !permit.counts {
		return
	}
	if permit.unasked && b.Store.Down() {
		b.keep(permit, outcome)
		return
	}
	if b.Store == nil || permit.local || b.Store.Down() {
		b.doneLocal(permit, outcome, policy)
		return
	}
	if !b.worthTelling(permit, outcome) {
		return
	}
	if 2*patience < b.Timeout {
		go b.reportBeside(permit, outcome, policy)
		return
	}
	b.report(permit, outcome, policy, time.Now().Add(patience))
}

// worthTelling tells whether Redis needs to hear of the outcome: of every failure and every probe, and of a success only
// where there are failures for it to end.
func (b *Breaker) worthTelling(permit Permit, outcome Outcome) bool {
	if permit.probe != 0 || outcome == Failure {
		return true
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return outcome == Success && b.machine.failures > 0 && b.machine.generation == permit.generation
}

func (b *Breaker) reportBeside(permit Permit, outcome Outcome, policy *Policy) {
	defer func() { recover() }()
	b.report(permit, outcome, policy, time.Now().Add(b.Timeout))
}

// report tells Redis of an outcome by the deadline. Where it does not hear in time, it is told again in the background.
func (b *Breaker) report(permit Permit, outcome Outcome, policy *Policy, deadline time.Time) {
	failed := int64(0)
	if outcome == Failure {
		failed = 1
	}
	call := b.reportCall(permit, outcome == Success, failed, policy)
	err := b.run(call, deadline)
	if permit.probe != 0 {
		b.Mu.Lock()
		b.full = 0
		b.crammed = 0
		b.Mu.Unlock()
	}
	if err == nil {
		return
	}
	if errors.Is(err, store.ErrUnavailable) && !b.Store.Down() {
		b.repeat(call)
		return
	}
	b.doneLocal(permit, outcome, policy)
}

func (b *Breaker) reportCall(permit Permit, succeeded bool, failed int64, policy *Policy) *store.Call {
	asked := b.Now()
	call := &store.Call{Script: reportScript, Keys: b.keys, Args: withArgs(policy,
		digits(permit.generation), digits(permit.probe), flag(succeeded), digits(failed), newID())}
	call.Then = func(c *store.Call) { b.learn(c, asked, policy) }
	return call
}

// repeat makes a call again in the background that got no answer in time, until it has one, or Redis is away. It counts once.
func (b *Breaker) repeat(call *store.Call) { go b.repeatBeside(call) }

func (b *Breaker) repeatBeside(call *store.Call) {
	defer func() { recover() }()
	for try := 0; try < repeats; try++ {
		err := b.run(call, time.Now().Add(b.Timeout))
		if err == nil || b.Store.Down() {
			return
		}
	}
}
