package resilience

import (
	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// clientLeft is the status of a request whose client has left while it waited, as Traefik logs it. Nobody receives it.
const clientLeft = 499

// acquireInTurn is step 4 of a request that may wait for its tokens. It waits without a permit: no place for a probe is held meanwhile.
func acquireInTurn(m *Middleware, s *slowRequest, d *policy.Decision, id string) {
	turn := ratelimit.NewTurn(s.now)
	defer func() { cancelPermit(m, s) }()
	verdict, refusal := takeInTurn(m, s, d, id, turn)
	if turn.Gone {
		if m.counting {
			decide(m, decidedLeft)
		}
		beforeRefusal(m, s)
		s.w.WriteHeader(clientLeft)
		return
	}
	s.closed = m.policy == nil
	decidePlan(m, s, d, verdict, refusal, turn.Left)
}

// takeInTurn takes what the plan costs, after a wait if that is necessary and allowed. The turn says whether the client has left.
func takeInTurn(m *Middleware, s *slowRequest, d *policy.Decision, id string, turn *ratelimit.Turn) (int64, ratelimit.Refusal) {
	defer func() { ratelimit.EndTurn(m.cache, d.Plan, turn, m.now()) }()
	for {
		askPermit(m, s)
		turn.Left = leftToShow(m)
		verdict, refusal := ratelimit.AcquireInTurn(m.cache, d.Plan, id, turn, s.now)
		if verdict == ratelimit.Undecided {
			if m.store != nil && m.onError != onErrorLocal {
				return verdict, refusal
			}
			if m.store != nil {
				countFallback(m, s)
				m.logRedisError(ratelimit.LastErr(m.cache))
			}
			turn.Left = leftToShow(m)
			verdict, refusal = ratelimit.AcquireLocalInTurn(m.cache, d.Plan, turn, s.now)
		}
		if verdict > 0 {
			turn.Taken = true
			return verdict, refusal
		}
		if refusal.Limit == ratelimit.PenaltyName {
			return verdict, refusal
		}
		if retryAfter := ratelimit.JoinQueue(m.cache, d.Plan, turn, refusal, -verdict, m.now()); retryAfter > 0 {
			return -retryAfter, refusal
		}
		cancelPermit(m, s)
		ratelimit.AwaitTurn(s.r.Context(), m.cache, turn)
		if turn.Gone {
			return 0, refusal
		}
		s.now = m.now() // that was waiting for tokens, not for Redis
		recheckCircuit(m, s)
	}
}

// recheckCircuit finds out whether the circuit is still known to be closed.
func recheckCircuit(m *Middleware, s *slowRequest) {
	if m.policy == nil {
		return
	}
	at, closed := closedNow(m)
	s.closed = closed
	s.closedAt = at
}

// askPermit asks for a permit in the round trip of the tokens, unless the circuit is known to be closed.
func askPermit(m *Middleware, s *slowRequest) {
	if m.policy != nil && !s.closed {
		s.asked = m.breaker.RequestPermit(m.policy, s.upload, s.now)
	}
}

// cancelPermit gives back a place that was asked for and not claimed. A request that waits asks again.
func cancelPermit(m *Middleware, s *slowRequest) {
	if s.asked != nil {
		m.breaker.CancelUnclaimed(s.asked)
		s.asked = nil
	}
}
