package ratelimit

// AllowLocal takes a token from the bucket of key in this process. It starts from the level that Redis last told of,
// less what was taken here since, or full; what is left of a lease goes first. With no room left for another key, all
// further ones under one limit share one bucket: a flood of keys must not make the limit void.
func AllowLocal(l *Limiter, key string, limit *Limit, now int64) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return allowLocal(l, key, limit, now)
}

// allowLocal is AllowLocal. mu is held.
func allowLocal(l *Limiter, key string, limit *Limit, now int64) int64 {
	e := localGrant(l, key, limit, now)
	if e.Until < e.leaseEnds {
		e.Until = e.leaseEnds // nobody renews it now
	}
	if spendLocked(e, limit, now) > 0 {
		return 1
	}
	assumeFull(e)
	if e.leaseNumber != e.cappedFor {
		capByLease(e, now)
	}
	taken, level := e.bucket.take(limit, 1, now)
	if taken == 1 {
		if l.Store != nil {
			borrow(l, e, now)
		}
		return 1
	}
	return refusal(limit, level)
}

// mindLease keeps the bucket in this process from having been full while its lease was out: in Redis, time refilled it no further than
// to where its level and the lease made the capacity. The lease is spent, or over, or about to be. mu is held.
func capByLease(e *Grant, now int64) {
	assumeFull(e)
	e.cappedFor = e.leaseNumber
	at := now
	if at > e.leaseEnds {
		at = e.leaseEnds
	}
	most := e.Limit.full - e.leaseTokens*e.Limit.period
	if e.leaseNumber != 0 && e.bucket.refilled(e.Limit, at) > most {
		e.bucket.level, e.bucket.at, e.bucket.period = most, at, e.Limit.period
	}
}

// localEntry returns the entry of a key, under the limit, for what is to be noted of that key alone. mu is held.
func localGrant(l *Limiter, key string, limit *Limit, now int64) *Grant {
	e := lookup(l, key)
	if e == nil {
		e = &Grant{Limit: limit, prefetchedAt: now}
		if insertIfRoom(l, key, e, now) {
			return e
		}
		return overflowGrant(l, e)
	}
	e = unshare(l, key, e)
	if e.Limit == limit {
		return e
	}
	other := changeLimit(e, limit)
	replace(l, key, e, other)
	return other
}

// share returns the bucket of all keys under a limit that there is no room for: the given one, if it is the first. mu is held.
func overflowGrant(l *Limiter, first *Grant) *Grant {
	if l.overflow[first.Limit] == nil {
		l.overflow[first.Limit] = first
	}
	return l.overflow[first.Limit]
}
