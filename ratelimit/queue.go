package ratelimit

import (
	"math"

	"github.com/resilient-gateway/resilience/internal/store"
)

// The queue holds the requests of a limiter that wait for Redis: each request is in a batch, and each batch is in a trip. The limiter's
// Mu guards it.
//
// A trip is the batches that a worker sends in one round trip, each as one call. It has at most one batch of each lane.
type queue struct {
	lanes    map[laneKey]*lane
	pending  [][]*batch // the trips to send, in order
	waiting  int        // len(pending), which allocates in the interpreter
	mixed    bool       // a pending trip may have several batches
	claimed  int        // how many pending trips workers have claimed, from the first on
	inFlight int        // trips that are claimed, or sent without a reply yet
	nextSend int64      // when another trip may be sent although some are in flight
	renewals []renewal  // for the next trip
	batchCap int        // most requests in a batch
	batchSeq int64      // number of the last batch
	replySeq int64      // number of the last reply
	minRTT   int64      // about the duration of the fastest of the last few hundred replies
}

// A lane is the requests of a limiter with the same limit and the same timeout, whatever their routes. It has at most one open batch,
// which these requests join.
type lane struct {
	open *batch // nil: none
}

type laneKey struct {
	limit   *Limit
	timeout int64
}

func newQueue() queue {
	return queue{lanes: map[laneKey]*lane{}, batchCap: maxBatch, minRTT: sendInterval}
}

// laneOfLocked returns the lane of a limit and a timeout.
func laneOfLocked(l *Limiter, limit *Limit, timeout int64) *lane {
	key := laneKey{limit: limit, timeout: timeout}
	if l.lanes[key] == nil {
		l.lanes[key] = &lane{}
	}
	return l.lanes[key]
}

// cannotJoinLocked reports whether the cache's batch is closed to new requests: Redis is unavailable, or the lane's open batch belongs to
// another cache. Otherwise it opens and enqueues the batch if necessary, and sends its trip if that is overdue.
func cannotJoinLocked(cache *Cache, now int64) bool {
	l, lane, b := cache.limiter, cache.lane, cache.openBatch
	if lane.open == nil {
		if l.Unavailable.Load() {
			return true
		}
		lane.open = b // beginLocked, inlined
		b.newLease.prefetchedAt = now
		b.borrowedTotal = l.borrowedTotal
		b.lastPlace = l.batchCap - 1
		if l.waiting == 0 {
			l.waiting++
			l.pending = append(l.pending, []*batch{b})
			if l.inFlight == 0 {
				startWorkerLocked(l, now)
			}
		} else {
			joinTripLocked(l, b)
		}
	} else if lane.open != b {
		return true
	}
	b.sendAt = l.nextSend
	if now >= b.sendAt {
		sendIfOverdueLocked(b, now)
	}
	return false
}

// joinTripLocked adds a batch to the last pending trip. If that trip already has a batch of the same lane, it adds a new trip.
func joinTripLocked(l *Limiter, b *batch) {
	last := l.waiting - 1
	if batchOf(l.pending[last], b.cache.lane) != nil {
		l.waiting++
		l.pending = append(l.pending, []*batch{b})
	} else {
		l.mixed = true
		l.pending[last] = append(l.pending[last], b)
	}
}

// batchOf returns the trip's batch of the lane, or nil.
func batchOf(trip []*batch, lane *lane) *batch {
	for _, b := range trip {
		if b.cache.lane == lane {
			return b
		}
	}
	return nil
}

// sendIfOverdueLocked sends the next pending trip if the last one was sent long enough ago. b is a pending batch.
func sendIfOverdueLocked(b *batch, now int64) {
	l := b.cache.limiter
	if maySendLocked(l, now) {
		startWorkerLocked(l, now)
	}
	b.sendAt = l.nextSend
}

// maySendLocked reports whether a worker may claim another pending trip.
func maySendLocked(l *Limiter, now int64) bool {
	return l.waiting > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend)
}

// earliestDeadlineLocked returns the earliest deadline of a trip's requests.
func earliestDeadlineLocked(trip []*batch) int64 {
	earliest := int64(math.MaxInt64)
	for _, b := range trip {
		if deadline := b.newLease.prefetchedAt + b.cache.timeout; deadline < earliest {
			earliest = deadline
		}
	}
	return earliest
}

// refreshingCache returns the first cache of a trip that can refresh the breaker's view, or the last cache if none can.
func refreshingCache(trip []*batch) *Cache {
	for _, b := range trip {
		if b.cache.Refresher != nil {
			return b.cache
		}
	}
	return trip[len(trip)-1].cache
}

// withPiggyback appends the breaker's call to the calls of a trip, unless it is nil.
func withPiggyback(calls []*store.Call, piggyback *store.Call) []*store.Call {
	if piggyback == nil {
		return calls
	}
	return append(calls, piggyback)
}

// finishPiggyback passes the breaker the answer to its call, which follows the calls of the batches.
func finishPiggyback(calls []*store.Call, batches int) {
	for _, call := range calls[batches:] {
		store.Finish(call)
	}
}
