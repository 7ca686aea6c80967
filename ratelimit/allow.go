package ratelimit

import "github.com/resilient-gateway/resilience/internal/store"

// A verdict is one number:
//
//	-n         refused: the next token is due in n microseconds, unless another request takes it
//	0          the cache decides nothing: ask (AllowCached only)
//	1          a token was taken
//	t > 1      a token was taken at the time t, and the circuit was known to be closed then
//	Undecided  Redis gave no verdict; LastErr says why
//
// The functions that take a token are functions, not methods: in the interpreter a call of a method costs three times that of a function.

// Allow takes a token for a request of the identity. It takes the limiter's Mu itself, and may wait for Redis.
func Allow(cache *Cache, id string, now int64) int64 {
	cache.lock.Lock()
	g := cache.Grants[id]
	if g != nil {
		if verdict := spendLocked(g, now); verdict != 0 {
			cache.lock.Unlock()
			return verdict
		}
		return AllowGrant(cache, g, id, now)
	}
	return AllowID(cache, id, now)
}

// AllowCached takes a token of the identity's grant. It never waits for Redis: 0 says that Allow must be called. Where a call is too
// expensive the middleware has the same written out.
func AllowCached(cache *Cache, id string, now int64) int64 {
	cache.lock.Lock()
	verdict := int64(0)
	if g := cache.Grants[id]; g != nil {
		verdict = spendLocked(g, now)
	}
	cache.lock.Unlock()
	return verdict
}

// AllowGrant takes a token for an identity whose grant, in the cache, is used up or to be renewed. Of one that is only to be renewed it
// takes a token at once. Mu must be held, and is released.
func AllowGrant(cache *Cache, g *Grant, id string, now int64) int64 {
	if g.Tokens > 0 && now < g.ends {
		key := bucketKeyLocked(cache, id)
		if g.Tokens > 0 {
			return takeAndRenewLocked(cache, g, key, now)
		}
	}
	return AllowID(cache, id, now)
}

// AllowID takes a token for an identity that has no grant in the cache: it asks Redis, in one call for all requests that wait at the
// same time. Mu must be held, and is released.
//
// It only enqueues: for clients that are seldom seen this is most of what a request costs. A batch worker does the rest.
func AllowID(cache *Cache, id string, now int64) int64 {
	if len(id) > cache.maxJoinLen {
		return allowByKeyLocked(cache, id, now)
	}
	b := cache.openBatch
	if now >= b.sendAt {
		if cannotJoinLocked(cache, now) {
			return allowByKeyLocked(cache, id, now)
		}
	}
	//lint:ignore S1021 the interpreter makes two values for :=
	var place int
	place = len(b.ids)
	b.ids = append(b.ids, id)
	if place >= b.lastPlace {
		sealLocked(b)
	}
	cache.lock.Unlock()
	b.done.Wait()
	if b.allGranted {
		return b.grantedAt
	}
	return verdictOfID(cache, b, place)
}

// AllowKey is AllowID for a request that brings its bucket's key. A lease that this gateway holds for that key decides at once, and its
// grant is cached under the identity. The error, which comes with a verdict of 0, is what LastErr returns for other requests.
// Mu must be held, and is released.
func AllowKey(cache *Cache, id, key string, now int64) (int64, error) {
	l := cache.limiter
	lease := lookupLocked(l, key)
	if lease != nil {
		if verdict := allowByLeaseLocked(cache, lease, id, key, now); verdict != 0 {
			return verdict, nil
		}
	}
	b := cache.lane.open
	if b == nil {
		b = cache.openBatch
		if cannotJoinLocked(cache, now) {
			l.Mu.Unlock()
			return 0, store.ErrUnavailable
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
	b.done.Wait()
	return verdictAt(b, place)
}

// allowByLeaseLocked decides by the lease of a key, and caches its grant. It returns 0 where that decides nothing. Mu must be held, and is
// released unless it returns 0.
func allowByLeaseLocked(cache *Cache, lease *Lease, id, key string, now int64) int64 {
	if lease.limit != cache.limit {
		return 0
	}
	if verdict := spendLocked(&lease.Grant, now); verdict != 0 {
		putLocked(cache, id, &lease.Grant)
		cache.lock.Unlock()
		return verdict
	}
	if lease.Tokens > 0 && now < lease.ends {
		putLocked(cache, id, &lease.Grant)
		return takeAndRenewLocked(cache, &lease.Grant, key, now)
	}
	return 0
}

// allowByKeyLocked makes the key of an identity, and asks by that. Mu must be held, and is released.
func allowByKeyLocked(cache *Cache, id string, now int64) int64 {
	verdict, err := AllowKey(cache, id, bucketKeyLocked(cache, id), now)
	return orUndecided(cache, verdict, err)
}

// verdictOfID returns the verdict on the request that joined a batch by its identity, at a place among those.
func verdictOfID(cache *Cache, b *batch, place int) int64 {
	verdict, err := verdictAt(b, len(b.keys)-len(b.ids)+place)
	return orUndecided(cache, verdict, err)
}

// orUndecided returns the verdict; where there is an error instead, it keeps that for LastErr.
func orUndecided(cache *Cache, verdict int64, err error) int64 {
	if err == nil {
		return verdict
	}
	cache.lock.Lock()
	cache.lastErr = err
	cache.lock.Unlock()
	return Undecided
}

// LastErr returns why a request of this cache was last undecided: an error that wraps store.ErrUnavailable, ErrNotABucket, the script's
// own error, or one that reports a panic.
func LastErr(cache *Cache) error {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	return cache.lastErr
}
