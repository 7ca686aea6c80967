package ratelimit

// AllowLocal takes a token from the bucket of key in this process. It starts from the level that Redis last told of,
// less what was taken here since, or full; what is left of a lease goes first. With no room left for another key, all
// further ones share one bucket: a flood of keys must not make the limit void.
func AllowLocal(l *Limiter, key string, limit *Limit, now int64) int64 {
	l.Mu.Lock()
	verdict := allowLocal(l, key, limit, now)
	l.Mu.Unlock()
	return verdict
}

// allowLocal is AllowLocal. mu is held.
func allowLocal(l *Limiter, key string, limit *Limit, now int64) int64 {
	e := get(l, key)
	if e != nil && e.Until < e.ends {
		e.Until = e.ends // nobody renews it now
	}
	if spend(e, limit, now) > 0 {
		return 1
	}
	if e == nil {
		e = &Entry{Limit: limit, asked: now}
		if !addIfRoom(l, key, e, limit, now) {
			e = share(l, e)
		}
	}
	e = own(l, key, e)
	know(e)
	taken, level := e.bucket.take(limit, 1, now)
	if taken == 1 {
		return 1
	}
	return refusal(limit, level)
}

// share returns the bucket of all keys that there is no room for: the given one, if it is the first. mu is held.
func share(l *Limiter, first *Entry) *Entry {
	if l.shared == nil {
		l.shared = first
	}
	return l.shared
}
