// Package ratelimit is a token bucket for each key, shared through Redis by every gateway.
//
// A bucket starts full, a request takes one token, and time refills it. A Lua script on Redis's clock decides, but most requests need no
// decision: where a bucket has plenty of tokens, this gateway holds a lease on some of them and spends those without asking; where a
// bucket is known to be empty, nothing is asked until it has a token again. Requests that must ask do so in batches, one round trip each.
// While Redis is unavailable, and where there is none, AllowLocal decides on a bucket in this process, which continues from the last
// level that Redis reported.
//
// All times and durations are microseconds. Times are those of Settings.Now, which only measures durations.
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

// Undecided is the verdict of a request that could not be decided. LastErr says why.
const Undecided = math.MinInt64

// Store runs scripts on Redis.
type Store interface {
	// Run makes all calls in one round trip, and returns by the deadline. Each call has its answer or its error then.
	Run(calls []*store.Call, deadline time.Time) error
}

// BreakerRefresher lets a batch refresh the circuit breaker's view of the circuit in the same round trip.
type BreakerRefresher interface {
	// PiggybackCall returns a call that refreshes the view, to be sent with a batch, or nil.
	PiggybackCall(now int64) *store.Call
	// Extend refreshes the view when a batch has its reply.
	Extend(now int64)
}

// Settings of a limiter.
type Settings struct {
	Mu           sync.Locker         // guards the limiter and each Cache; nil: a mutex for this limiter. In the interpreter its methods are cheaper than a *sync.Mutex's
	HealthyUntil *int64              // until then the circuit is known to be closed; guarded by Mu; nil: it never is
	Store        Store               // nil: there is AllowLocal only
	Unavailable  *atomic.Bool        // Redis is known to be unavailable and is not asked; nil: never, where there is a Store
	Prefix       string              // of a bucket's key in Redis
	Safe         string              // the bytes that may follow the prefix in Redis as they are
	Name         func(string) string // what follows the prefix for a key with other bytes
	Now          func() int64        // microseconds; never goes back
}

// Limiter decides for all keys of one name. It is safe for concurrent use. No lock is held while Redis works.
type Limiter struct {
	Settings

	keyHeads     []string // by the length of a key: what precedes it on the wire
	contendedCap int      // requests in a batch while the CPU is saturated

	// Guarded by Mu.
	table
	queue
	workerPool
	plans         map[*Limit]*Plan  // of one draw each
	overflow      map[*Limit]*Lease // for all keys that there is no room for
	borrowedTotal int64             // tokens borrowed so far, in all leases
}

// New returns a limiter, which is to be closed when it is no longer needed. It asks Redis nothing.
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
		plans: map[*Limit]*Plan{}, overflow: map[*Limit]*Lease{}, queue: newQueue(),
	}
	initWorkers(l)
	return l
}

// Close ends the workers. Requests that still arrive are served.
func Close(l *Limiter) {
	l.Mu.Lock()
	l.closed = true
	l.idleWorkers = 0
	l.workReady.Broadcast()
	l.Mu.Unlock()
}
