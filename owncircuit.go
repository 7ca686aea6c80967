package resilience

import (
	"time"

	"github.com/resilient-gateway/resilience/breaker"
)

// Where minGateways is more than one, a gateway has two circuits: the fleet's, and its own, which is kept in this process and opens by what
// this gateway alone has seen. So a gateway whose network is broken cuts off only itself. A request needs a permit of both, and both are
// told its outcome.

// ownRefusal returns for how long the gateway's own circuit refuses a request, from what is known at step 2; 0: it does not. In the fleet's ramp
// it has none: two shares together would let too few pass.
func ownRefusal(m *Middleware, s *slowRequest) time.Duration {
	if m.ownPolicy == nil || forcedClosed(m) {
		return 0
	}
	retryAfter, refused := m.ownCircuit.MustRefuse(false, s.now)
	if !refused && !m.breaker.InRamp() {
		retryAfter, refused = m.ownCircuit.RampRefuses(s.now, m.ownPolicy)
	}
	if !refused {
		return 0
	}
	m.breaker.RefreshIfStale(s.now, m.policy) // an operator may have closed the fleet's circuit
	return retryAfter
}

// forcedClosed reports whether an operator has closed the fleet's circuit: then no gateway's own one refuses.
func forcedClosed(m *Middleware) bool {
	state, _ := m.breaker.Forced()
	return state == "closed"
}

// claimOwnPermit asks the gateway's own circuit for a permit. If retryAfter is not 0, there is none.
func claimOwnPermit(m *Middleware, s *slowRequest) (permit breaker.Permit, retryAfter time.Duration) {
	if m.ownPolicy == nil || forcedClosed(m) {
		return breaker.Permit{}, 0
	}
	return m.ownCircuit.AllowLocal(m.ownPolicy, s.upload, s.now)
}

// releaseOwnPermit gives a permit back that is not used.
func releaseOwnPermit(m *Middleware, permit breaker.Permit) {
	if m.ownPolicy != nil {
		m.ownCircuit.Done(permit, breaker.Unknown, m.ownPolicy, 0)
	}
}

// reportToBoth reports an outcome to both circuits. While an operator has closed the fleet's, nothing counts for the gateway's own one either.
func reportToBoth(m *Middleware, x *exchange, outcome breaker.Outcome) {
	m.breaker.Done(x.permit, outcome, m.policy, x.budget)
	if m.ownPolicy == nil {
		return
	}
	if forcedClosed(m) {
		outcome = breaker.Unknown
	}
	m.ownCircuit.Done(x.own, outcome, m.ownPolicy, 0)
}

// isProbe reports whether a request is a probe of either circuit.
func (x *exchange) isProbe() bool { return x.permit.Probe() || x.own.Probe() }

// isUpload reports whether a request is a probe of either circuit whose body is still arriving.
func (x *exchange) isUpload() bool { return x.permit.Upload() || x.own.Upload() }
