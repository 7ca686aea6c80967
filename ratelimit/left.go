package ratelimit

import "github.com/resilient-gateway/resilience/internal/store"

// Left is a lower bound of what a client may still do, as far as this gateway knows: other gateways may know of more.
type Left struct {
	NearlyFull bool // the bucket has at least what SetNearlyFull says; the other fields are not set
	Known      bool
	Tokens     int64
	Next       int64 // microseconds until another token, at most
	Full       int64 // microseconds until the bucket is full, at most
}

// setLeft says what is left of a bucket at a level.
func setLeft(left *Left, limit *Limit, level int64) {
	if level < 0 {
		level = 0
	}
	left.Known = true
	left.Tokens = level / limit.period
	left.Next = (limit.period - level%limit.period + limit.refill - 1) / limit.refill
	left.Full = (limit.full - level + limit.refill - 1) / limit.refill
}

// RestTime returns the microseconds in which a bucket with one token fills.
func RestTime(limit *Limit) int64 {
	return (limit.full - limit.period + limit.refill - 1) / limit.refill
}

// Capacity returns the tokens of a full bucket.
func Capacity(limit *Limit) int64 { return limit.full / limit.period }

// FillTime returns the microseconds in which an empty bucket fills.
func FillTime(limit *Limit) int64 { return (limit.full + limit.refill - 1) / limit.refill }

// SetNearlyFull says what is left of a bucket of which Redis reports no more than that it is nearly full.
func SetNearlyFull(left *Left, limit *Limit) { setLeft(left, limit, limit.full/8*nearlyFull) }

// MaxLeftOfGrant is the greatest number of tokens that SetLeftOfGrant reports. A middleware prepares what it tells clients, for each number.
const MaxLeftOfGrant = 4096

// SetLeftOfGrant says what is left of a grant with a number of tokens. The bucket may hold more, but other gateways may have taken those.
func SetLeftOfGrant(left *Left, limit *Limit, tokens int64) {
	if tokens > MaxLeftOfGrant {
		tokens = MaxLeftOfGrant
	}
	setLeft(left, limit, tokens*limit.period)
}

// AllowCachedCounted is AllowCached that also says what is left of the grant.
func AllowCachedCounted(cache *Cache, id string, now int64, left *Left) int64 {
	cache.lock.Lock()
	verdict, tokens := int64(0), int64(0)
	if g := cache.Grants[id]; g != nil {
		verdict = spendLocked(g, now)
		tokens = g.Tokens
	}
	cache.lock.Unlock()
	if verdict > 0 {
		SetLeftOfGrant(left, cache.limit, tokens)
	}
	return verdict
}

// AllowCounted is Allow that also says what is left. Redis reports it to the request that asks.
func AllowCounted(cache *Cache, id string, now int64, left *Left) int64 {
	key := bucketKey(cache, id)
	cache.lock.Lock()
	if g := cache.Grants[id]; g != nil {
		if verdict := allowByGrantLocked(cache, g, key, now, left); verdict != 0 {
			return verdict
		}
	}
	if lease := lookupLocked(cache.limiter, key); lease != nil {
		tokens := lease.Tokens - 1
		if verdict := allowByLeaseLocked(cache, lease, id, key, now); verdict != 0 {
			SetLeftOfGrant(left, cache.limit, tokens)
			return verdict
		}
	}
	b, place := joinByKeyLocked(cache, key, now)
	if b == nil {
		return orUndecided(cache, 0, store.ErrUnavailable)
	}
	b.done.Wait()
	verdict, err := verdictAt(b, place)
	if err == nil {
		verdict = countReply(cache, b, place, key, verdict, left)
	}
	return orUndecided(cache, verdict, err)
}

// AllowIDCounted is AllowID that also says what is left. Mu must be held; AllowIDCounted releases it.
func AllowIDCounted(cache *Cache, id string, now int64, left *Left) int64 {
	if len(id) > cache.maxJoinLen {
		cache.lock.Unlock()
		return AllowCounted(cache, id, now, left)
	}
	b := cache.openBatch
	if now >= b.sendAt {
		if cannotJoinLocked(cache, now) {
			cache.lock.Unlock()
			return AllowCounted(cache, id, now, left)
		}
	}
	//lint:ignore S1021 the interpreter allocates twice for :=
	var place int
	place = len(b.ids)
	b.ids = append(b.ids, id)
	if place >= b.lastPlace {
		sealLocked(b)
	}
	cache.lock.Unlock()
	b.done.Wait()
	if b.allGranted {
		if b.borrowedTotal == 0 {
			left.NearlyFull = true // of most requests that ask, and the least that they cost
			return b.grantedAt
		}
	}
	return verdictOfIDCounted(cache, b, place, id, left)
}

