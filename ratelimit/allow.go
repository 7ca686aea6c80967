package ratelimit

import "github.com/resilient-gateway/resilience/internal/store"

// A verdict is one number:
//
//	-n         refused: the next token is due in n microseconds, unless another request takes it
//	0          the cache cannot decide: call Allow (AllowCached only)
//	1          a token was taken
//	t > 1      a token was taken at the time t, and the circuit was known to be closed then
//	Undecided  Redis gave no verdict; LastErr says why
//
// The functions that take a token are not methods: in the interpreter, a method call costs three times as much as a function call.

// Allow takes a token for a request of the identity. It locks the limiter's Mu itself, and may wait for Redis.
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
	return allowNewLocked(cache, id, now)
}

// AllowCached takes a token from the identity's grant. It never waits for Redis: if it returns 0, the caller must call Allow. The
// middleware inlines this code if a call is too expensive.
func AllowCached(cache *Cache, id string, now int64) int64 {
	cache.lock.Lock()
	verdict := int64(0)
	if g := cache.Grants[id]; g != nil {
		verdict = spendLocked(g, now)
	}
	cache.lock.Unlock()
	return verdict
}

// AllowGrant takes a token for an identity whose cached grant is used up or due for renewal. If the grant still has tokens, AllowGrant
// takes one at once and queues the renewal. Otherwise it asks Redis. Mu must be held; AllowGrant releases it.
func AllowGrant(cache *Cache, g *Grant, id string, now int64) int64 {
	if g.Tokens > 0 && now < g.ends {
		key := bucketKeyLocked(cache, id)
		if g.Tokens > 0 {
			return takeAndRenewLocked(cache, g, key, now)
		}
	}
	return allowNewLocked(cache, id, now)
}

// allowNewLocked takes a token for an identity that has no grant, or whose grant has no token. It releases Mu.
func allowNewLocked(cache *Cache, id string, now int64) int64 {
	if now < cache.stands.until {
		return allowStandingLocked(cache, id, now)
	}
	return AllowID(cache, id, now)
}

// AllowID takes a token for an identity that has no grant in the cache. The request joins the cache's open batch and waits for its
// verdict. Mu must be held; AllowID releases it.
func AllowID(cache *Cache, id string, now int64) int64 {
	return cache.askID(id, now)
}

// newAskID returns AllowID for one cache. It only enqueues, because it is most of the cost of a request from a rarely seen client. A worker does
// the rest. It is a closure for the sake of its frame (R3).
func newAskID(cache *Cache) func(id string, now int64) int64 {
	lock, longest := cache.lock, cache.maxJoinLen
	if longest < 0 {
		return func(id string, now int64) int64 { return allowByKeyLocked(cache, id, now) }
	}
	return func(id string, now int64) int64 {
		var (
			place int
			b     *batch
		)
		if len(id) > longest {
			return allowByKeyLocked(cache, id, now)
		}
		b = cache.openBatch
		if now >= b.sendAt {
			if cannotJoinLocked(cache, now) {
				return allowByKeyLocked(cache, id, now)
			}
		}
		place = len(b.ids)
		b.ids = append(b.ids, id)
		if place >= b.lastPlace {
			sealLocked(b)
		}
		lock.Unlock()
		b.done.Wait()
		if b.allGranted {
			return b.grantedAt
		}
		return verdictOfID(cache, b, place)
	}
}

// grantedLocked returns the verdict on a request that got its token from memory. It releases Mu.
func grantedLocked(cache *Cache, now int64) int64 {
	if now >= *cache.limiter.HealthyUntil {
		now = 1
	}
	cache.lock.Unlock()
	return now
}

// AllowKey is AllowID for a request whose bucket key is known. If this gateway holds a lease on that key, the lease decides at once, and
// AllowKey caches its grant under the identity. If there is no verdict, AllowKey returns 0 and the error that LastErr reports for the
// other functions. Mu must be held; AllowKey releases it.
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

// allowByLeaseLocked decides by the lease of a key and caches its grant. It returns 0 if the lease cannot decide; otherwise it releases
// Mu.
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

// allowByKeyLocked makes the key of an identity and calls AllowKey with it. It releases Mu.
func allowByKeyLocked(cache *Cache, id string, now int64) int64 {
	verdict, err := AllowKey(cache, id, bucketKeyLocked(cache, id), now)
	return orUndecided(cache, verdict, err)
}

// verdictOfID returns the verdict on a request that joined the batch by its identity. place counts only such requests.
func verdictOfID(cache *Cache, b *batch, place int) int64 {
	verdict, err := verdictAt(b, len(b.keys)-len(b.ids)+place)
	return orUndecided(cache, verdict, err)
}

// orUndecided returns the verdict, or Undecided if err is not nil. It stores the error for LastErr.
func orUndecided(cache *Cache, verdict int64, err error) int64 {
	if err == nil {
		return verdict
	}
	cache.lock.Lock()
	cache.lastErr = err
	cache.lock.Unlock()
	return Undecided
}

// LastErr returns why the last undecided request of this cache got no verdict: an error that wraps store.ErrUnavailable, ErrNotABucket,
// the script's own error, or an error that reports a panic.
func LastErr(cache *Cache) error {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	return cache.lastErr
}
