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

// Decision is the answer to one request.
type Decision struct {
	Allowed    bool
	RetryAfter time.Duration // where not allowed: until the bucket holds a token, if nobody else takes it
}

// decide returns the decision of a verdict of Spend that is not 0.
func decide(verdict int64) Decision {
	if verdict > 0 {
		return Decision{Allowed: true}
	}
	return Decision{RetryAfter: microseconds(-verdict)}
}

// Verdict returns the decision as Spend does: 1, or less the microseconds until there is a token.
func (d Decision) Verdict() int64 {
	if d.Allowed {
		return 1
	}
	if d.RetryAfter < time.Microsecond {
		return -1
	}
	return -d.RetryAfter.Microseconds()
}

// Settings of a limiter.
type Settings struct {
	Store  Store               // nil: there is AllowLocal only
	Prefix string              // of a bucket's key in Redis
	Name   func(string) string // what the key of a bucket in Redis goes on with, for a key of ours
	Now    func() int64        // microseconds that only ever grow
}

// Limiter decides for all keys of one name. It is safe for concurrent use; no lock is held while Redis works. The times
// of its methods are those of its Now.
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

// Spend decides from what is known here: 1 says that a token of a lease in hand was taken; 0 that Redis must be asked, with
// Allow; a negative number that the bucket is empty, and will have a token in so many microseconds.
func (l *Limiter) Spend(key string, limit *Limit, now int64) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return spend(l.Known.get(key), limit, now)
}

// Allow takes a token from the bucket of key, in Redis. Requests that wait at the same time share one call. rider, which
// may be nil, is a call of somebody else's that goes the same way. The error, which comes by the deadline, wraps
// store.ErrUnavailable, or is ErrNotABucket or the script's own.
func (l *Limiter) Allow(key string, limit *Limit, now int64, deadline time.Time, rider *store.Call) (Decision, error) {
	l.Mu.Lock()
	b := l.forming[limit]
	leads := b == nil
	if leads {
		b = l.form(limit, deadline)
	}
	place := len(b.entries)
	l.join(b, key, now)
	if rider != nil {
		b.carry(rider)
	}
	l.dispatch(now)
	l.Mu.Unlock()
	if leads {
		b.takeoff.Wait()
		l.fly(b)
	} else {
		b.landing.Wait()
	}
	return b.decision(place)
}
