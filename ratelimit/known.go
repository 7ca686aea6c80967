package ratelimit

const (
	maxKeys    = 65536 // keys known in this process
	halfOfKeys = maxKeys / 2
)

// known is the keys that this process knows, in two generations. What is asked for stays in the younger one. The limiter's lock
// guards it.
type known struct {
	young, old map[string]*Entry
}

func newKnown() known {
	return known{young: map[string]*Entry{}, old: map[string]*Entry{}}
}

// get returns the entry of a key, or nil.
func get(l *Limiter, key string) *Entry {
	if e := l.young[key]; e != nil {
		return e
	}
	e := l.old[key]
	if e != nil && len(l.young) < halfOfKeys {
		l.young[key] = e
		delete(l.old, key)
	}
	return e
}

// own returns the entry of a key for what is to be noted of that key alone. mu is held.
func own(l *Limiter, key string, e *Entry) *Entry {
	if !e.first {
		return e
	}
	other := *e
	other.first = false
	replace(l, key, e, &other)
	return &other
}

// replace puts another entry where that of a key is, which is known. mu is held.
func replace(l *Limiter, key string, e, other *Entry) {
	if l.young[key] == e {
		l.young[key] = other
	} else {
		l.old[key] = other
	}
}

// add adds the entry of a key. It may forget those that were not asked for lately: with a Redis, that only means to ask
// it again.
func add(l *Limiter, key string, e *Entry) {
	if len(l.young) >= halfOfKeys {
		forget(l)
	}
	l.young[key] = e
}

// forget forgets the older generation, and begins another one.
func forget(l *Limiter) {
	l.old = l.young
	l.young = make(map[string]*Entry, halfOfKeys) // to grow costs a tenth of what a new key does
}

// addIfRoom adds the entry of a key, and forgets none but full buckets for it, which costs nobody anything. It tells
// whether there was room.
func addIfRoom(l *Limiter, key string, e *Entry, now int64) bool {
	if len(l.young) < halfOfKeys {
		l.young[key] = e
		return true
	}
	if len(l.old) < halfOfKeys || dropFull(l.old, now) || dropFull(l.young, now) {
		l.old[key] = e
		return true
	}
	return false
}

// dropFull forgets full buckets among a few that the map's random order brings up, and tells whether there were any. Each is full by
// its own limit.
func dropFull(some map[string]*Entry, now int64) bool {
	seen, before := 0, len(some)
	for key, e := range some {
		know(e)
		if e.batch == 0 && e.bucket.refilled(e.Limit, now) >= e.Limit.full {
			delete(some, key)
		}
		seen++
		if seen == 16 {
			break
		}
	}
	return len(some) < before
}
