package breaker

// Outcome is how a request that passed has ended.
type Outcome int

// The outcomes of a request.
const (
	// Unknown says nothing about the upstream: the client went away, or was at fault.
	Unknown Outcome = iota
	// Success is an answer without a fault of the upstream.
	Success
	// Failure is the upstream's fault.
	Failure
	// SlowSuccess is a success that took long. With a SlowRatio it is a failure of a probe.
	SlowSuccess
	// SlowFailure is a failure that took long.
	SlowFailure
)

// judged returns the outcome of a request that is not counted in a window: there, and without ratios, only probes can be slow. In a ramp one slow
// answer of many would open the circuit, however few the ratio forbids.
func judged(outcome Outcome, permit Permit, policy *Policy) Outcome {
	if outcome == SlowFailure {
		return Failure
	}
	if outcome != SlowSuccess {
		return outcome
	}
	if permit.probe != 0 && policy.rules.SlowRatio > 0 {
		return Failure
	}
	return Success
}
