package ratelimit

// AllowLocal takes a token from the bucket of the key in this process. That bucket begins with the level that Redis last reported, less
// what was taken here since, or full; what is left of a lease is spent first. When there is no room for another key, all further keys
// under one limit share one bucket: a flood of keys must not make the limit void. It never returns Undecided, and takes Mu itself.
func AllowLocal(l *Limiter, key string, limit *Limit, now int64) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return allowLocalLocked(l, key, limit, now)
}

func allowLocalLocked(l *Limiter, key string, limit *Limit, now int64) int64 {
	lease := localLeaseLocked(l, key, limit, now)
	if lease.Until < lease.ends {
		lease.Until = lease.ends // it cannot be renewed now
	}
	if spendLocked(&lease.Grant, now) > 0 {
		return 1
	}
	assumeFullLocked(lease)
	if lease.number != lease.cappedFor {
		capByLeaseLocked(lease, now)
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

// capByLeaseLocked corrects the bucket here for the lease that is spent, over, or about to be returned: while the lease was out, time refilled
// the bucket in Redis only to where its level and the lease made the capacity. Mu must be held.
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

// localLeaseLocked returns the lease of a key, its own and under the limit. Mu must be held.
func localLeaseLocked(l *Limiter, key string, limit *Limit, now int64) *Lease {
	lease := lookupLocked(l, key)
	if lease == nil {
		lease = &Lease{Grant: Grant{Plan: planOfLocked(l, limit)}, limit: limit, usage: usage{prefetchedAt: now}}
		if insertIfRoomLocked(l, key, lease, now) {
			return lease
		}
		return overflowLeaseLocked(l, lease)
	}
	lease = unshareLocked(l, key, lease)
	if lease.limit == limit {
		return lease
	}
	other := changeLimitLocked(l, lease, limit)
	replaceLocked(l, key, lease, other)
	return other
}

// overflowLeaseLocked returns the lease of all keys under a limit that there is no room for: the given one, if it is the first of these.
// Mu must be held.
func overflowLeaseLocked(l *Limiter, first *Lease) *Lease {
	if l.overflow[first.limit] == nil {
		l.overflow[first.limit] = first
	}
	return l.overflow[first.limit]
}
