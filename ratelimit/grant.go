package ratelimit

// Grant is what requests of one identity may do without asking Redis. All identities with the same plan and the same bucket share it.
// The limiter's Mu guards it. The exported fields are what the fast path needs: a request may pass while Tokens > 0 and now < Until, and
// takes a token then; otherwise it is refused while now < RefuseUntil.
type Grant struct {
	Tokens      int64 // requests that may still pass
	Until       int64 // when the tokens are to be renewed, or end
	RefuseUntil int64 // until then the bucket is taken to be empty
	NextToken   int64 // when the bucket has a token again

	Refused int64 // requests since they were last noted in the log
	NoteAt  int64 // when the next note is due

	Plan *Plan // what each request pays

	ends     int64 // when the tokens end
	renewing bool  // the lease is on the list of those to be renewed
}

// Plan is what requests of one identity must pay. It does not change and may be shared.
type Plan struct {
	Draws []Draw
}

// Draw is a token of the identity's own bucket under one limit.
type Draw struct {
	Limit *Limit
}

// planOfLocked returns the plan that draws on one limit: the same one each time. Mu must be held.
func planOfLocked(l *Limiter, limit *Limit) *Plan {
	if l.plans[limit] == nil {
		l.plans[limit] = &Plan{Draws: []Draw{{Limit: limit}}}
	}
	return l.plans[limit]
}

// spendLocked decides by a grant alone, as AllowCached does.
func spendLocked(g *Grant, now int64) int64 {
	if g.Tokens > 0 && now < g.Until {
		g.Tokens--
		return 1
	}
	if now < g.RefuseUntil {
		return now - g.NextToken
	}
	return 0
}
