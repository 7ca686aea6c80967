package ratelimit

// knownBucket is what this process knows of a bucket.
type knownBucket struct {
	bucket
	heard int64 // the number of the answer that told of it
}

// AllowLocal takes a token from the bucket of key in this process. It starts from the level that Redis last told of,
// less what was taken here since, or full.
func (l *Limiter) AllowLocal(key string, limit *Limit, now int64) Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken, level := l.find(key, limit, now).take(limit, 1, now)
	if taken == 1 {
		return Decision{Allowed: true}
	}
	return Decision{RetryAfter: limit.retryAfter(level)}
}

// find returns the bucket of key, making it where there is none. With no room left for another, all further keys share
// one bucket: a flood of keys must not make the limit void. mu is held.
func (l *Limiter) find(key string, limit *Limit, now int64) *knownBucket {
	if b := l.known[key]; b != nil {
		return b
	}
	b := &knownBucket{bucket: fullBucket(limit, now)}
	if len(l.known) >= maxKeys && !l.forgetFull(limit, now) {
		if l.shared == nil {
			l.shared = b
		}
		return l.shared
	}
	l.known[key] = b
	return b
}

// remember notes the level that Redis told of in answer to a call that was sent when so many answers had been heard. Calls
// overtake each other: of two that were under way at once, the lower level is the later. mu is held.
func (l *Limiter) remember(key string, limit *Limit, level, now, sent int64) {
	b := l.known[key]
	if b == nil {
		if len(l.known) >= maxKeys && !l.forgetFull(limit, now) {
			return
		}
		b = &knownBucket{}
		l.known[key] = b
	}
	if b.heard > sent && b.period == limit.period && b.level < level {
		return
	}
	b.level, b.at, b.period = level, now, limit.period
	b.heard = l.heard
}

// forgetFull makes room by forgetting buckets that have filled up, which costs nobody anything, and tells whether it
// found any. It looks at a part of them each time, in the map's random order. mu is held.
func (l *Limiter) forgetFull(limit *Limit, now int64) bool {
	const some = 16
	seen, before := 0, len(l.known)
	for key, b := range l.known {
		if b.refilled(limit, now) >= limit.full {
			delete(l.known, key)
		}
		seen++
		if seen == some {
			break
		}
	}
	return len(l.known) < before
}
