// Package ratelimit is a token bucket for each key, shared through Redis by every gateway.
//
// A bucket starts full, a request takes one token, and time refills it. A Lua script decides on Redis's clock, but most requests do not
// ask it. If a bucket has plenty of tokens, this gateway holds a lease on some of them and spends these without asking. If a bucket is
// known to be empty, the gateway does not ask until it has a token again. Requests that must ask gather in batches, and share round
// trips. If Redis is unavailable or not configured, AllowLocal decides with a bucket in this process. This bucket continues from the last
// level that Redis reported.
//
// All times and durations are in microseconds. Times come from Settings.Now, which only measures durations.
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

// ErrNotABucket means that the key holds data that this package did not write.
var ErrNotABucket = errors.New("ratelimit: the key in redis does not hold a bucket")

// Undecided is the verdict of a request that could not be decided. LastErr says why.
const Undecided = math.MinInt64

// Store runs scripts on Redis.
type Store interface {
	// Run makes all calls in one round trip, and returns by the deadline. It sets the answer or the error of each call.
	Run(calls []*store.Call, deadline time.Time) error
}

// BreakerRefresher lets a trip refresh the circuit breaker's view of the circuit in the same round trip.
type BreakerRefresher interface {
	// PiggybackCall returns a call that refreshes the view and is sent with a trip, or nil.
	PiggybackCall(now int64) *store.Call
	// Extend refreshes the view when a trip has its reply.
	Extend(now int64)
}

// Settings configure a limiter.
type Settings struct {
	Mu           sync.Locker         // guards the limiter and its caches; nil: a new mutex. A Locker: its calls are cheaper in the interpreter
	HealthyUntil *int64              // until when the circuit is known to be closed; guarded by Mu; nil: never
	Store        Store               // nil: only AllowLocal decides
	Unavailable  *atomic.Bool        // Redis is known to be unavailable and is not asked; nil: only if Store is nil
	Prefix       string              // of a bucket's key in Redis
	PlanPrefix   string              // of a key in Redis that a plan names
	Gateways     string              // the key in Redis of the registry of gateways with standing leases; "": there is none
	NotStanding  func(error)         // is told, once, why this gateway has no standing leases; nil: nobody is
	Safe         string              // the bytes that need no encoding in a key
	Name         func(string) string // encodes a key that has other bytes
	Now          func() int64        // microseconds; never goes back
}

// Limiter decides for all keys of one name. It is safe for concurrent use. It holds no lock while it waits for Redis.
type Limiter struct {
	Settings

	keyHeads     []string // what precedes a key on the wire, by the length of the key
	contendedCap int      // most requests in a batch while the CPU is saturated

	// Guarded by Mu.
	table
	queue
	workerPool
	penalties
	gateways      gateways
	delays        delays
	bucketTables  map[*Levels]*bucketTable
	overflow      map[*Limit]*Lease // shared by all keys for which the table has no room
	borrowedTotal int64             // tokens borrowed so far, in all leases
}

// New returns a limiter. It does not contact Redis. Close the limiter when it is no longer needed.
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
		overflow: map[*Limit]*Lease{}, bucketTables: map[*Levels]*bucketTable{}, queue: newQueue(), penalties: newPenalties(), delays: newDelays(),
		gateways: newGateways(settings),
	}
	initWorkers(l)
	initStanding(l)
	initRegistration(l)
	initReports(l)
	return l
}

// Close ends the idle workers, and the others after their trips. Requests that still arrive are served.
func Close(l *Limiter) {
	l.Mu.Lock()
	l.closed = true
	l.idleWorkers = 0
	l.workReady.Broadcast()
	l.Mu.Unlock()
}
