package ratelimit

import "sync"

// One batch in flight gathers the next one behind it, which is what makes a call cheap. More are in flight where Redis is far away.
const (
	maxBatch     = 256  // requests
	maxInFlight  = 16   // batches
	sendInterval = 5000 // microseconds after the last batch was sent, until another one is though that has no reply
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
	done        sync.WaitGroup // until all below is there

	sentAt        int64
	replySeq      int64 // number of the last reply before it was sent
	borrowedTotal int64 // tokens borrowed until its first request joined

	grantedAt  int64    // the verdict on a request that got its token
	allGranted bool     // all did
	answers    []string // to each, if not
	err        error
}

// queue is where requests under one limit meet.
type queue struct {
	open     *batch   // that has begun and may be joined, or nil
	renewals []string // keys whose leases are to be renewed
}

// newBatchLocked makes the batch that the cache's next request begins. The worker has it written out.
func newBatchLocked(cache *Cache) {
	l := cache.limiter
	l.batchSeq++
	b := &batch{
		number: l.batchSeq, cache: cache, limit: cache.limit, newLease: &Lease{limit: cache.limit, common: true, usage: usage{requests: 1}},
	}
	b.done.Add(1)
	cache.openBatch = b
}

// cannotJoinLocked reports whether the cache's batch is closed to new requests: Redis is unavailable, or another cache's batch under the
// same limit is open. Otherwise it enqueues the batch if that has not begun, and sends it if it is overdue.
func cannotJoinLocked(cache *Cache, now int64) bool {
	l, queue, b := cache.limiter, cache.queue, cache.openBatch
	if queue.open == nil {
		if l.Unavailable.Load() {
			return true
		}
		queue.open = b
		b.newLease.prefetchedAt = now
		b.borrowedTotal = l.borrowedTotal
		b.lastPlace = l.batchCap - 1
		l.pending = append(l.pending, b)
		if l.inFlight == 0 {
			startWorkerLocked(l, now)
		}
	} else if queue.open != b {
		return true
	}
	b.sendAt = l.nextSend
	if now >= b.sendAt {
		sendIfOverdue(b, now)
	}
	return false
}

// sendIfOverdue sends a batch that has waited for long. Mu must be held.
func sendIfOverdue(b *batch, now int64) {
	l := b.cache.limiter
	if maySendLocked(l, now) {
		startWorkerLocked(l, now)
	}
	b.sendAt = l.nextSend
}

// sealLocked closes a batch to further requests.
func sealLocked(b *batch) {
	cache := b.cache
	if cache.queue.open == b {
		cache.queue.open = nil
		newBatchLocked(cache)
	}
}
