// Package ratelimit is a token bucket for each key, shared through Redis by every gateway.
//
// A bucket starts full, a request takes one token, and time refills it. The decision is one Lua script on Redis's clock,
// but most requests need no decision: where a bucket has plenty, this gateway holds a lease on some of its tokens and
// spends them without asking, and where it is known to be empty, nothing need be asked until it has a token again.
// Requests that must ask do so together. While Redis is away, and where there is none, AllowLocal decides on a bucket in
// this process that goes on from the last level Redis told of.
package ratelimit

import (
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// ErrNotABucket says that the key holds something that this package did not write.
var ErrNotABucket = errors.New("ratelimit: the key in redis does not hold a bucket")

// maxEmpty is how long an empty bucket is taken for empty at the most, in microseconds.
const maxEmpty = 1000000

// Store runs scripts on Redis.
type Store interface {
	Run(calls []*store.Call, deadline time.Time) error
}

// Leave is another's, for requests to pass.
type BreakerRefresher interface {
	// Rider returns a call that asks for it, to go to Redis with a batch, or nil.
	PiggybackCall(now int64) *store.Call
	// Extend asks for it when a batch has landed.
	Extend(now int64)
}

// Settings of a limiter.
type Settings struct {
	Mu           sync.Locker         // guards the limiter and each Hand; nil: one of its own. Interpreted, its methods are cheaper than a *sync.Mutex's
	HealthyUntil *int64              // until when requests may pass without another's leave; guarded by Mu; nil: never
	Store        Store               // nil: there is AllowLocal only
	Unavailable  *atomic.Bool        // Redis is known to be away, and is not asked; nil: never, where there is one
	Prefix       string              // of a bucket's key in Redis
	Safe         string              // bytes that a key may go on with in Redis as they are
	Name         func(string) string // what it goes on with for a key of ours that has others
	Now          func() int64        // microseconds that only ever grow
}

// Limiter decides for all keys of one name. It is safe for concurrent use; no lock is held while Redis works. The times that
// its functions take are those of its Now.
type Limiter struct {
	Settings

	keyHeads     []string // what goes before a key of so many bytes, on its way over the wire
	contendedCap int      // requests in a batch where they wait for a processor

	// Guarded by Mu.
	table
	overflow      map[*Limit]*Grant // for all keys that there is no room for
	queues        map[*Limit]*queue
	pending       []*batch // to leave, in their order; the last one of a line may still be joined
	claimed       int      // so many of the first may leave, and a pilot is on its way to each
	batchCap      int      // no more requests join a batch
	inFlight      int      // batches that are cleared or under way
	nextSend      int64    // from then on another one may leave, though some are under way
	batchSeq      int64    // number of a batch
	borrowedTotal int64    // tokens that were borrowed so far
	replySeq      int64    // answers so far
	minRTT        int64    // microseconds that the quickest of the last few hundred answers took, or a little more
	idleWorkers   int      // pilots that wait for a batch
	closed        bool     // no pilot waits any more

	workReady *sync.Cond // an idle pilot is needed, or none is any more
	worker    func()     // runs a pilot
}

// Failed is the verdict where there is none.
const Undecided = math.MinInt64

// New returns a limiter, to be closed when it is needed no longer. It asks Redis nothing.
func New(settings Settings) *Limiter {
	if settings.Mu == nil {
		settings.Mu = &sync.Mutex{}
	}
	if settings.HealthyUntil == nil {
		never := int64(0)
		settings.HealthyUntil = &never
	}
	if settings.Unavailable == nil {
		settings.Unavailable = &atomic.Bool{}
		settings.Unavailable.Store(settings.Store == nil)
	}
	l := &Limiter{
		Settings: settings, keyHeads: keyHeadsOf(settings.Prefix), contendedCap: contendedCapOf(runtime.GOMAXPROCS(0)), table: newTable(),
		overflow: map[*Limit]*Grant{}, queues: map[*Limit]*queue{}, batchCap: maxBatch, minRTT: sendInterval,
	}
	initWorkers(l)
	return l
}

// What follows are functions, not methods: in the interpreter a call of a method costs three times that of a function.

// Allow takes a token from the bucket of the key that raw stands for, of which the hand holds nothing. A positive number says that
// there was one, a negative one that there will be one in so many microseconds, if nobody else takes it. Where it is more than 1, it
// is the time when the token was there, and the request could pass without another's leave. It asks Redis; requests that wait at the
// same time share one call. Failed, which comes within the timeout, says that there is no verdict, and Trouble why. The limiter's Mu
// is held, and given back.
//
// It does next to nothing, for that is most of what a client costs that is seldom seen. A pilot does the rest, in a loop.
func AllowID(hand *Cache, raw string, now int64) int64 {
	if len(raw) > hand.maxJoinLen {
		return allowByKey(hand, raw, now)
	}
	b := hand.openBatch
	if now >= b.sendAt {
		if cannotJoin(hand, now) {
			return allowByKey(hand, raw, now)
		}
	}
	//lint:ignore S1021 the interpreter makes two values for :=
	var place int
	place = len(b.ids)
	b.ids = append(b.ids, raw)
	if place >= b.lastPlace {
		seal(b)
	}
	hand.lock.Unlock()
	b.done.Wait()
	if b.allGranted {
		return b.grantedAt
	}
	return verdictOfID(hand, b, place)
}

// Take takes a token as Allow does, also of what the hand holds. It takes the limiter's Mu itself.
func Allow(hand *Cache, raw string, now int64) int64 {
	hand.lock.Lock()
	e := hand.Grants[raw]
	if verdict := spendLocked(e, hand.limit, now); verdict != 0 {
		hand.lock.Unlock()
		return verdict
	}
	if e != nil {
		return AllowGrant(hand, e, raw, now)
	}
	return AllowID(hand, raw, now)
}

// AllowHeld is Allow for an entry that the hand holds by the raw. Where its lease is only to be renewed, it takes a token of that.
func AllowGrant(hand *Cache, e *Grant, raw string, now int64) int64 {
	if e.Tokens > 0 && now < e.leaseEnds {
		key := bucketKeyLocked(hand, raw)
		if e.Tokens > 0 {
			return takeAndRenew(hand, e, key, now)
		}
	}
	return AllowID(hand, raw, now)
}

// allowKnown is Allow where more may be known of the key than the hand holds by the raw.
func allowByKey(hand *Cache, raw string, now int64) int64 {
	verdict, err := AllowKey(hand, raw, bucketKeyLocked(hand, raw), now)
	return orUndecided(hand, verdict, err)
}

// told returns the verdict on a raw at its place in a batch.
func verdictOfID(hand *Cache, b *batch, place int) int64 {
	verdict, err := verdictAt(b, len(b.keys)-len(b.ids)+place)
	return orUndecided(hand, verdict, err)
}

// verdictOf returns the verdict, or notes why there is none.
func orUndecided(hand *Cache, verdict int64, err error) int64 {
	if err == nil {
		return verdict
	}
	hand.lock.Lock()
	hand.lastErr = err
	hand.lock.Unlock()
	return Undecided
}

// Trouble tells why there was no verdict, the last time that there was none: an error that wraps store.ErrUnavailable, or is ErrNotABucket
// or the script's own, or tells of a panic.
func LastErr(hand *Cache) error {
	hand.lock.Lock()
	defer hand.lock.Unlock()
	return hand.lastErr
}

// Carry is Allow for a key of which something may be known here: that is told at once, and held in the hand as raw from then on. The
// error, which comes with a verdict of 0, is as Trouble's.
func AllowKey(hand *Cache, raw, key string, now int64) (int64, error) {
	l := hand.limiter
	e := lookup(l, key)
	if known := spendLocked(e, hand.limit, now); known != 0 {
		put(hand, raw, e)
		l.Mu.Unlock()
		return known, nil
	}
	if e != nil && e.Tokens > 0 && now < e.leaseEnds && e.Limit == hand.limit {
		put(hand, raw, e)
		return takeAndRenew(hand, e, key, now), nil
	}
	b := hand.queue.open
	if b == nil {
		b = hand.openBatch
		if cannotJoin(hand, now) {
			l.Mu.Unlock()
			return 0, store.ErrUnavailable
		}
	}
	place := len(b.keys)
	if e == nil {
		insert(l, key, b.newGrant)
	} else {
		askForKnown(l, b, key, e, place, now)
	}
	b.keys = append(b.keys, key)
	b.lastPlace--
	if len(b.ids) > b.lastPlace {
		seal(b)
	}
	if now >= b.sendAt {
		sendIfOverdue(b, now)
	}
	l.Mu.Unlock()
	b.done.Wait()
	return verdictAt(b, place)
}
