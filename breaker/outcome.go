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
)

// failuresOf returns how many failures an outcome counts as.
func failuresOf(outcome Outcome) int64 {
	if outcome == Failure {
		return 1
	}
	return 0
}
