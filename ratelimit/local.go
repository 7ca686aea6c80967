package ratelimit

// AllowLocal takes a token from the bucket of key in this process. It starts from the level that Redis last told of,
// less what was taken here since, or full; what is left of a lease goes first. With no room left for another key, all
// further ones share one bucket: a flood of keys must not make the limit void.
func (l *Limiter) AllowLocal(key string, limit *Limit, now int64) Decision {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	e := l.Known.get(key)
	if spend(e, limit, now) > 0 {
		return Decision{Allowed: true}
	}
	if e == nil {
		e = &Entry{Limit: limit, bucket: fullBucket(limit, now)}
		if !l.Known.addIfRoom(key, e, limit, now) {
			e = l.share(e)
		}
	}
	e.know()
	taken, level := e.take(limit, 1, now)
	if taken == 1 {
		return Decision{Allowed: true}
	}
	return Decision{RetryAfter: limit.retryAfter(level)}
}

// share returns the bucket of all keys that there is no room for: the given one, if it is the first. mu is held.
func (l *Limiter) share(first *Entry) *Entry {
	if l.shared == nil {
		l.shared = first
	}
	return l.shared
}
