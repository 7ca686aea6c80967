package ratelimit

// EmptyPlan is what refuses the requests of one identity, found once: a flood of refused requests must cost little. The limiter's Mu guards it.
type EmptyPlan struct {
	Limit   string // that refused last
	Noted   string // the limit of which the next two fields are
	Refused int64  // requests refused since the last log entry about them
	NoteAt  int64  // when the next log entry is due

	taking *taking
	lease  *bucketLease   // that has refused alone, of a plan that costs 1 and has no penalty; nil: more must be known
	others []*bucketLease // of the plan
}

// EmptyPlanLocked returns what refuses the requests of a plan, one of which was refused. before is what was found before, or nil.
func EmptyPlanLocked(cache *Cache, plan *Plan, refusal Refusal, before *EmptyPlan, now int64) *EmptyPlan {
	e := &EmptyPlan{taking: newTaking(plan), Limit: refusal.Limit, Noted: refusal.Limit}
	if before != nil {
		e.Noted = before.Noted
		e.Refused = before.Refused
	}
	if before != nil && before.Limit == e.Limit {
		e.NoteAt = before.NoteAt
	}
	findLeasesLocked(cache, e.taking, now)
	if plan.Penalty != nil || plan.Draws[0].Cost != 1 {
		return e
	}
	for i, lease := range e.taking.leases {
		if i == refusal.Draw {
			e.lease = lease
		} else {
			e.others = append(e.others, lease)
		}
	}
	return e
}

// RefuseAgainLocked returns how long a request of the plan must wait because it is known to be refused, as AcquirePlan would; 0: it is not
// known. Limit becomes the limit that refuses; if that is another one than before, NoteAt becomes 0.
func RefuseAgainLocked(cache *Cache, e *EmptyPlan, now int64) int64 {
	lease := e.lease
	if lease == nil || lease.Tokens > 0 || now >= lease.RefuseUntil || lease.emptyLimit != e.Limit {
		return refuseByAllLocked(cache, e, now)
	}
	for _, other := range e.others {
		if now < other.NextToken {
			return refuseByAllLocked(cache, e, now)
		}
	}
	return lease.NextToken - now
}

// refuseByAllLocked is RefuseAgainLocked for a plan of which more than one lease, or a penalty, decides.
func refuseByAllLocked(cache *Cache, e *EmptyPlan, now int64) int64 {
	e.taking.client = clientOfPlanLocked(cache, e.taking.plan, now)
	wait := penalisedLocked(e.taking.client, now)
	refusal := Refusal{Limit: PenaltyName}
	if wait == 0 {
		wait, refusal = emptyLocked(e.taking, now)
		if wait == 0 {
			return 0
		}
		countRefusalLocked(cache.limiter, e.taking, refusal, now)
	}
	if refusal.Limit != e.Limit {
		e.Limit = refusal.Limit
		e.NoteAt = 0
	}
	return wait
}
