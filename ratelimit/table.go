package ratelimit

const (
	maxKeys    = 65536 // most keys in the table, in both generations together
	halfOfKeys = maxKeys / 2
)

// table maps the buckets' keys to their leases, in two generations. A lookup moves a lease to the recent generation. When that holds half
// of maxKeys, the table drops the previous generation. With Redis this costs only another call for each key. The limiter's Mu guards it.
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

// unshareLocked returns the key's own lease. If the given lease is common, it copies it and stores the copy for the key.
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

// insertLocked adds the lease of a new key. It may drop the leases of keys that were not used recently.
func insertLocked(l *Limiter, key string, lease *Lease) {
	if len(l.recent) >= halfOfKeys {
		rotateLocked(l)
	}
	l.recent[key] = lease
}

// rotateLocked drops the previous generation and starts a new one.
func rotateLocked(l *Limiter) {
	l.previous = l.recent
	l.recent = make(map[string]*Lease, halfOfKeys) // growing the map would cost a tenth of what a new key costs
}

// insertIfRoomLocked adds the lease of a new key while Redis is not asked. It only drops full buckets, which changes nothing for any
// client. It reports whether the table had room.
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

// evictFullLocked examines 16 leases in the map's random order and removes those whose buckets are full under their own limits. It reports
// whether it removed any.
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
