package breaker

import (
	"strconv"
	"time"
)

// Policy says when a breaker changes its state. It does not change and may be shared. It belongs to the caller and travels
// with each call: while a new configuration spreads, two gateways use different policies on one breaker.
type Policy struct {
	failureThreshold int64
	resetTimeout     int64 // microseconds
	successThreshold int64
	maxProbes        int64
	probeTimeout     int64    // microseconds
	args             []string // the first arguments of each script
}

// NewPolicy returns a policy. failureThreshold consecutive failures open the circuit; resetTimeout later up to maxProbes
// probes pass at a time; successThreshold successful probes close the circuit, and one failed probe, or one without an
// answer after probeTimeout, opens it again. All arguments must be positive.
func NewPolicy(failureThreshold int64, resetTimeout time.Duration, successThreshold, maxProbes int64, probeTimeout time.Duration) *Policy {
	const day = 24 * time.Hour
	timeToLive := day + 2*(resetTimeout+probeTimeout)
	p := &Policy{
		failureThreshold: failureThreshold,
		resetTimeout:     resetTimeout.Microseconds(),
		successThreshold: successThreshold,
		maxProbes:        maxProbes,
		probeTimeout:     probeTimeout.Microseconds(),
	}
	for _, n := range []int64{p.failureThreshold, p.resetTimeout, p.successThreshold, p.maxProbes, p.probeTimeout, timeToLive.Milliseconds()} {
		p.args = append(p.args, strconv.FormatInt(n, 10))
	}
	return p
}
