package ratelimit

// AllowLocal takes a token without asking Redis. It spends the key's lease first, and then the key's bucket in this process. That bucket
// starts at the level that Redis last reported, minus the tokens taken here since; without a report it starts full. If the table has no
// room for another key, all further keys under one limit share one bucket: a flood of keys must not bypass the limit. AllowLocal never
// returns Undecided. It locks Mu itself.
func AllowLocal(l *Limiter, key string, limit *Limit, now int64) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return allowLocalLocked(l, key, limit, now)
}

func allowLocalLocked(l *Limiter, key string, limit *Limit, now int64) int64 {
	lease := localLeaseLocked(l, key, limit, now)
	if lease.Until < lease.ends {
		lease.Until = lease.ends // Redis cannot renew it now
	}
	if spendLocked(&lease.Grant, now) > 0 {
		return 1
	}
	assumeFullLocked(lease)
	if lease.number != lease.cappedFor {
		capByLeaseLocked(lease, now)
	}
	if l.gateways.used[key] != 0 {
		chargeStandingLocked(l, lease, key, now)
	}
	taken, level := lease.bucket.take(limit, 1, now)
	if taken == 1 {
		if l.Store != nil {
			borrowLocked(l, lease, now)
		}
		return 1
	}
	return refusal(limit, level)
}

// capByLeaseLocked corrects the bucket in this process when its lease is spent, expired or about to be returned. During the lease, the
// bucket in Redis refilled only until its level and the leased tokens added up to the capacity.
func capByLeaseLocked(lease *Lease, now int64) {
	assumeFullLocked(lease)
	lease.cappedFor = lease.number
	at := now
	if at > lease.ends {
		at = lease.ends
	}
	most := lease.limit.full - lease.size*lease.limit.period
	if lease.number != 0 && lease.bucket.refilled(lease.limit, at) > most {
		lease.bucket.level, lease.bucket.at, lease.bucket.period = most, at, lease.limit.period
	}
}

// localLeaseLocked returns a lease of the key under the limit that no batch shares: the key's own lease, or the overflow lease.
func localLeaseLocked(l *Limiter, key string, limit *Limit, now int64) *Lease {
	lease := lookupLocked(l, key)
	if lease == nil {
		lease = &Lease{limit: limit, usage: usage{prefetchedAt: now}}
		copyFromPlansLocked(l, lease, key)
		if insertIfRoomLocked(l, key, lease, now) {
			return lease
		}
		return overflowLeaseLocked(l, lease)
	}
	lease = unshareLocked(l, key, lease)
	if lease.limit == limit {
		return lease
	}
	other := changeLimitLocked(lease, limit)
	replaceLocked(l, key, lease, other)
	return other
}

// overflowLeaseLocked returns the lease that all keys share for which the table has no room, one per limit. first becomes this lease if
// its limit has none yet.
func overflowLeaseLocked(l *Limiter, first *Lease) *Lease {
	if l.overflow[first.limit] == nil {
		l.overflow[first.limit] = first
	}
	return l.overflow[first.limit]
}
