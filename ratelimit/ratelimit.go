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
type Leave interface {
	// Rider returns a call that asks for it, to go to Redis with a batch, or nil.
	Rider(now int64) *store.Call
	// Extend asks for it when a batch has landed.
	Extend(now int64)
}

// Settings of a limiter.
type Settings struct {
	Mu     sync.Locker         // guards the limiter and each Hand; nil: one of its own. Interpreted, its methods are cheaper than a *sync.Mutex's
	Clear  *int64              // until when requests may pass without another's leave; guarded by Mu; nil: never
	Store  Store               // nil: there is AllowLocal only
	Away   *atomic.Bool        // Redis is known to be away, and is not asked; nil: never, where there is one
	Prefix string              // of a bucket's key in Redis
	Safe   string              // bytes that a key may go on with in Redis as they are
	Name   func(string) string // what it goes on with for a key of ours that has others
	Now    func() int64        // microseconds that only ever grow
}

// Limiter decides for all keys of one name. It is safe for concurrent use; no lock is held while Redis works. The times that
// its functions take are those of its Now.
type Limiter struct {
	Settings

	heads []string // what goes before a key of so many bytes, on its way over the wire
	few   int      // requests in a batch where they wait for a processor

	// Guarded by Mu.
	known
	shared  map[*Limit]*Entry // for all keys that there is no room for
	lines   map[*Limit]*line
	waiting []*batch // to leave, in their order; the last one of a line may still be joined
	cleared int      // so many of the first may leave, and a pilot is on its way to each
	room    int      // no more requests join a batch
	flying  int      // batches that are cleared or under way
	due     int64    // from then on another one may leave, though some are under way
	last    int64    // number of a batch
	debts   int64    // tokens that were borrowed so far
	heard   int64    // answers so far
	away    int64    // microseconds that the quickest of the last few hundred answers took, or a little more
	idle    int      // pilots that wait for a batch
	closed  bool     // no pilot waits any more

	wake  *sync.Cond // an idle pilot is needed, or none is any more
	start func()     // runs a pilot
}

// Failed is the verdict where there is none.
const Failed = math.MinInt64

// New returns a limiter, to be closed when it is needed no longer. It asks Redis nothing.
func New(settings Settings) *Limiter {
	if settings.Mu == nil {
		settings.Mu = &sync.Mutex{}
	}
	if settings.Clear == nil {
		never := int64(0)
		settings.Clear = &never
	}
	if settings.Away == nil {
		settings.Away = &atomic.Bool{}
		settings.Away.Store(settings.Store == nil)
	}
	l := &Limiter{
		Settings: settings, heads: headsOf(settings.Prefix), few: fewOf(runtime.GOMAXPROCS(0)), known: newKnown(),
		shared: map[*Limit]*Entry{}, lines: map[*Limit]*line{}, room: maxBatch, away: farAway,
	}
	ready(l)
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
func Allow(hand *Hand, raw string, now int64) int64 {
	if len(raw) > hand.fits {
		return allowKnown(hand, raw, now)
	}
	b := hand.forming
	if now >= b.due {
		if shut(hand, now) {
			return allowKnown(hand, raw, now)
		}
	}
	//lint:ignore S1021 the interpreter makes two values for :=
	var place int
	place = len(b.raws)
	b.raws = append(b.raws, raw)
	if place >= b.last {
		closeLine(b)
	}
	hand.lock.Unlock()
	b.landing.Wait()
	if b.plain {
		return b.taken
	}
	return told(hand, b, place)
}

// Take takes a token as Allow does, also of what the hand holds. It takes the limiter's Mu itself.
func Take(hand *Hand, raw string, now int64) int64 {
	hand.lock.Lock()
	e := hand.Held[raw]
	if verdict := spend(e, hand.limit, now); verdict != 0 {
		hand.lock.Unlock()
		return verdict
	}
	if e != nil {
		return AllowHeld(hand, e, raw, now)
	}
	return Allow(hand, raw, now)
}

// AllowHeld is Allow for an entry that the hand holds by the raw. Where its lease is only to be renewed, it takes a token of that.
func AllowHeld(hand *Hand, e *Entry, raw string, now int64) int64 {
	if e.Tokens > 0 && now < e.ends {
		key := keyLocked(hand, raw)
		if e.Tokens > 0 {
			return prolong(hand, e, key, now)
		}
	}
	return Allow(hand, raw, now)
}

// allowKnown is Allow where more may be known of the key than the hand holds by the raw.
func allowKnown(hand *Hand, raw string, now int64) int64 {
	verdict, err := Carry(hand, raw, keyLocked(hand, raw), now)
	return verdictOf(hand, verdict, err)
}

// told returns the verdict on a raw at its place in a batch.
func told(hand *Hand, b *batch, place int) int64 {
	verdict, err := answerAt(b, len(b.keys)-len(b.raws)+place)
	return verdictOf(hand, verdict, err)
}

// verdictOf returns the verdict, or notes why there is none.
func verdictOf(hand *Hand, verdict int64, err error) int64 {
	if err == nil {
		return verdict
	}
	hand.lock.Lock()
	hand.trouble = err
	hand.lock.Unlock()
	return Failed
}

// Trouble tells why there was no verdict, the last time that there was none: an error that wraps store.ErrUnavailable, or is ErrNotABucket
// or the script's own, or tells of a panic.
func Trouble(hand *Hand) error {
	hand.lock.Lock()
	defer hand.lock.Unlock()
	return hand.trouble
}

// Carry is Allow for a key of which something may be known here: that is told at once, and held in the hand as raw from then on. The
// error, which comes with a verdict of 0, is as Trouble's.
func Carry(hand *Hand, raw, key string, now int64) (int64, error) {
	l := hand.limiter
	e := get(l, key)
	if known := spend(e, hand.limit, now); known != 0 {
		hold(hand, raw, e)
		l.Mu.Unlock()
		return known, nil
	}
	if e != nil && e.Tokens > 0 && now < e.ends && e.Limit == hand.limit {
		hold(hand, raw, e)
		return prolong(hand, e, key, now), nil
	}
	b := hand.line.forming
	if b == nil {
		b = hand.forming
		if shut(hand, now) {
			l.Mu.Unlock()
			return 0, store.ErrUnavailable
		}
	}
	place := len(b.keys)
	if e == nil {
		add(l, key, b.first)
	} else {
		askAgain(l, b, key, e, place, now)
	}
	b.keys = append(b.keys, key)
	b.last--
	if len(b.raws) > b.last {
		closeLine(b)
	}
	if now >= b.due {
		hurry(b, now)
	}
	l.Mu.Unlock()
	b.landing.Wait()
	return answerAt(b, place)
}
