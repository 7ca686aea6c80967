package ratelimit

import "strings"

// bucketLease is what this gateway knows about one bucket value under its levels, and the tokens that it holds of it: the Lease of a draw
// of a plan. Its tokens were taken from every level. The limiter's Mu guards it.
type bucketLease struct {
	Grant   // it holds the unused tokens; Grant.Until is when they are due for renewal
	levels  *Levels
	key     string
	buckets []*knownLevel // one for each level; other leases on the same value share those of their levels

	number     int64  // of the lease in Redis; 0: none
	size       int64  // tokens that the lease began with
	cappedFor  int64  // number of the last lease for which capLevelsLocked corrected the buckets
	asking     int64  // number of the batch that asks for the next lease; 0: none
	emptyLimit string // the limit that has no token until NextToken

	borrowed, repaid int64 // as in debt
	refund           int64 // tokens to put back into Redis with the next call

	usage
}

// knownLevel is what this gateway knows about a level of a bucket value. It belongs to a key and the name of a limit, whatever the numbers of the
// limit are: a route with other limits, and a tier, draw on the same levels.
type knownLevel struct {
	bucket   bucket // as Redis last reported it; while Redis is not asked, the bucket itself
	replySeq int64  // number of the reply that last reported it
}

// bucketTable maps the keys of bucket values to their leases under one set of levels, in two generations, like table.
type bucketTable struct {
	recent, previous map[string]*bucketLease
	overflow         *bucketLease // shared by all keys for which there is no room while Redis is not asked; nil: there was room
}

// bucketTableLocked returns the table of the levels.
func bucketTableLocked(l *Limiter, levels *Levels) *bucketTable {
	table := l.bucketTables[levels]
	if table == nil {
		table = &bucketTable{recent: map[string]*bucketLease{}, previous: map[string]*bucketLease{}}
		l.bucketTables[levels] = table
	}
	return table
}

// bucketLeaseLocked returns the lease of a key under the levels. It makes one if there is none, and may drop leases that were not used
// recently: with Redis that costs another call for each.
func bucketLeaseLocked(l *Limiter, levels *Levels, key string, now int64) *bucketLease {
	table := bucketTableLocked(l, levels)
	if lease := knownLeaseLocked(table, key); lease != nil {
		return lease
	}
	lease := newBucketLeaseLocked(l, levels, key, now)
	if l.Unavailable.Load() {
		return localRoomLocked(table, lease, now)
	}
	if len(table.recent) >= halfOfKeys {
		table.previous = table.recent
		table.recent = map[string]*bucketLease{}
	}
	table.recent[key] = lease
	return lease
}

// knownLeaseLocked returns the lease of a key, or nil.
func knownLeaseLocked(table *bucketTable, key string) *bucketLease {
	if lease := table.recent[key]; lease != nil {
		return lease
	}
	lease := table.previous[key]
	if lease != nil && len(table.recent) < halfOfKeys {
		table.recent[key] = lease
		delete(table.previous, key)
	}
	return lease
}

// newBucketLeaseLocked returns a lease with the levels that this gateway knows of the key, and full ones for the others.
func newBucketLeaseLocked(l *Limiter, levels *Levels, key string, now int64) *bucketLease {
	lease := &bucketLease{levels: levels, key: key, buckets: make([]*knownLevel, len(levels.limits)), usage: usage{prefetchedAt: now}}
	for _, table := range l.bucketTables {
		other := table.recent[key]
		if other == nil {
			other = table.previous[key]
		}
		if other != nil {
			shareLevels(lease, other)
		}
	}
	for i, limit := range levels.limits {
		if lease.buckets[i] == nil {
			lease.buckets[i] = &knownLevel{bucket: bucket{level: limit.full, at: now, period: limit.period}}
			if levels.names[i] == OwnLimit {
				copyOwnLocked(l, lease.buckets[i], key)
			}
		}
	}
	return lease
}

// shareLevels lets a lease share the levels that another one has on the same value.
func shareLevels(lease, other *bucketLease) {
	for i, name := range lease.levels.names {
		for n, otherName := range other.levels.names {
			if name == otherName {
				lease.buckets[i] = other.buckets[n]
			}
		}
	}
	emptyAsLocked(lease, other)
}

// emptyAsLocked notes that a lease has an empty level, if it is one of those that it shares with another lease.
func emptyAsLocked(lease, other *bucketLease) {
	if other.RefuseUntil == 0 || lease.NextToken >= other.NextToken {
		return
	}
	for _, name := range lease.levels.names {
		if name == other.emptyLimit {
			lease.NextToken = other.NextToken
			lease.RefuseUntil = other.RefuseUntil
			lease.emptyLimit = name
		}
	}
}

// copyOwnLocked copies what a route without further limits knows of the block's own limit: a reload that adds limits fills no bucket.
func copyOwnLocked(l *Limiter, known *knownLevel, key string) {
	if !strings.HasPrefix(key, ownPrefix) {
		return
	}
	lease := lookupLocked(l, key[len(ownPrefix):])
	if lease != nil && lease.bucket.period != 0 {
		known.bucket = lease.bucket
	}
}

// copyFromPlansLocked is copyOwnLocked the other way round.
func copyFromPlansLocked(l *Limiter, lease *Lease, key string) {
	for levels, table := range l.bucketTables {
		other := table.recent[ownPrefix+key]
		if other == nil {
			other = table.previous[ownPrefix+key]
		}
		if other == nil {
			continue
		}
		for i, name := range levels.names {
			if name == OwnLimit {
				lease.bucket = other.buckets[i].bucket
			}
		}
	}
}

// ownPrefix is what a plan's keys of the block's own limit have before the keys of a route without plans.
const ownPrefix = "bucket:"

// localRoomLocked adds a lease while Redis is not asked. It drops only leases of full buckets, which changes nothing for any client. If there
// is no room, all further keys share one lease: a flood of keys must not bypass the limits.
func localRoomLocked(table *bucketTable, lease *bucketLease, now int64) *bucketLease {
	if len(table.recent) < halfOfKeys {
		table.recent[lease.key] = lease
		return lease
	}
	if len(table.previous) < halfOfKeys || dropFullLocked(table.previous, now) || dropFullLocked(table.recent, now) {
		table.previous[lease.key] = lease
		return lease
	}
	if table.overflow == nil {
		table.overflow = lease
	}
	return table.overflow
}

// dropFullLocked examines 16 leases in the map's random order and drops those whose buckets are full. It reports whether it dropped any.
func dropFullLocked(leases map[string]*bucketLease, now int64) bool {
	seen, before := 0, len(leases)
	for key, lease := range leases {
		if isFullLocked(lease, now) {
			delete(leases, key)
		}
		seen++
		if seen == 16 {
			break
		}
	}
	return len(leases) < before
}

func isFullLocked(lease *bucketLease, now int64) bool {
	if lease.asking != 0 || lease.Tokens > 0 && now < lease.ends {
		return false
	}
	for i, limit := range lease.levels.limits {
		if lease.buckets[i].bucket.refilled(limit, now) < limit.full {
			return false
		}
	}
	return true
}
