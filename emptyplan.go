package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/ratelimit"
)

// Refusals under plans that this gateway knows of: a flood of refused clients is what a limiter is for, so that each must cost little. A
// client's first refusal takes the way of slowplan.go, which leaves here what refused it.

// limitExceeded is what the log says of a refusal by a limit.
const limitExceeded = "refused: rate limit exceeded"

// rememberRefusal notes what has refused a request.
func rememberRefusal(m *Middleware, known *knownPlan, refusal ratelimit.Refusal, now int64) {
	if m.dryRun || m.rates != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known.empty = ratelimit.EmptyPlanLocked(m.cache, known.decision.Plan, refusal, known.empty, now)
}

// refuseEmptyPlanLocked writes a refusal that is not the default one, or to a request with a body. It releases the lock.
func refuseEmptyPlanLocked(m *Middleware, w http.ResponseWriter, r *http.Request, e *ratelimit.EmptyPlan, wait int64) {
	limit := e.Limit
	m.mu.Unlock()
	if m.counting {
		decideLimited(m, limit)
	}
	refuse(m.answers.rateLimited, w, r, seconds(wait), limit)
}

// logEmptyPlanLocked logs a refusal whose log line is due, or that is by another limit than the one before. It releases the lock meanwhile.
func logEmptyPlanLocked(m *Middleware, r *http.Request, e *ratelimit.EmptyPlan, wait, now int64) {
	limit, noted, before := e.Limit, e.Noted, int(e.Refused-1)
	remaining := ratelimit.RemainingOfEmpty(e, wait)
	e.Noted = limit
	e.Refused = 0
	if !m.debug {
		e.NoteAt = now + m.noteInterval()
	}
	m.mu.Unlock()
	key := m.bucketKeyOf(r)
	if noted != limit {
		m.refusals.count(limitExceeded+" "+noted+" "+key, before)
		if m.counting && before > 0 {
			m.countRefused(noted, m.keyRefusedBy(noted, r), before, now)
		}
		before = 0
	}
	logByLimit(m, r, limitExceeded, limit, remaining, key, before, now)
	if m.counting {
		m.countRefused(limit, m.keyRefusedBy(limit, r), before+1, now)
	}
	m.mu.Lock()
}
