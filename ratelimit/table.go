package ratelimit

const (
	maxKeys    = 65536 // keys known in this process
	halfOfKeys = maxKeys / 2
)

// known is the keys that this process knows, in two generations. What is asked for stays in the younger one. The limiter's lock
// guards it.
type table struct {
	recent, previous map[string]*Grant
}

func newTable() table {
	return table{recent: map[string]*Grant{}, previous: map[string]*Grant{}}
}

// get returns the entry of a key, or nil.
func lookup(l *Limiter, key string) *Grant {
	if e := l.recent[key]; e != nil {
		return e
	}
	e := l.previous[key]
	if e != nil && len(l.recent) < halfOfKeys {
		l.recent[key] = e
		delete(l.previous, key)
	}
	return e
}

// own returns the entry of a key for what is to be noted of that key alone. mu is held.
func unshare(l *Limiter, key string, e *Grant) *Grant {
	if !e.common {
		return e
	}
	other := *e
	other.common = false
	replace(l, key, e, &other)
	return &other
}

// replace puts another entry where that of a key is, which is known. mu is held.
func replace(l *Limiter, key string, e, other *Grant) {
	if l.recent[key] == e {
		l.recent[key] = other
	} else {
		l.previous[key] = other
	}
}

// add adds the entry of a key. It may forget those that were not asked for lately: with a Redis, that only means to ask
// it again.
func insert(l *Limiter, key string, e *Grant) {
	if len(l.recent) >= halfOfKeys {
		rotate(l)
	}
	l.recent[key] = e
}

// forget forgets the older generation, and begins another one.
func rotate(l *Limiter) {
	l.previous = l.recent
	l.recent = make(map[string]*Grant, halfOfKeys) // to grow costs a tenth of what a new key does
}

// addIfRoom adds the entry of a key, and forgets none but full buckets for it, which costs nobody anything. It tells
// whether there was room.
func insertIfRoom(l *Limiter, key string, e *Grant, now int64) bool {
	if len(l.recent) < halfOfKeys {
		l.recent[key] = e
		return true
	}
	if len(l.previous) < halfOfKeys || evictFull(l.previous, now) || evictFull(l.recent, now) {
		l.previous[key] = e
		return true
	}
	return false
}

// dropFull forgets full buckets among a few that the map's random order brings up, and tells whether there were any. Each is full by
// its own limit.
func evictFull(some map[string]*Grant, now int64) bool {
	seen, before := 0, len(some)
	for key, e := range some {
		assumeFull(e)
		if e.prefetchBatch == 0 && e.bucket.refilled(e.Limit, now) >= e.Limit.full {
			delete(some, key)
		}
		seen++
		if seen == 16 {
			break
		}
	}
	return len(some) < before
}
