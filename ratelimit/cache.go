package ratelimit

import (
	"math"
	"sync"
	"time"
)

// Cache maps the identities of one route's requests to their grants, so that a hit needs no bucket key. All its requests are under one
// limit. It is safe for concurrent use; the limiter's Mu guards it. A cache holds at most maxGrants grants: those with leased tokens or
// with a bucket known to be empty.
type Cache struct {
	Grants    map[string]*Grant // always the same map
	Refresher BreakerRefresher  // refreshes the breaker's view when HealthyUntil has passed; nil: none. Set it before the first request

	Common *Grant // the tokens of the limit that all requests of the route share, under plans; nil: there is none

	common                    *bucketLease // of Common; nil: there is none
	openBatch                 *batch       // requests join it by their identities
	lock                      sync.Locker  // the limiter's Mu
	limiter                   *Limiter
	limit                     *Limit
	lane                      *lane
	longestDelay, mostDelayed int64 // of requests that wait for their tokens (SetDelay)
	timeout                   int64 // how long a request waits for Redis, microseconds
	keyMaker                  KeyMaker
	maxJoinLen                int                              // a request with a longer identity joins a batch by its key
	stands                    *standing                        // the standing tokens of the limit
	reports                   *batch                           // reports the uses of standing tokens by identities; nil: none is open, or it has another cache
	maxReportLen              int                              // a longer identity is reported by its key
	askID                     func(id string, now int64) int64 // AllowID
	lastErr                   error                            // of the last undecided request
}

// KeyMaker makes a bucket's key from the identity of a request. The zero KeyMaker uses the identity as the key.
type KeyMaker struct {
	Kind      string              // precedes an identity that is not empty and not longer than MaxJoin
	MaxJoin   int                 // bytes; -1: Key makes every key
	Key       func(string) string // makes the key of any other identity
	ManyToOne bool                // many identities may have the same key
}

const (
	maxGrants = 16384 // in a cache
	maxIDLen  = 128   // bytes of an identity in a cache: clients choose their identities
)

// NewCache returns an empty cache for a route. Its requests are under the limit and wait for Redis at most for the timeout.
func NewCache(l *Limiter, limit *Limit, timeout time.Duration, keyMaker KeyMaker) *Cache {
	if keyMaker.Key == nil {
		keyMaker.MaxJoin = -1
		keyMaker.Key = func(id string) string { return id }
	}
	maxJoinLen := maxIDLen
	if keyMaker.ManyToOne {
		maxJoinLen = -1
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	cache := &Cache{
		Grants: map[string]*Grant{}, lock: l.Mu, limiter: l, limit: limit, lane: laneOfLocked(l, limit, timeout.Microseconds()), timeout: timeout.Microseconds(),
		keyMaker: keyMaker, maxJoinLen: maxJoinLen, stands: standUnderLocked(l, limit),
	}
	cache.maxReportLen = keyMaker.MaxJoin
	if maxJoinLen < cache.maxReportLen {
		cache.maxReportLen = maxJoinLen
	}
	cache.stands.cache = cache
	cache.askID = newAskID(cache)
	newBatchLocked(cache)
	return cache
}

// ReleaseLimit ends the use of a limit by one route: its cache, made by NewCache, has no further requests. A gateway stays registered for standing leases
// only while a route uses a limit that has them.
func ReleaseLimit(l *Limiter, limit *Limit) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if s := standingOfLocked(&l.gateways, limit); s != nil {
		s.routes--
	}
}

// NewPlanCache returns an empty cache for a route whose requests are under plans. common is the draw that all of them share: a limit for
// everybody. Without levels there is none.
func NewPlanCache(l *Limiter, common Draw, timeout time.Duration) *Cache {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	cache := &Cache{
		Grants: map[string]*Grant{}, lock: l.Mu, limiter: l, lane: laneOfLocked(l, nil, timeout.Microseconds()), timeout: timeout.Microseconds(),
		stands: l.gateways.none,
	}
	cache.Common = &Grant{Tokens: math.MaxInt64, Until: math.MaxInt64, ends: math.MaxInt64}
	if common.Levels != nil {
		cache.common = bucketLeaseLocked(l, common.Levels, common.Key, l.Now())
		cache.Common = &cache.common.Grant
	}
	cache.askID = newAskID(cache)
	newBatchLocked(cache)
	return cache
}

// bucketKey returns the key of an identity's bucket.
func bucketKey(cache *Cache, id string) string {
	if id == "" || len(id) > cache.keyMaker.MaxJoin {
		return cache.keyMaker.Key(id)
	}
	return cache.keyMaker.Kind + id
}

// bucketKeyLocked is bucketKey for a caller that holds Mu. It releases Mu meanwhile, because making a key is slow and may panic.
func bucketKeyLocked(cache *Cache, id string) string {
	cache.lock.Unlock()
	//lint:ignore S1021 the interpreter allocates twice for :=
	var key string
	key = bucketKey(cache, id)
	cache.lock.Lock()
	return key
}

// putLocked caches a grant. It skips long identities.
func putLocked(cache *Cache, id string, g *Grant) {
	if len(id) > maxIDLen {
		return
	}
	if len(cache.Grants) >= maxGrants {
		evictSomeLocked(cache)
	}
	cache.Grants[id] = g
}

// evictSomeLocked removes any 1/64 of the grants of a full cache. The next request of a client that lost its grant caches it again.
func evictSomeLocked(cache *Cache) {
	removed := 0
	for id := range cache.Grants {
		delete(cache.Grants, id)
		removed++
		if removed == maxGrants/64 {
			break
		}
	}
}

// CountGrants returns the number of grants in a cache.
func CountGrants(cache *Cache) int64 {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	return int64(len(cache.Grants))
}
