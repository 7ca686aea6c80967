package ratelimit

// While Redis is not asked, a plan is decided in this process: each draw takes from the gateway's lease first, and then from the buckets that
// Redis last reported. As with one limit, tokens that this process gave out are owed to Redis (debt.go).

func acquireLocalLocked(cache *Cache, t *taking, now int64) (int64, Refusal) {
	plan := t.plan
	t.client = clientOfPlanLocked(cache, plan, now)
	if wait := penalisedLocked(t.client, now); wait > 0 {
		return -wait, Refusal{Limit: PenaltyName}
	}
	findLeasesLocked(cache, t, now)
	wait := int64(0)
	refusal := Refusal{}
	for i, lease := range t.leases {
		cost := plan.Draws[i].Cost
		if lease.Tokens >= cost && now < lease.ends {
			continue
		}
		capLevelsLocked(lease, now)
		if more, name := waitForLocked(lease, cost, now); more > wait {
			wait = more
			refusal = Refusal{Limit: name, Draw: i}
		}
	}
	if wait > 0 {
		countUndelayedLocked(cache, t, refusal, now)
		return -wait, refusal
	}
	for i, lease := range t.leases {
		takeLocalLocked(cache.limiter, lease, plan.Draws[i].Cost, now)
		if t.left != nil {
			t.left.noteBuckets(lease, now)
		}
	}
	return 1, Refusal{}
}

// capLevelsLocked is capByLeaseLocked for each level: during the lease, a level refilled in Redis only until it and the leased tokens added
// up to the capacity.
func capLevelsLocked(lease *bucketLease, now int64) {
	if lease.number == lease.cappedFor {
		return
	}
	lease.cappedFor = lease.number
	at := now
	if at > lease.ends {
		at = lease.ends
	}
	for i, limit := range lease.levels.limits {
		most := limit.full - lease.size*limit.period
		if lease.number != 0 && lease.buckets[i].bucket.refilled(limit, at) > most {
			lease.buckets[i].bucket = bucket{level: most, at: at, period: limit.period}
		}
	}
}

// waitForLocked returns how long it takes until every bucket has the cost, and which limit needs longest; 0: they have it.
func waitForLocked(lease *bucketLease, cost, now int64) (int64, string) {
	longest, name := int64(0), ""
	for i, limit := range lease.levels.limits {
		level := lease.buckets[i].bucket.refilled(limit, now)
		if wait := untilTokens(limit, level, cost); wait > longest {
			longest, name = wait, lease.levels.names[i]
		}
	}
	return longest, name
}

// untilTokens returns the microseconds until a bucket at this level has that many tokens.
func untilTokens(limit *Limit, level, tokens int64) int64 {
	missing := tokens*limit.period - level
	if missing <= 0 {
		return 0
	}
	return (missing + limit.refill - 1) / limit.refill
}

// takeLocalLocked takes the cost from the lease, or from its buckets.
func takeLocalLocked(l *Limiter, lease *bucketLease, cost, now int64) {
	if lease.Tokens >= cost && now < lease.ends {
		lease.Tokens -= cost
		return
	}
	for i, limit := range lease.levels.limits {
		lease.buckets[i].bucket.take(limit, cost, now)
	}
	if l.Store != nil {
		lease.borrowed += cost
		owedByLeaseLocked(lease, now)
	}
}

// owedByLeaseLocked returns how many tokens this process owes to a bucket value. It first writes off what time has refilled in every level.
func owedByLeaseLocked(lease *bucketLease, now int64) int64 {
	most := int64(0)
	for i, limit := range lease.levels.limits {
		missing := limit.full - lease.buckets[i].bucket.refilled(limit, now)
		if tokens := (missing + limit.period - 1) / limit.period; tokens > most {
			most = tokens
		}
	}
	if lease.borrowed-lease.repaid > most {
		lease.repaid = lease.borrowed - most
	}
	return lease.borrowed - lease.repaid
}

// refundLocalLocked puts tokens back into the levels while Redis is not asked.
func refundLocalLocked(lease *bucketLease, tokens, now int64) {
	raiseLevelsLocked(lease, tokens, now)
	lease.borrowed -= tokens
	if lease.borrowed < lease.repaid {
		lease.borrowed = lease.repaid
	}
	lease.RefuseUntil = 0
}

// raiseLevelsLocked adds tokens to what this gateway knows of the levels.
func raiseLevelsLocked(lease *bucketLease, tokens, now int64) {
	for i, limit := range lease.levels.limits {
		level := lease.buckets[i].bucket.refilled(limit, now) + tokens*limit.period
		if level > limit.full {
			level = limit.full
		}
		lease.buckets[i].bucket = bucket{level: level, at: now, period: limit.period}
	}
}
