package ratelimit

// RemainingOf returns how many tokens the bucket of the limit that refused a request still holds, from how long that request must wait; -1: it
// is not known, such as of a penalty.
func RemainingOf(plan *Plan, refusal Refusal, retryAfter int64) int64 {
	if refusal.Draw >= len(plan.Draws) {
		return -1
	}
	return remainingOf(&plan.Draws[refusal.Draw], refusal.Limit, retryAfter)
}

// RemainingOfEmpty is RemainingOf for what is known to refuse a client.
func RemainingOfEmpty(e *EmptyPlan, retryAfter int64) int64 {
	for i := range e.taking.plan.Draws {
		if n := remainingOf(&e.taking.plan.Draws[i], e.Limit, retryAfter); n >= 0 {
			return n
		}
	}
	return -1
}

func remainingOf(draw *Draw, name string, retryAfter int64) int64 {
	for i, other := range draw.Levels.names {
		if other != name {
			continue
		}
		limit := draw.Levels.limits[i]
		level := draw.Cost*limit.period - retryAfter*limit.refill + limit.refill - 1 // the wait was rounded up to a microsecond
		if level < 0 {
			return 0
		}
		remaining := level / limit.period
		if remaining >= draw.Cost { // it was refused, so it holds fewer: the wait is that of a lease
			remaining = draw.Cost - 1
		}
		return remaining
	}
	return -1
}
