package ratelimit

const (
	maxKeys    = 65536 // whose leases are kept in this process
	halfOfKeys = maxKeys / 2
)

// table holds the leases by their buckets' keys, in two generations. What is asked for moves to the recent one; when that is half of
// maxKeys, the previous one is forgotten: with a Redis that only means to ask it again. The limiter's Mu guards it.
type table struct {
	recent, previous map[string]*Lease
}

func newTable() table {
	return table{recent: map[string]*Lease{}, previous: map[string]*Lease{}}
}

// lookupLocked returns the lease of a key, or nil.
func lookupLocked(l *Limiter, key string) *Lease {
	if lease := l.recent[key]; lease != nil {
		return lease
	}
	lease := l.previous[key]
	if lease != nil && len(l.recent) < halfOfKeys {
		l.recent[key] = lease
		delete(l.previous, key)
	}
	return lease
}

// unshareLocked returns the lease of a key, made the key's own if it is common, to hold what is known of that key alone.
func unshareLocked(l *Limiter, key string, lease *Lease) *Lease {
	if !lease.common {
		return lease
	}
	other := *lease
	other.common = false
	other.requests = 1
	replaceLocked(l, key, lease, &other)
	return &other
}

// replaceLocked replaces the lease of a key.
func replaceLocked(l *Limiter, key string, lease, other *Lease) {
	if l.recent[key] == lease {
		l.recent[key] = other
	} else {
		l.previous[key] = other
	}
}

// insertLocked adds the lease of a new key. It may forget those that were not asked for lately.
func insertLocked(l *Limiter, key string, lease *Lease) {
	if len(l.recent) >= halfOfKeys {
		rotateLocked(l)
	}
	l.recent[key] = lease
}

// rotateLocked forgets the previous generation, and begins another one.
func rotateLocked(l *Limiter) {
	l.previous = l.recent
	l.recent = make(map[string]*Lease, halfOfKeys) // growing it would cost a tenth of what a new key does
}

// insertIfRoomLocked adds the lease of a new key without a Redis that would know the others: it only forgets full buckets, which costs no client
// anything. It reports whether there was room.
func insertIfRoomLocked(l *Limiter, key string, lease *Lease, now int64) bool {
	if len(l.recent) < halfOfKeys {
		l.recent[key] = lease
		return true
	}
	if len(l.previous) < halfOfKeys || evictFullLocked(l.previous, now) || evictFullLocked(l.recent, now) {
		l.previous[key] = lease
		return true
	}
	return false
}

// evictFullLocked removes the full buckets among 16 that the map's random order brings up, and reports whether there were any. Each is full by
// its own limit.
func evictFullLocked(leases map[string]*Lease, now int64) bool {
	seen, before := 0, len(leases)
	for key, lease := range leases {
		assumeFullLocked(lease)
		if lease.prefetchBatch == 0 && lease.bucket.refilled(lease.limit, now) >= lease.limit.full {
			delete(leases, key)
		}
		seen++
		if seen == 16 {
			break
		}
	}
	return len(leases) < before
}
