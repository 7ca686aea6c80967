package ratelimit

// Grant is what requests of one identity may do without asking Redis. All identities with the same plan and the same bucket share it.
// The limiter's Mu guards it.
//
// The fast path uses the exported fields: while Tokens > 0 and now < Until, a request takes a token and passes. Otherwise, while
// now < RefuseUntil, it is refused.
type Grant struct {
	Tokens      int64 // requests that may still pass
	Until       int64 // when the tokens must be renewed or end
	RefuseUntil int64 // until when the bucket counts as empty
	NextToken   int64 // when the bucket has a token again

	Refused int64 // requests refused since the last log entry about them
	NoteAt  int64 // when the next log entry is due

	ends     int64 // when the tokens end
	renewing bool  // the lease is on the list of renewals
}

// spendLocked decides by the grant alone and returns AllowCached's verdict.
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
