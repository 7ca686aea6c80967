package ratelimit

import (
	"sync"

	"github.com/resilient-gateway/resilience/internal/store"
)

// While one trip is in flight, requests gather in the next one. This makes a call cheap. If Redis is slow to reply, several trips are in
// flight.
const (
	maxBatch     = 256  // requests
	maxInFlight  = 16   // trips
	sendInterval = 5000 // microseconds between trips that are sent without waiting for a reply
)

// When the CPU is saturated and Redis is close, batches are kept small, so that requests queue for Redis in order instead of competing
// for the CPU.
const (
	contendedAfter  = 300  // microseconds until all goroutines that were ready have run
	nearRTT         = 1000 // Redis is close if the fastest replies take fewer microseconds
	perCPU          = 6    // requests per processor in a small batch
	minContendedCap = 12
)

// contendedCapOf returns how many requests may join a batch while all of this many processors are saturated.
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

// A batch is a group of requests of one lane that ask Redis in one call, each for one token. The requests join the batch and wait for
// done; a worker asks for all of them. Mu guards the batch until done; from then on it does not change.
//
// Each request has a place in the batch. Requests that joined by their keys and leases to be renewed come first. Requests that joined by
// their identities follow.
type batch struct {
	number      int64
	cache       *Cache // only its requests may join by their identities
	limit       *Limit
	sendAt      int64    // when its trip may be sent although another one is in flight
	lastPlace   int      // index in ids of the last identity that fits
	ids         []string // of the requests that joined by their identities
	keys        []string // of the other requests; of all requests once the batch is sent
	args        []string // what each request asks for, as sent; trailing requests for one token are omitted
	returns     []int    // places that return a lease; a repeated call must not return it again
	prefetching []*Lease // leases of the keys for which the batch asks for the next lease
	payments    []*payment
	asks        []*planAsk // of the requests under plans; nil: they are all under the limit
	reports     bool       // its requests have passed by standing tokens, and wait for nothing
	reportKeys  []string   // of those that are not reported by their identities
	newLease    *Lease     // of the keys that the table did not have; prefetchedAt is when the first request joined
	call        *store.Call
	done        sync.WaitGroup // done when the verdicts below are final

	sentAt        int64
	replySeq      int64 // number of the last reply before the batch was sent
	borrowedTotal int64 // the limiter's borrowedTotal when the first request joined

	grantedAt  int64    // the verdict on a request that got its token; 0: the batch is not done
	allGranted bool     // every request got its token
	answers    []string // the script's answer for each place, unless allGranted
	err        error
}

// newBatchLocked makes the batch that the cache's next request opens. batchWorker inlines it.
func newBatchLocked(cache *Cache) {
	l := cache.limiter
	l.batchSeq++
	b := &batch{
		number: l.batchSeq, cache: cache, limit: cache.limit, newLease: &Lease{limit: cache.limit, common: true},
	}
	b.done.Add(1)
	cache.openBatch = b
}

// beginLocked opens a batch for its first request or renewal. cannotJoinLocked inlines it.
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
