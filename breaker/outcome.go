package breaker

import (
	"errors"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// pause is how long a call waits that is made again.
const repeatPause = 20 * time.Millisecond

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
	if permit.unasked && b.Store.IsUnavailable() {
		b.keepUnreported(permit, outcome)
		return
	}
	if b.Store == nil || permit.local {
		b.reportLocal(permit, outcome, policy)
		return
	}
	if b.Store.IsUnavailable() {
		b.reportLocal(permit, outcome, policy)
		if permit.probe != 0 { // it has a place in Redis
			b.repeatAsync(b.reportCall(permit, outcome == Success, failuresOf(outcome), policy), b.repeatFor(permit.probe, policy))
		}
		return
	}
	if !b.mustReport(permit, outcome) {
		return
	}
	if 2*patience < b.Timeout {
		go b.runReport(permit, outcome, policy)
		return
	}
	b.report(permit, outcome, policy, time.Now().Add(patience))
}

// worthTelling tells whether Redis needs to hear of the outcome: of every failure and every probe, and of a success only
// where there are failures for it to end.
func (b *Breaker) mustReport(permit Permit, outcome Outcome) bool {
	if permit.probe != 0 || outcome == Failure {
		return true
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return outcome == Success && b.machine.failures > 0 && b.machine.generation == permit.generation
}

func (b *Breaker) runReport(permit Permit, outcome Outcome, policy *Policy) {
	defer func() { recover() }()
	b.report(permit, outcome, policy, time.Now().Add(b.Timeout))
}

// report tells Redis of an outcome by the deadline. Where it does not hear in time, it is told again in the background.
func (b *Breaker) report(permit Permit, outcome Outcome, policy *Policy, deadline time.Time) {
	call := b.reportCall(permit, outcome == Success, failuresOf(outcome), policy)
	err := b.run(call, deadline)
	if permit.probe != 0 {
		b.Mu.Lock()
		b.noPlaceUntil = 0
		b.noUploadPlaceUntil = 0
		b.Mu.Unlock()
	}
	if err == nil {
		return
	}
	unavailable := errors.Is(err, store.ErrUnavailable)
	if unavailable {
		b.repeatAsync(call, b.repeatFor(permit.probe, policy))
	}
	if !unavailable || b.Store.IsUnavailable() {
		b.reportLocal(permit, outcome, policy)
	}
}

func failuresOf(outcome Outcome) int64 {
	if outcome == Failure {
		return 1
	}
	return 0
}

func (b *Breaker) reportCall(permit Permit, succeeded bool, failed int64, policy *Policy) *store.Call {
	asked := b.Now()
	call := &store.Call{Script: reportScript, Keys: b.keys, Args: withArgs(policy,
		intArg(permit.generation), intArg(permit.probe), boolArg(succeeded), intArg(failed), newCallID())}
	call.Then = func(c *store.Call) { b.applyUnlessLost(c, asked, policy) }
	return call
}

// repeat makes a call again in the background that got no answer in time, until it has one or the patience is over. It counts once.
func (b *Breaker) repeatAsync(call *store.Call, patience time.Duration) {
	go b.runRepeat(call, time.Now().Add(patience))
}

// patience is how long a call is worth making again: for one about a probe, as long as that may hold a place in Redis, though Redis is
// away meanwhile, but a minute at most.
func (b *Breaker) repeatFor(probe int64, policy *Policy) time.Duration {
	if probe == 0 {
		return 4 * b.Timeout
	}
	patience := time.Duration(policy.probeTimeout) * time.Microsecond
	if patience > time.Minute {
		return time.Minute
	}
	return patience
}

func (b *Breaker) runRepeat(call *store.Call, until time.Time) {
	defer func() { recover() }()
	for time.Now().Before(until) {
		if !b.Store.IsUnavailable() {
			err := b.run(call, time.Now().Add(b.Timeout))
			if !errors.Is(err, store.ErrUnavailable) {
				return
			}
		}
		time.Sleep(repeatPause)
	}
}