// verdictOfIDCounted is verdictOfID that also says what is left.
func verdictOfIDCounted(cache *Cache, b *batch, place int, id string, left *Left) int64 {
	place += len(b.keys) - len(b.ids)
	verdict, err := verdictAt(b, place)
	if err == nil {
		verdict = countReply(cache, b, place, bucketKey(cache, id), verdict, left)
	}
	return orUndecided(cache, verdict, err)
}

// lastToken passes a request that Redis has refused by the standing token of its bucket, if that is whole: it is the last token. Other requests
// of clients that are told what is left do not use it, because it does not say what is left. It returns the verdict.
func lastToken(cache *Cache, key string, verdict int64, left *Left) int64 {
	now := cache.limiter.Now()
	cache.lock.Lock()
	if !useStandingLocked(cache, key, now) {
		cache.lock.Unlock()
		return verdict
	}
	setLeft(left, cache.limit, 0)
	return grantedLocked(cache, now)
}

// allowByGrantLocked decides by a cached grant, also by one that is due for renewal. It returns 0 if the grant cannot decide; otherwise it
// releases Mu.
func allowByGrantLocked(cache *Cache, g *Grant, key string, now int64, left *Left) int64 {
	verdict := spendLocked(g, now)
	if verdict != 0 {
		SetLeftOfGrant(left, cache.limit, g.Tokens)
		cache.lock.Unlock()
		return verdict
	}
	if g.Tokens > 0 && now < g.ends {
		SetLeftOfGrant(left, cache.limit, g.Tokens-1)
		return takeAndRenewLocked(cache, g, key, now)
	}
	return 0
}

// joinByKeyLocked has a request join a batch, and returns the batch and the request's place in it. It returns nil if Redis is unavailable.
// AllowKey inlines it, because a call would cost each request that asks Redis. It releases Mu.
func joinByKeyLocked(cache *Cache, key string, now int64) (*batch, int) {
	l := cache.limiter
	lease := lookupLocked(l, key)
	b := cache.lane.open
	if b == nil {
		b = cache.openBatch
		if cannotJoinLocked(cache, now) {
			l.Mu.Unlock()
			return nil, 0
		}
	}
	place := len(b.keys)
	if lease == nil {
		insertLocked(l, key, b.newLease)
	} else {
		askForKnownLocked(l, b, key, lease, place, now)
	}
	b.keys = append(b.keys, key)
	b.lastPlace--
	if len(b.ids) > b.lastPlace {
		sealLocked(b)
	}
	if now >= b.sendAt {
		sendIfOverdueLocked(b, now)
	}
	l.Mu.Unlock()
	return b, place
}

// countReply says what is left by the reply to a request: what is in the bucket, and what this gateway has leased of it, minus what it owes. It
// returns the verdict.
func countReply(cache *Cache, b *batch, place int, key string, verdict int64, left *Left) int64 {
	if verdict <= 0 {
		return lastToken(cache, key, verdict, left)
	}
	level := b.limit.full / 8 * nearlyFull // what plenty means at least
	if !b.allGranted && b.answers[place] != plenty {
		a := parseAnswer(b.answers[place])
		level = a.level + a.leased*b.limit.period
	}
	l := cache.limiter
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if lease := lookupLocked(l, key); lease != nil {
		level -= (lease.borrowed - lease.repaid) * b.limit.period
	}
	setLeft(left, b.limit, level)
	return verdict
}

// AllowLocalCounted is AllowLocal that also says what is left of the bucket in this process.
func AllowLocalCounted(l *Limiter, key string, limit *Limit, now int64, left *Left) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	verdict := allowLocalLocked(l, key, limit, now)
	lease := localLeaseLocked(l, key, limit, now)
	level := int64(0)
	if lease.bucket.period != 0 {
		level = lease.bucket.refilled(limit, now)
	}
	if now < lease.ends {
		level = withLease(limit, level, lease.size, lease.Tokens)
	}
	setLeft(left, limit, level)
	return verdict
}

// withLease returns what is left of a bucket and of a lease on it with unused tokens. During a lease, the bucket refills only
// until it and the lease's size add up to the capacity.
func withLease(limit *Limit, level, size, unused int64) int64 {
	if most := limit.full - size*limit.period; level > most {
		level = most
	}
	return level + unused*limit.period
}
