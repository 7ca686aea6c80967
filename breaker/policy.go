package breaker

import (
	"strconv"
	"time"
)

// Policy says when a breaker changes its state. It belongs to the caller and travels with each call: two gateways may use
// different ones on one breaker for as long as a change of configuration takes to reach both.
type Policy struct {
	failureThreshold int64
	resetTimeout     int64 // microseconds
	successThreshold int64
	maxProbes        int64
	probeTimeout     int64 // microseconds
	args             []string
}

// NewPolicy returns the policy under which failureThreshold failures in a row open the breaker, resetTimeout later
// maxProbes probes at once may pass, successThreshold successes of them close it, and one failure, or a probe without an
// answer after probeTimeout, opens it again. All are positive.
func NewPolicy(failureThreshold int64, resetTimeout time.Duration, successThreshold, maxProbes int64, probeTimeout time.Duration) *Policy {
	const day = 24 * time.Hour
	keep := day + 2*(resetTimeout+probeTimeout)
	p := &Policy{
		failureThreshold: failureThreshold,
		resetTimeout:     resetTimeout.Microseconds(),
		successThreshold: successThreshold,
		maxProbes:        maxProbes,
		probeTimeout:     probeTimeout.Microseconds(),
	}
	for _, n := range []int64{p.failureThreshold, p.resetTimeout, p.successThreshold, p.maxProbes, p.probeTimeout, keep.Milliseconds()} {
		p.args = append(p.args, strconv.FormatInt(n, 10))
	}
	return p
}
