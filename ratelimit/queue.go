package ratelimit

import "github.com/resilient-gateway/resilience/internal/store"

// queue is where all requests of the limiter wait that must ask Redis, whatever their routes and limits. Those of one lane gather in a
// batch; the batches that wait at the same time, one of each lane, make a trip: they are sent in one round trip, a call each. The
// limiter's Mu guards it.
type queue struct {
	lanes    map[laneKey]*lane
	pending  [][]*batch // the trips to be sent, in order
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

// laneOf returns the lane of requests under a limit that wait until a timeout. Mu must be held.
func laneOf(l *Limiter, limit *Limit, timeout int64) *lane {
	key := laneKey{limit: limit, timeout: timeout}
	if l.lanes[key] == nil {
		l.lanes[key] = &lane{}
	}
	return l.lanes[key]
}

// cannotJoinLocked reports whether the cache's batch is closed to new requests: Redis is unavailable, or another cache's batch under the
// same limit is open. Otherwise it enqueues the batch if that has not begun, and sends its trip if that is overdue.
func cannotJoinLocked(cache *Cache, now int64) bool {
	l, b := cache.limiter, cache.openBatch
	if cache.lane.open == nil {
		if l.Unavailable.Load() {
			return true
		}
		cache.lane.open = b // beginLocked, written out
		b.newLease.prefetchedAt = now
		b.deadline = now + cache.timeout
		b.borrowedTotal = l.borrowedTotal
		b.lastPlace = l.batchCap - 1
		if len(l.pending) == 0 {
			l.pending = append(l.pending, []*batch{b})
			if l.inFlight == 0 {
				startWorkerLocked(l, now)
			}
		} else {
			joinTripLocked(l, b)
		}
	} else if cache.lane.open != b {
		return true
	}
	b.sendAt = l.nextSend
	if now >= b.sendAt {
		sendIfOverdueLocked(l, b, now)
	}
	return false
}

// joinTripLocked adds a batch to the last trip that waits, or begins another one if that has a batch of the same lane.
func joinTripLocked(l *Limiter, b *batch) {
	last := len(l.pending) - 1
	if batchOf(l.pending[last], b.cache.lane) != nil {
		l.pending = append(l.pending, []*batch{b})
	} else {
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
func sendIfOverdueLocked(l *Limiter, b *batch, now int64) {
	if maySendLocked(l, now) {
		startWorkerLocked(l, now)
	}
	b.sendAt = l.nextSend
}

// maySendLocked reports whether one more of the pending trips may be sent.
func maySendLocked(l *Limiter, now int64) bool {
	return len(l.pending) > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend)
}

// earliestDeadline returns when the first request of a trip must have its verdict.
func earliestDeadline(trip []*batch) int64 {
	deadline := trip[0].deadline
	for _, b := range trip {
		if b.deadline < deadline {
			deadline = b.deadline
		}
	}
	return deadline
}

// refresherOf returns what refreshes the breaker's view for the requests of a trip, or nil.
func refresherOf(trip []*batch) BreakerRefresher {
	for _, b := range trip {
		if b.cache.Refresher != nil {
			return b.cache.Refresher
		}
	}
	return nil
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
