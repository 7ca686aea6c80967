package breaker

import (
	"errors"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Done reports the outcome of the request that passed with the permit. It must be called once for each permit. It waits for
// Redis for at most budget; if budget is less than half of Timeout, the call is made in the background instead. It does not
// fail: what Redis cannot be told now is kept, or sent again later.
func (b *Breaker) Done(permit Permit, outcome Outcome, policy *Policy, budget time.Duration) {
	if !permit.counts {
		return
	}
	if policy.Counts() && permit.probe == 0 && !permit.unasked && !b.InRamp() {
		b.count(permit, outcome, policy)
		return
	}
	outcome = judged(outcome, permit, policy)
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
		if permit.probe != 0 { // it holds a place in Redis
			b.repeatAsync(b.reportCall(permit, tallyOf(outcome), policy), b.repeatFor(permit.probe, policy))
		}
		return
	}
	if !b.mustReport(permit, outcome) {
		return
	}
	if 2*budget < b.Timeout {
		go b.runReport(permit, outcome, policy)
		return
	}
	b.report(permit, outcome, policy, time.Now().Add(budget))
}

// mustReport reports whether Redis must be told the outcome: every failure and every probe, and a success only if it ends a
// run of failures.
func (b *Breaker) mustReport(permit Permit, outcome Outcome) bool {
	if permit.probe != 0 || outcome == Failure {
		return true
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return outcome == Success && b.machine.state == stateClosed && b.machine.failures > 0 && b.machine.generation == permit.generation
}

func (b *Breaker) runReport(permit Permit, outcome Outcome, policy *Policy) {
	defer func() { recover() }()
	b.report(permit, outcome, policy, time.Now().Add(b.Timeout))
}

// report tells Redis the outcome by the deadline. If there is no answer by then, the call is repeated in the background.
func (b *Breaker) report(permit Permit, outcome Outcome, policy *Policy, deadline time.Time) {
	call := b.reportCall(permit, tallyOf(outcome), policy)
	err := b.run(call, deadline)
	if permit.probe != 0 {
		b.expectPlace()
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

// expectPlace forgets that there was no place for a probe: one has just been given back.
func (b *Breaker) expectPlace() {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.noPlaceUntil = 0
	b.noUploadPlaceUntil = 0
}

// gatewayArg returns the id of this gateway as the scripts take it: empty, unless the number of gateways counts.
func (b *Breaker) gatewayArg(policy *Policy) string {
	if policy.own == nil {
		return ""
	}
	return b.gateway
}

func (b *Breaker) reportCall(permit Permit, t tally, policy *Policy) *store.Call {
	requestedAt := b.Now()
	call := &store.Call{Script: reportScript, Keys: b.keys, Args: withArgs(policy,
		intArg(permit.generation), intArg(permit.probe), boolArg(t.succeeded), intArg(t.run), newCallID(), t.text(), b.gatewayArg(policy))}
	call.Then = func(c *store.Call) { b.applyUnlessLost(c, requestedAt, policy) }
	return call
}
