package breaker

import (
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Outcome is what became of a request that was let through.
type Outcome int

// The outcomes of a request.
const (
	// Unknown says nothing about the upstream: the client went away.
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

func (b *Breaker) report(permit Permit, outcome Outcome, policy *Policy, deadline time.Time) {
	asked := b.Now()
	args := make([]string, 0, len(policy.args)+4)
	args = append(args, policy.args...)
	args = append(args, digits(permit.generation), digits(permit.probe), flag(outcome == Success), flag(outcome == Failure))
	call := &store.Call{Script: reportScript, Keys: b.keys, Args: args, Once: true}
	call.Then = func(c *store.Call) { b.learn(c, asked) }
	err := b.run(call, deadline)
	if permit.probe != 0 {
		b.Mu.Lock()
		b.full = 0
		b.Mu.Unlock()
	}
	if err != nil {
		b.doneLocal(permit, outcome, policy)
	}
}
