package ratelimit

import (
	"sync"
	"time"
)

// Cache is one route's lookup from the identity of a request to its grant, so that a hit needs no bucket key. All its requests are
// under one limit. It is safe for concurrent use; the limiter's Mu guards it. It holds at most maxGrants grants, those that hold a lease
// or whose bucket is known to be empty.
type Cache struct {
	Grants    map[string]*Grant // always the same map
	Refresher BreakerRefresher  // refreshes the breaker's view when HealthyUntil has passed; nil: none. Set before the first request

	openBatch  *batch      // that a request joins by its identity
	lock       sync.Locker // the limiter's Mu
	limiter    *Limiter
	limit      *Limit
	lane       *lane
	timeout    int64 // of a request, for Redis; microseconds
	keyMaker   KeyMaker
	maxJoinLen int   // an identity that is longer joins a batch by its key
	lastErr    error // of the last undecided request
}

// KeyMaker makes the key of a bucket from the identity of a request. The zero KeyMaker returns the identity itself.
type KeyMaker struct {
	Kind      string              // precedes an identity that is not empty and not longer than MaxJoin
	MaxJoin   int                 // bytes; -1: every key is made by Key
	Key       func(string) string // makes the key of any other identity
	ManyToOne bool                // many identities have the same key
}

const (
	maxGrants = 16384 // in a cache
	maxIDLen  = 128   // bytes of an identity in a cache: clients choose them
)

// NewCache returns an empty cache for a route whose requests are under the limit and wait for Redis until the timeout.
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
		keyMaker: keyMaker, maxJoinLen: maxJoinLen,
	}
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

// bucketKeyLocked is bucketKey with Mu held, which it releases meanwhile: making a key takes long, and might panic.
func bucketKeyLocked(cache *Cache, id string) string {
	cache.lock.Unlock()
	//lint:ignore S1021 the interpreter makes two values for :=
	var key string
	key = bucketKey(cache, id)
	cache.lock.Lock()
	return key
}

// putLocked caches a grant. Mu must be held.
func putLocked(cache *Cache, id string, g *Grant) {
	if len(id) > maxIDLen {
		return
	}
	if len(cache.Grants) >= maxGrants {
		evictSomeLocked(cache)
	}
	cache.Grants[id] = g
}

// evictSomeLocked removes 1/64 of the grants of a full cache, any of them: those that are still needed come back.
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
