package ratelimit

import (
	"sync"

	"github.com/resilient-gateway/resilience/internal/store"
)

// One batch in flight gathers the next one behind it, which is what makes a call cheap. More are in flight where Redis is far away.
const (
	maxBatch     = 256  // requests
	maxInFlight  = 16   // trips
	sendInterval = 5000 // microseconds after the last trip was sent, until another one is though that has no reply
)

// When the CPU is saturated and Redis is close, batches are kept small, so that requests queue for Redis in order instead of competing
// for the CPU.
const (
	contendedAfter  = 300  // microseconds until all goroutines that were ready have run
	nearRTT         = 1000 // microseconds that the fastest replies take at most
	perCPU          = 6    // requests in a batch then
	minContendedCap = 12
)

// contendedCapOf returns how many requests may join a batch while this many processors are saturated.
func contendedCapOf(processors int) int {
	requests := processors * perCPU
	if requests < minContendedCap {
		return minContendedCap
	}
	if requests > maxBatch {
		return maxBatch
	}
	return requests
}

// batch is requests under one limit that ask Redis in one call, each for one token. They join, and wait for done; a worker does the rest
// for all of them at once. Until done, Mu guards it; then it does not change.
//
// A request has a place: first come those that joined by their keys, and the leases to be renewed, then those that joined by their
// identities.
type batch struct {
	number      int64
	cache       *Cache // whose requests may join by their identities
	limit       *Limit
	sendAt      int64    // from then on it may be sent though another one is in flight
	lastPlace   int      // the place of the last identity that there is room for
	ids         []string // of the requests that joined by those
	keys        []string // of the others; when it is sent, of all
	args        []string // what they ask for, as it is sent; there is none for those at the end that ask for one token
	returns     []int    // places that return a lease, which must not happen twice
	prefetching []*Lease // for which it asks for the next lease
	payments    []*payment
	newLease    *Lease         // of the keys that were not known before; prefetchedAt is when the oldest request came
	call        *store.Call    // that it makes
	done        sync.WaitGroup // until all below is there

	sentAt        int64
	replySeq      int64 // number of the last reply before it was sent
	borrowedTotal int64 // tokens borrowed until its first request joined

	grantedAt  int64    // the verdict on a request that got its token; 0: not done
	allGranted bool     // all did
	answers    []string // to each, if not
	err        error
}

// newBatchLocked makes the batch that the cache's next request begins. The worker has it written out.
func newBatchLocked(cache *Cache) {
	l := cache.limiter
	l.batchSeq++
	b := &batch{
		number: l.batchSeq, cache: cache, limit: cache.limit, newLease: &Lease{limit: cache.limit, common: true},
	}
	b.done.Add(1)
	cache.openBatch = b
}

// beginLocked opens a batch: its first request joins, or leases are to be renewed.
func beginLocked(l *Limiter, b *batch, now int64) {
	b.cache.lane.open = b
	b.newLease.prefetchedAt = now
	b.borrowedTotal = l.borrowedTotal
	b.lastPlace = l.batchCap - 1
}

// sealLocked closes a batch to further requests.
func sealLocked(b *batch) {
	if b.cache.lane.open == b {
		b.cache.lane.open = nil
		newBatchLocked(b.cache)
	}
}
