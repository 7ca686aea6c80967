package ratelimit

const (
	maxKeys    = 65536 // keys known in this process
	halfOfKeys = maxKeys / 2
)

// Known is the keys that this process knows, in two generations. What is asked for stays in the younger one. It is guarded
// by its limiter's Mu.
type Known struct {
	Young map[string]*Entry
	old   map[string]*Entry
}

func newKnown() *Known {
	return &Known{Young: map[string]*Entry{}, old: map[string]*Entry{}}
}

// get returns the entry of a key, or nil.
func get(k *Known, key string) *Entry {
	if e := k.Young[key]; e != nil {
		return e
	}
	e := k.old[key]
	if e != nil && len(k.Young) < halfOfKeys {
		k.Young[key] = e
		delete(k.old, key)
	}
	return e
}

// add adds the entry of a key. It may forget those that were not asked for lately: with a Redis, that only means to ask
// it again.
func add(k *Known, key string, e *Entry) {
	if len(k.Young) >= halfOfKeys {
		k.old = k.Young
		k.Young = map[string]*Entry{}
	}
	k.Young[key] = e
}

// addIfRoom adds the entry of a key, and forgets none but full buckets for it, which costs nobody anything. It tells
// whether there was room.
func addIfRoom(k *Known, key string, e *Entry, limit *Limit, now int64) bool {
	if len(k.Young) < halfOfKeys {
		k.Young[key] = e
		return true
	}
	if len(k.old) < halfOfKeys || dropFull(k.old, limit, now) || dropFull(k.Young, limit, now) {
		k.old[key] = e
		return true
	}
	return false
}

// dropFull forgets full buckets among a few that the map's random order brings up, and tells whether there were any.
func dropFull(some map[string]*Entry, limit *Limit, now int64) bool {
	seen, before := 0, len(some)
	for key, e := range some {
		know(e)
		if e.batch == 0 && e.bucket.refilled(limit, now) >= limit.full {
			delete(some, key)
		}
		seen++
		if seen == 16 {
			break
		}
	}
	return len(some) < before
}
