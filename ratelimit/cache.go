package ratelimit

import (
	"sync"
	"time"
)

// Hand is a caller that asks under one limit, and its short way to the entries that it needs most, those that hold a lease or are
// known to be empty: by a raw, which tells whose they are before there is a key. A token of a lease in hand may be taken, under
// the limiter's Mu, without a call, which the interpreter makes dear.
type Cache struct {
	Grants    map[string]*Grant // the same map always
	Refresher BreakerRefresher  // that requests need when Clear is over; nil: none

	openBatch  *batch      // that a request joins by its raw, when it has begun; guarded by Mu
	lock       sync.Locker // the limiter's Mu
	limiter    *Limiter
	limit      *Limit
	queue      *queue
	timeout    time.Duration // for an answer of Redis
	keyMaker   KeyMaker
	maxJoinLen int   // no longer raw joins a batch without its key
	lastErr    error // the last one; guarded by Mu
}

// Naming says how a raw becomes a key. With the zero Naming it is one.
type KeyMaker struct {
	Kind      string              // goes before a raw that is not empty and no longer than Longest
	MaxJoin   int                 // bytes; -1: none is
	Key       func(string) string // makes the key of any other
	ManyToOne bool                // many raws stand for one key
}

// A hand holds so many entries, and none by a longer raw: clients choose those.
const (
	maxGrants = 16384
	maxIDLen  = 128
)

// NewHand returns an empty hand.
func NewCache(l *Limiter, limit *Limit, timeout time.Duration, naming KeyMaker) *Cache {
	if naming.Key == nil {
		naming.MaxJoin = -1
		naming.Key = func(raw string) string { return raw }
	}
	fits := maxIDLen
	if naming.ManyToOne {
		fits = -1
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if l.queues[limit] == nil {
		l.queues[limit] = &queue{}
	}
	hand := &Cache{
		Grants: map[string]*Grant{}, lock: l.Mu, limiter: l, limit: limit, queue: l.queues[limit], timeout: timeout,
		keyMaker: naming, maxJoinLen: fits,
	}
	newBatch(hand)
	return hand
}

// keyOf returns the key of a raw.
func bucketKey(hand *Cache, raw string) string {
	if raw == "" || len(raw) > hand.keyMaker.MaxJoin {
		return hand.keyMaker.Key(raw)
	}
	return hand.keyMaker.Kind + raw
}

// keyLocked is keyOf with the limiter's Mu held, which it gives back meanwhile: to make a key takes long, and might panic.
func bucketKeyLocked(hand *Cache, raw string) string {
	hand.lock.Unlock()
	//lint:ignore S1021 the interpreter makes two values for :=
	var key string
	key = bucketKey(hand, raw)
	hand.lock.Lock()
	return key
}

// Spend decides from what is in the hand: 1 says that a token of a lease was taken; 0 that Allow must be asked; a negative number
// that the bucket is empty, and will have a token in so many microseconds. It says in one place what the middleware has written
// out where a call is too dear.
func AllowCached(hand *Cache, raw string, now int64) int64 {
	hand.limiter.Mu.Lock()
	verdict := spendLocked(hand.Grants[raw], hand.limit, now)
	hand.limiter.Mu.Unlock()
	return verdict
}

// drop takes some out of a full hand: those that are still needed come back. Held stays the map that it was.
func evictSome(hand *Cache) {
	dropped := 0
	for raw := range hand.Grants {
		delete(hand.Grants, raw)
		dropped++
		if dropped == maxGrants/64 {
			break
		}
	}
}

// hold puts an entry in the hand. mu is held.
func put(hand *Cache, raw string, e *Grant) {
	if len(raw) > maxIDLen {
		return
	}
	if len(hand.Grants) >= maxGrants {
		evictSome(hand)
	}
	hand.Grants[raw] = e
}
