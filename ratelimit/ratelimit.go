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
	Store  Store               // nil: there is AllowLocal only
	Prefix string              // of a bucket's key in Redis
	Safe   string              // bytes that a key may go on with in Redis as they are
	Name   func(string) string // what it goes on with for a key of ours that has others
	Now    func() int64        // microseconds that only ever grow
}

// Limiter decides for all keys of one name. It is safe for concurrent use; no lock is held while Redis works. The times that
// its functions take are those of its Now.
type Limiter struct {
	Settings

	// Mu guards all that follows. It and Known are for a caller to whom Spend is too dear: calls are, in the interpreter.
	Mu    sync.Mutex
	Known *Known

	shared  *Entry // for all keys that there is no room for
	forming map[*Limit]*batch
	waiting []*batch // to leave, those that still form too
	last    int64    // number of a batch
	flying  int      // batches under way
	flown   int64    // when the last one left
	heard   int64    // answers so far
}

// New returns a limiter. It asks Redis nothing.
func New(settings Settings) *Limiter {
	return &Limiter{Settings: settings, Known: newKnown(), forming: map[*Limit]*batch{}}
}

// What follows are functions, not methods: in the interpreter a call of a method costs four times that of a function.

// Spend decides from what is known here: 1 says that a token of a lease in hand was taken; 0 that Redis must be asked, with
// Allow; a negative number that the bucket is empty, and will have a token in so many microseconds.
func Spend(l *Limiter, key string, limit *Limit, now int64) int64 {
	l.Mu.Lock()
	verdict := spend(get(l.Known, key), limit, now)
	l.Mu.Unlock()
	return verdict
}

// Allow takes a token from the bucket of key, in Redis: 1 says that there was one, a negative number that there will be one in
// so many microseconds, if nobody else takes it. Requests that wait at the same time share one call. rider, which may be nil,
// is a call of somebody else's that goes the same way. The error, which comes within the timeout, wraps store.ErrUnavailable,
// or is ErrNotABucket or the script's own.
func Allow(l *Limiter, key string, limit *Limit, now int64, timeout time.Duration, rider *store.Call) (int64, error) {
	l.Mu.Lock()
	b := l.forming[limit]
	leads := b == nil
	if leads {
		b = form(l, limit, time.Now().Add(timeout))
	}
	place := len(b.entries)
	join(l, b, key, now)
	if rider != nil {
		carry(b, rider)
	}
	dispatch(l, now)
	l.Mu.Unlock()
	if leads {
		b.takeoff.Wait()
		fly(l, b)
	} else {
		b.landing.Wait()
	}
	if b.err == nil && b.words[place][0] == plenty {
		return 1, nil
	}
	return verdict(b, place)
}
