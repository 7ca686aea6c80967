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

// Settings of a limiter.
type Settings struct {
	Mu     *sync.Mutex         // guards the limiter and each Hand; nil: one of its own
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

	// Guarded by Mu.
	known
	shared  *Entry // for all keys that there is no room for
	lines   map[*Limit]*line
	waiting []*batch // to leave, those that still form too
	last    int64    // number of a batch
	flying  int      // batches under way
	due     int64    // from then on another one may leave, though some are under way
	heard   int64    // answers so far
}

// Hand is a caller that asks under one limit, and its short way to the entries that it needs most, those that hold a lease or are
// known to be empty: by whatever tells it whose they are before it has made a key. A token of a lease in hand may be taken, under
// the limiter's Mu, without a call, which the interpreter makes dear.
type Hand struct {
	Held map[string]*Entry // the same map always

	limiter *Limiter
	limit   *Limit
	line    *line
	timeout time.Duration // for an answer of Redis
}

// A hand holds so many entries, and none by a longer raw: clients choose those.
const (
	maxHeld = 16384
	maxRaw  = 128
)

// NewHand returns an empty hand.
func NewHand(l *Limiter, limit *Limit, timeout time.Duration) *Hand {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if l.lines[limit] == nil {
		l.lines[limit] = &line{}
	}
	return &Hand{Held: map[string]*Entry{}, limiter: l, limit: limit, line: l.lines[limit], timeout: timeout}
}

// New returns a limiter. It asks Redis nothing.
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
	return &Limiter{Settings: settings, heads: headsOf(settings.Prefix), known: newKnown(), lines: map[*Limit]*line{}}
}

// What follows are functions, not methods: in the interpreter a call of a method costs three times that of a function.

// Spend decides from what is in the hand: 1 says that a token of a lease was taken; 0 that Allow must be asked; a negative number
// that the bucket is empty, and will have a token in so many microseconds. It says in one place what the middleware has written
// out where a call is too dear.
func Spend(hand *Hand, raw string, now int64) int64 {
	hand.limiter.Mu.Lock()
	verdict := spend(hand.Held[raw], hand.limit, now)
	hand.limiter.Mu.Unlock()
	return verdict
}

// Allow takes a token from the bucket of key: a positive number says that there was one, a negative one that there will be one in
// so many microseconds, if nobody else takes it. Where it is more than 1, it is the time when the token was there, and the
// request could pass without another's leave. What is known here is told at once, and held in the hand as raw from then on. Else it
// asks Redis. Requests that wait at the same time share one call. The error, which comes within the timeout and with a verdict of
// 0, wraps store.ErrUnavailable, or is ErrNotABucket or the script's own. The limiter's Mu is held, and given back.
func Allow(hand *Hand, raw, key string, now int64) (int64, error) {
	l := hand.limiter
	// One if after the other, here and below: || is a value more.
	if l.young[key] != nil {
		return Carry(hand, raw, key, now, nil)
	}
	if l.old[key] != nil {
		return Carry(hand, raw, key, now, nil)
	}
	// A key that is new here, as most are where there are many clients: written out.
	b := hand.line.forming
	if b == nil {
		b = form(hand, now)
		if b == nil {
			return unavailable(l)
		}
	}
	l.young[key] = b.first
	place := len(b.keys)
	b.keys = append(b.keys, key)
	if place == 0 {
		lead(l, b, now)
	} else {
		if place == maxBatch-1 {
			hurry(l, b, now)
		} else if now >= l.due {
			hurry(l, b, now)
		}
		l.Mu.Unlock()
		b.landing.Wait()
	}
	if b.plain {
		return b.taken, nil
	}
	return verdict(b, place)
}

// Carry is Allow where rider, which may be nil, is a call of somebody else's that goes the same way if Redis has to be asked.
func Carry(hand *Hand, raw, key string, now int64, rider *store.Call) (int64, error) {
	l := hand.limiter
	e := get(l, key)
	if known := spend(e, hand.limit, now); known != 0 {
		hold(hand, raw, e)
		l.Mu.Unlock()
		return known, nil
	}
	b := hand.line.forming
	if b == nil {
		b = form(hand, now)
		if b == nil {
			return unavailable(l)
		}
	}
	if e == nil {
		add(l, key, b.first)
	} else {
		askAgain(l, b, key, e, now)
	}
	place := len(b.keys)
	b.keys = append(b.keys, key)
	if rider != nil {
		carry(b, rider)
	}
	if place == 0 {
		lead(l, b, now)
	} else {
		if place == maxBatch-1 || now >= l.due {
			hurry(l, b, now)
		}
		l.Mu.Unlock()
		b.landing.Wait()
	}
	return verdict(b, place)
}

// unavailable is the verdict while Redis is away. mu is held, and given back.
func unavailable(l *Limiter) (int64, error) {
	l.Mu.Unlock()
	return 0, store.ErrUnavailable
}

// drop takes some out of a full hand: those that are still needed come back. Held stays the map that it was.
func drop(hand *Hand) {
	dropped := 0
	for raw := range hand.Held {
		delete(hand.Held, raw)
		dropped++
		if dropped == maxHeld/64 {
			break
		}
	}
}

// hold puts an entry in the hand. mu is held.
func hold(hand *Hand, raw string, e *Entry) {
	if len(raw) > maxRaw {
		return
	}
	if len(hand.Held) >= maxHeld {
		drop(hand)
	}
	hand.Held[raw] = e
}
