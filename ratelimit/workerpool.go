package ratelimit

import (
	"fmt"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// overdueAfter is how late a worker may be, twice in a row: a store returns by the deadline, but the scheduler may delay the process.
const overdueAfter = 25 * time.Millisecond

// workerPool holds the workers of a limiter. A worker is a goroutine that sends trips, one at a time (batchWorker). A trip gets an idle
// worker, or a new one if none is idle. Idle workers wait until Close. The limiter's Mu guards the pool.
//
// Every request's wait ends, whatever happens to a worker: a worker that panics fails its trip, and a watchdog fails the trip of a worker
// that does not return. A new worker takes over the next trip.
type workerPool struct {
	idleWorkers int
	closed      bool         // workers end instead of waiting
	atWork      []*tripState // one for each worker
	watched     bool         // the watchdog is set
	workReady   *sync.Cond   // signals an idle worker; Close wakes all of them
	runWorker   func()       // runs a worker
	watchdog    func()
}

// tripState is the state of one worker and its trip.
type tripState struct {
	trip      []*batch  // in flight; nil: none
	zero      time.Time // when the limiter's clock was 0
	late      *batch    // first batch of the trip that was overdue at the watchdog's last run
	abandoned bool      // the worker panicked or did not return in time; its trip has failed
}

// initWorkers prepares a limiter's pool. It starts no worker.
func initWorkers(l *Limiter) {
	l.workReady = sync.NewCond(l.Mu)
	// These functions are made here, not on a request's path: a closure keeps the whole frame alive in which it was made (R10).
	l.runWorker = func() {
		defer func() { recover() }()
		batchWorker(l)
	}
	l.watchdog = func() {
		defer func() { recover() }()
		abandonOverdue(l)
	}
}

// startWorkerLocked claims the next pending trip for a worker: an idle worker, or a new one.
func startWorkerLocked(l *Limiter, now int64) {
	l.claimed++
	l.inFlight++
	l.nextSend = now + sendInterval
	if l.idleWorkers > 0 {
		l.idleWorkers--
		l.workReady.Signal()
	} else {
		go l.runWorker()
	}
}

// startWork adds a worker to atWork. It locks Mu itself.
func startWork(l *Limiter) *tripState {
	state := &tripState{}
	l.Mu.Lock()
	l.atWork = append(l.atWork, state)
	startStandingLocked(l)
	l.Mu.Unlock()
	return state
}

// endWorkLocked removes a worker from atWork.
func endWorkLocked(l *Limiter, state *tripState) {
	others := []*tripState{}
	for _, other := range l.atWork {
		if other != state {
			others = append(others, other)
		}
	}
	l.atWork = others
}

// abortTrip fails the trip that a panicking worker was handling or had claimed. It locks Mu if unlocked says that the worker did not
// hold it.
func abortTrip(l *Limiter, state *tripState, unlocked bool, reason interface{}) {
	if unlocked {
		l.Mu.Lock()
	}
	defer l.Mu.Unlock()
	if state.abandoned {
		return
	}
	trip := state.trip
	if trip == nil {
		endWorkLocked(l, state)
		if l.claimed == 0 {
			return // another worker has taken the trip
		}
		l.claimed--
		trip = l.pending[0]
		l.pending = l.pending[1:]
		l.waiting--
	}
	failTripLocked(l, state, trip, fmt.Errorf("ratelimit: panic: %v", reason))
}

// abandonOverdue is the watchdog: it fails trips whose workers did not return in time. It runs again while any trip is in flight.
func abandonOverdue(l *Limiter) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.watched = false
	now := time.Now()
	next := time.Duration(0)
	for _, state := range l.atWork {
		if state.trip == nil {
			continue
		}
		left := deadlineOfLocked(state).Sub(now)
		if left <= 0 && state.late == state.trip[0] {
			failTripLocked(l, state, state.trip, fmt.Errorf("%w: the batch worker did not return in time", store.ErrUnavailable))
			continue
		}
		if left <= 0 {
			state.late = state.trip[0]
			left = 0
		}
		if next == 0 || left+overdueAfter < next {
			next = left + overdueAfter
		}
	}
	if next > 0 {
		l.watched = true
		time.AfterFunc(next, l.watchdog)
	}
}

// watchLocked sets the watchdog for a trip that is about to be sent. If it is already set, its next run covers this trip.
func watchLocked(l *Limiter, state *tripState) {
	l.watched = true
	time.AfterFunc(time.Until(deadlineOfLocked(state))+overdueAfter, l.watchdog)
}

// deadlineOfLocked returns the deadline of a worker's trip on the process's clock.
func deadlineOfLocked(state *tripState) time.Time {
	return state.zero.Add(time.Duration(earliestDeadlineLocked(state.trip)) * time.Microsecond)
}

// failTripLocked fails the requests of a trip that still wait, and abandons its worker. The next trip gets another worker.
func failTripLocked(l *Limiter, state *tripState, trip []*batch, reason error) {
	state.abandoned = true
	state.trip = nil
	endWorkLocked(l, state)
	l.inFlight--
	for _, b := range trip {
		if b.grantedAt != 0 {
			continue // the requests of this batch have their verdicts
		}
		sealLocked(b)
		b.allGranted = false
		b.err = reason
		endPrefetchLocked(b)
		if b.reports {
			applyReportsLocked(l, b, 0)
		}
		for _, ask := range b.asks {
			endAskLocked(b, ask)
		}
		b.done.Done()
	}
	if l.waiting > l.claimed && l.inFlight < maxInFlight {
		startWorkerLocked(l, l.nextSend) // do not read the clock: it may be what panicked
	}
}
