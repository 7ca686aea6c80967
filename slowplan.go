package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/internal/recorder"
	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// Step 4 of requests under plans: where a route has further limits, tiers, costs or a dry run. What a request must pay follows from its
// identity and is remembered with it, so that rules are matched only once for each identity.

// maxPlans is how many plans a route remembers. Clients choose their identities.
const maxPlans = 16384

// slowPlanLocked is step 4 of a request from the fast path that holds no token for all of its plan. It releases the lock.
func slowPlanLocked(m *Middleware, w http.ResponseWriter, r *http.Request, id string, now int64) {
	known := m.plans[id]
	if known == nil {
		m.mu.Unlock()
		known = planOf(m, r, id)
	} else if known.empty != nil && refuseAgainLocked(m, w, r, known.empty, now) {
		return
	} else {
		m.mu.Unlock()
	}
	acquirePlan(m, &slowRequest{w: w, r: r, now: now, closed: true, closedAt: now, upload: hasBody(r)}, known, id)
}

// slowPlan is step 4 of a request under a plan that has passed step 2 on the slow path.
func slowPlan(m *Middleware, s *slowRequest) {
	id := identityOf(m, s.r)
	acquirePlan(m, s, planOf(m, s.r, id), id)
}

// acquirePlan takes what the plan of a request costs. A permit that the request needs is asked for in the same round trip.
func acquirePlan(m *Middleware, s *slowRequest, known *knownPlan, id string) {
	d := known.decision
	if d.Denied != "" {
		if !m.dryRun {
			refuseByRule(m, s, d.Denied)
			return
		}
		s.wouldRefuse(decidedWouldLimit)
		m.logNamed(s.r, "would refuse: denied (dry run)", "rule", d.Denied, m.bucketKeyOf(s.r), 0, s.now)
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
	left := leftToShow(m)
	m.mu.Lock()
	verdict, refusal := ratelimit.AcquirePlan(m.cache, d.Plan, id, s.now, left)
	s.closed = m.policy == nil // else the verdict says whether it still is
	if verdict <= 0 && verdict != ratelimit.Undecided {
		rememberRefusal(m, known, refusal, s.now)
	}
	decidePlan(m, s, d, verdict, refusal, left)
}

// knownPlan is what a route remembers of an identity.
type knownPlan struct {
	decision *policy.Decision
	empty    *ratelimit.EmptyPlan // what has refused a request; nil: nothing, or a refusal is not that simple
}

// planOf returns the plan of a request, which it remembers.
func planOf(m *Middleware, r *http.Request, id string) *knownPlan {
	m.mu.Lock()
	known := m.plans[id]
	m.mu.Unlock()
	if known != nil {
		return known
	}
	known = &knownPlan{decision: m.route.Resolve(r)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.plans) >= maxPlans {
		forgetSome(m.plans)
	}
	m.plans[id] = known
	return known
}

// forgetSome forgets any 1/64 of the plans.
func forgetSome(plans map[string]*knownPlan) {
	left := maxPlans / 64
	for id := range plans {
		delete(plans, id)
		left--
		if left == 0 {
			return
		}
	}
}

// decidePlan is the end of step 4 under a plan.
func decidePlan(m *Middleware, s *slowRequest, d *policy.Decision, verdict int64, refusal ratelimit.Refusal, left *ratelimit.PlanLeft) {
	if verdict == ratelimit.Undecided {
		if m.store != nil {
			countFallback(m, s)
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
		left = leftToShow(m)
		verdict, refusal = ratelimit.AcquirePlanLocal(m.cache, d.Plan, s.now, left)
	}
	if verdict <= 0 && m.rates != nil {
		left = ratelimit.LeftOfRefusal(d.Plan, refusal, -verdict)
	}
	switch {
	case verdict > 1 && m.keyOfScope == nil: // it is of the middleware's own circuit
		s.closed = true
		s.closedAt = verdict
	case verdict <= 0 && !m.dryRun:
		refuseByPlan(m, s, d, -verdict, refusal, left)
		return
	case verdict <= 0:
		s.wouldRefuse(decidedWouldLimit)
		logWouldLimit(m, s, d, -verdict, refusal)
	}
	if m.countsLeft {
		setRatesOfPlan(m, s.w.Header(), d.Plan, left)
	}
	if verdict <= 0 {
		slowForward(m, s)
		return
	}
	if len(d.Charges) > 0 {
		forwardCharged(m, s, d)
		return
	}
	slowForward(m, s)
}

// refuseByRule refuses a request because a rule denies it: a tier, or missingSource of a limit's key source.
func refuseByRule(m *Middleware, s *slowRequest, rule string) {
	if m.counting {
		decide(m, decidedDenied)
	}
	beforeRefusal(m, s)
	refuse(m.answers.denied, s.w, s.r, nil, rule)
	m.logNamed(s.r, "refused: denied", "rule", rule, m.bucketKeyOf(s.r), 0, s.now)
}

// leftToShow returns where what is left is to be noted for the headers of an admitted request; nil: there are none.
func leftToShow(m *Middleware) *ratelimit.PlanLeft {
	if !m.countsLeft {
		return nil
	}
	return &ratelimit.PlanLeft{}
}

// refuseByPlan refuses a request because a limit has no token for it for another retryAfter microseconds.
func refuseByPlan(m *Middleware, s *slowRequest, d *policy.Decision, retryAfter int64, refusal ratelimit.Refusal, left *ratelimit.PlanLeft) {
	if m.counting {
		countByPlan(m, s, refusal.Limit)
	}
	beforeRefusal(m, s)
	if m.rates != nil {
		setRatesOfPlan(m, s.w.Header(), d.Plan, left)
	}
	refuse(m.answers.rateLimited, s.w, s.r, seconds(retryAfter), refusal.Limit)
	logByLimit(m, s.r, limitExceeded, refusal.Limit, ratelimit.RemainingOf(d.Plan, refusal, retryAfter), m.bucketKeyOf(s.r), 0, s.now)
}

// logWouldLimit logs that a limit would have refused a request.
func logWouldLimit(m *Middleware, s *slowRequest, d *policy.Decision, retryAfter int64, refusal ratelimit.Refusal) {
	remaining := ratelimit.RemainingOf(d.Plan, refusal, retryAfter)
	logByLimit(m, s.r, "would refuse: rate limit exceeded (dry run)", refusal.Limit, remaining, m.bucketKeyOf(s.r), 0, s.now)
}

// forwardCharged forwards a request that has paid limits with chargeStatus, and pays them back unless its answer has such a status.
func forwardCharged(m *Middleware, s *slowRequest, d *policy.Decision) {
	writer := &recorder.Recorder{ResponseWriter: s.w}
	s.w = writer
	finished := false
	defer func() { refundCharges(m, d, chargedStatus(s, writer.Status, finished)) }()
	slowForward(m, s)
	finished = true
}

// noAnswer is the status of a request whose answer charges nothing.
const noAnswer = 0

// chargedStatus returns the status that decides what a request is charged for: that of the service's answer. A panic before it is answered
// with 500. A refusal by the circuit, and a client that left without an answer, are charged for nothing.
func chargedStatus(s *slowRequest, status int, finished bool) int {
	switch {
	case s.refused:
		return noAnswer
	case status != 0:
		return status
	case s.r.Context().Err() != nil:
		return noAnswer
	case !finished:
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// refundCharges gives back the draws that an answer with this status does not pay.
func refundCharges(m *Middleware, d *policy.Decision, status int) {
	for _, charge := range d.Charges {
		if !charge.Statuses.Contain(status) {
			ratelimit.RefundDraw(m.cache, d.Plan, charge.Draw, m.now())
		}
	}
}
