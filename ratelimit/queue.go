package ratelimit

import (
	"math"

	"github.com/resilient-gateway/resilience/internal/store"
)

// queue is where all requests of the limiter wait that must ask Redis, whatever their routes and limits. Those of one lane gather in a
// batch; the batches that wait at the same time, one of each lane, make a trip: they are sent in one round trip, a call each. The
// limiter's Mu guards it.
type queue struct {
	lanes    map[laneKey]*lane
	pending  [][]*batch // the trips to be sent, in order
	waiting  int        // how many those are: in the interpreter, len makes objects
	mixed    bool       // one of them may have several batches
	claimed  int        // how many of the first may be sent; a worker is on its way to each
	inFlight int        // trips that are claimed, or sent and not answered
	nextSend int64      // from then on another trip may be sent though some are in flight
	renewals []renewal  // of leases, by the next trip
	batchCap int        // requests that may join a batch
	batchSeq int64      // number of the last batch
	replySeq int64      // number of the last reply
	minRTT   int64      // duration of the fastest of the last few hundred replies, or a little more
}

// lane is the requests of the queue under one limit, which all wait for the same time.
type lane struct {
	open *batch // that has begun and may be joined, or nil
}

type laneKey struct {
	limit   *Limit
	timeout int64
}

func newQueue() queue {
	return queue{lanes: map[laneKey]*lane{}, batchCap: maxBatch, minRTT: sendInterval}
}

// laneOfLocked returns the lane of requests under a limit that wait until a timeout. Mu must be held.
func laneOfLocked(l *Limiter, limit *Limit, timeout int64) *lane {
	key := laneKey{limit: limit, timeout: timeout}
	if l.lanes[key] == nil {
		l.lanes[key] = &lane{}
	}
	return l.lanes[key]
}

// cannotJoinLocked reports whether the cache's batch is closed to new requests: Redis is unavailable, or another cache's batch under the
// same limit is open. Otherwise it enqueues the batch if that has not begun, and sends its trip if that is overdue.
func cannotJoinLocked(cache *Cache, now int64) bool {
	l, lane, b := cache.limiter, cache.lane, cache.openBatch
	if lane.open == nil {
		if l.Unavailable.Load() {
			return true
		}
		lane.open = b // beginLocked, written out
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

// joinTripLocked adds a batch to the last trip that waits, or begins another one if that has a batch of the same lane.
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

// batchOf returns the batch of a trip that is of the lane, or nil.
func batchOf(trip []*batch, lane *lane) *batch {
	for _, b := range trip {
		if b.cache.lane == lane {
			return b
		}
	}
	return nil
}

// sendIfOverdueLocked sends a trip if the last one was sent long ago. b is a batch that waits.
func sendIfOverdueLocked(b *batch, now int64) {
	l := b.cache.limiter
	if maySendLocked(l, now) {
		startWorkerLocked(l, now)
	}
	b.sendAt = l.nextSend
}

// maySendLocked reports whether one more of the pending trips may be sent.
func maySendLocked(l *Limiter, now int64) bool {
	return l.waiting > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend)
}

// earliestDeadlineLocked returns when the first request of a trip must have its verdict.
func earliestDeadlineLocked(trip []*batch) int64 {
	earliest := int64(math.MaxInt64)
	for _, b := range trip {
		if deadline := b.newLease.prefetchedAt + b.cache.timeout; deadline < earliest {
			earliest = deadline
		}
	}
	return earliest
}

// refreshingCache returns the first cache of a trip that refreshes the breaker's view, or the last one of all.
func refreshingCache(trip []*batch) *Cache {
	for _, b := range trip {
		if b.cache.Refresher != nil {
			return b.cache
		}
	}
	return trip[len(trip)-1].cache
}

// withPiggyback adds the breaker's call to those of a trip, if there is one.
func withPiggyback(calls []*store.Call, piggyback *store.Call) []*store.Call {
	if piggyback == nil {
		return calls
	}
	return append(calls, piggyback)
}

// finishPiggyback hands the breaker its answer: that of the call which follows those of the batches.
func finishPiggyback(calls []*store.Call, batches int) {
	for _, call := range calls[batches:] {
		store.Finish(call)
	}
}
