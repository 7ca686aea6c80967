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
	e := localEntry(l, key, limit, now)
	if e.Until < e.ends {
		e.Until = e.ends // nobody renews it now
	}
	if spend(e, limit, now) > 0 {
		return 1
	}
	know(e)
	if e.lease != e.minded {
		mindLease(e, now)
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
func mindLease(e *Entry, now int64) {
	know(e)
	e.minded = e.lease
	at := now
	if at > e.ends {
		at = e.ends
	}
	most := e.Limit.full - e.leased*e.Limit.period
	if e.lease != 0 && e.bucket.refilled(e.Limit, at) > most {
		e.bucket.level, e.bucket.at, e.bucket.period = most, at, e.Limit.period
	}
}

// localEntry returns the entry of a key, under the limit, for what is to be noted of that key alone. mu is held.
func localEntry(l *Limiter, key string, limit *Limit, now int64) *Entry {
	e := get(l, key)
	if e == nil {
		e = &Entry{Limit: limit, asked: now}
		if addIfRoom(l, key, e, now) {
			return e
		}
		return share(l, e)
	}
	e = own(l, key, e)
	if e.Limit == limit {
		return e
	}
	other := pass(e, limit)
	replace(l, key, e, other)
	return other
}

// share returns the bucket of all keys under a limit that there is no room for: the given one, if it is the first. mu is held.
func share(l *Limiter, first *Entry) *Entry {
	if l.shared[first.Limit] == nil {
		l.shared[first.Limit] = first
	}
	return l.shared[first.Limit]
}
