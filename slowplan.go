package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/internal/recorder"
	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// Step 4 of requests under plans: where a route has further limits, tiers, costs or a dry run. What a request must pay follows from its
// identity and is remembered with it, so that rules are matched only once for each identity.

// maxDecisions is how many decisions a route remembers. Clients choose their identities.
const maxDecisions = 16384

// slowPlanLocked is step 4 of a request from the fast path that holds no token for all of its plan. It releases the lock.
func slowPlanLocked(m *Middleware, w http.ResponseWriter, r *http.Request, id string, now int64) {
	m.mu.Unlock()
	acquirePlan(m, &slowRequest{w: w, r: r, now: now, closed: true, closedAt: now, upload: hasBody(r)}, id)
}

// slowPlan is step 4 of a request under a plan that has passed step 2 on the slow path.
func slowPlan(m *Middleware, s *slowRequest) {
	acquirePlan(m, s, identityOf(m, s.r))
}

// acquirePlan takes what the plan of a request costs. A permit that the request needs is asked for in the same round trip.
func acquirePlan(m *Middleware, s *slowRequest, id string) {
	d := decisionOf(m, s.r, id)
	if d.Denied != "" {
		if !m.dryRun {
			refuseDenied(m, s, d.Denied)
			return
		}
		m.logRefusal("denied (dry run)", m.bucketKeyOf(s.r), 0, s.now)
		slowForward(m, s)
		return
	}
	if len(d.Plan.Draws) == 0 {
		slowForward(m, s)
		return
	}
	if m.maxDelay > 0 {
		acquireInTurn(m, s, d, id)
		return
	}
	if m.policy != nil && !s.closed {
		s.asked = m.breaker.RequestPermit(m.policy, s.upload, s.now)
		if s.asked != nil {
			defer m.breaker.CancelUnclaimed(s.asked)
		}
	}
	m.mu.Lock()
	verdict, refusal := ratelimit.AcquirePlan(m.cache, d.Plan, id, s.now)
	s.closed = m.policy == nil // else the verdict says whether it still is
	decidePlan(m, s, d, verdict, refusal)
}

// decisionOf returns the decision on a request, which it remembers.
func decisionOf(m *Middleware, r *http.Request, id string) *policy.Decision {
	m.mu.Lock()
	d := m.decisions[id]
	m.mu.Unlock()
	if d != nil {
		return d
	}
	d = m.route.Resolve(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.decisions) >= maxDecisions {
		forgetSome(m.decisions)
	}
	m.decisions[id] = d
	return d
}

// forgetSome forgets any 1/64 of the decisions.
func forgetSome(decisions map[string]*policy.Decision) {
	left := maxDecisions / 64
	for id := range decisions {
		delete(decisions, id)
		left--
		if left == 0 {
			return
		}
	}
}

// decidePlan is the end of step 4 under a plan.
func decidePlan(m *Middleware, s *slowRequest, d *policy.Decision, verdict int64, refusal ratelimit.Refusal) {
	if verdict == ratelimit.Undecided {
		if m.store != nil {
			m.logRedisError(ratelimit.LastErr(m.cache))
			if m.onError == onErrorAllow {
				slowForward(m, s)
				return
			}
			if m.onError == onErrorDeny && !m.dryRun {
				refuseUnavailable(m, s)
				return
			}
		}
		verdict, refusal = ratelimit.AcquirePlanLocal(m.cache, d.Plan, s.now)
	}
	switch {
	case verdict > 1:
		s.closed = true
		s.closedAt = verdict
	case verdict <= 0 && !m.dryRun:
		refuseByPlan(m, s, -verdict, refusal)
		return
	case verdict <= 0:
		m.logRefusal("rate limit exceeded (dry run): "+refusal.Limit, m.bucketKeyOf(s.r), 0, s.now)
		slowForward(m, s)
		return
	}
	if len(d.Charges) > 0 {
		forwardCharged(m, s, d)
		return
	}
	slowForward(m, s)
}

// refuseByPlan refuses a request because a limit has no token for it for another retryAfter microseconds.
func refuseByPlan(m *Middleware, s *slowRequest, retryAfter int64, refusal ratelimit.Refusal) {
	beforeRefusal(m, s)
	refuse(m.answers.rateLimited, s.w, s.r, seconds(retryAfter), refusal.Limit)
	m.logRefusedBy(refusal.Limit, m.bucketKeyOf(s.r), s.now)
}

// forwardCharged forwards a request that has paid limits with chargeStatus, and pays them back unless the service's answer has such a status.
// If the client has left, no answer says that the request was not to be charged, and it stays charged.
func forwardCharged(m *Middleware, s *slowRequest, d *policy.Decision) {
	writer := &recorder.Recorder{ResponseWriter: s.w}
	s.w = writer
	answered := false
	defer func() {
		if answered && s.r.Context().Err() == nil || s.refused {
			refundCharges(m, d, writer.Status, s.refused)
		}
	}()
	slowForward(m, s)
	answered = true
}

// refundCharges gives back the draws that an answer with this status does not pay.
func refundCharges(m *Middleware, d *policy.Decision, status int, refused bool) {
	if status == 0 {
		status = http.StatusOK
	}
	for _, charge := range d.Charges {
		if refused || !charge.Statuses.Contain(status) {
			ratelimit.RefundDraw(m.cache, d.Plan, charge.Draw, m.now())
		}
	}
}
