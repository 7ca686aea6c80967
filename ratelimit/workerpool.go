package ratelimit

import (
	"fmt"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// overdueAfter is for how long a worker may be late, twice in a row: a store returns by the deadline, but the process may not have been
// scheduled.
const overdueAfter = 25 * time.Millisecond

// workerPool is the workers that send the trips of a limiter, one at a time each. They wait for work until Close; a new one is started if
// none is idle. The limiter's Mu guards it.
//
// Every request's wait ends, whatever happens to a worker: one that panics fails the trip that it handles, and a watchdog fails that of
// one that does not come back. Others take their places.
type workerPool struct {
	idleWorkers int
	closed      bool         // workers do not wait any more
	atWork      []*tripState // one for each worker
	watched     bool         // the watchdog is set
	workReady   *sync.Cond   // signals an idle worker; Close wakes all of them
	runWorker   func()       // runs a worker
	watchdog    func()
}

// tripState is what a worker has sent.
type tripState struct {
	trip      []*batch  // whose requests wait; nil: there is none
	zero      time.Time // when the limiter's clock was 0
	late      *batch    // of the trip that was overdue when last looked at
	abandoned bool      // the worker did not come back, and the trip is no longer its
}

// initWorkers makes what the workers of a limiter need.
func initWorkers(l *Limiter) {
	l.workReady = sync.NewCond(l.Mu)
	// Made here, and not where a request needs them: the interpreter keeps the whole frame in which a function was made.
	l.runWorker = func() {
		defer func() { recover() }()
		batchWorker(l)
	}
	l.watchdog = func() {
		defer func() { recover() }()
		abandonOverdue(l)
	}
}

// startWorkerLocked claims the next trip for a worker, an idle one or a new one.
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

// startWork adds a worker to those at work.
func startWork(l *Limiter) *tripState {
	state := &tripState{}
	l.Mu.Lock()
	l.atWork = append(l.atWork, state)
	l.Mu.Unlock()
	return state
}

// endWorkLocked removes a worker from those at work.
func endWorkLocked(l *Limiter, state *tripState) {
	others := []*tripState{}
	for _, other := range l.atWork {
		if other != state {
			others = append(others, other)
		}
	}
	l.atWork = others
}

// abortTrip fails the trip that a panicking worker was handling or had claimed.
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
			return // another worker has taken it
		}
		l.claimed--
		trip = l.pending[0]
		l.pending = l.pending[1:]
		l.waiting--
	}
	failTripLocked(l, state, trip, fmt.Errorf("ratelimit: panic: %v", reason))
}

// abandonOverdue fails the trips whose workers have not come back in time. It runs while any is in flight.
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

// watchLocked sets the watchdog for a trip that is about to be sent. One that is set already looks at this trip, too.
func watchLocked(l *Limiter, state *tripState) {
	l.watched = true
	time.AfterFunc(time.Until(deadlineOfLocked(state))+overdueAfter, l.watchdog)
}

// deadlineOfLocked returns the deadline of a trip on the process's clock.
func deadlineOfLocked(state *tripState) time.Time {
	return state.zero.Add(time.Duration(earliestDeadlineLocked(state.trip)) * time.Microsecond)
}

// failTripLocked fails the requests of a trip that still wait, and ends its worker's part in it. The next trip gets another worker.
func failTripLocked(l *Limiter, state *tripState, trip []*batch, reason error) {
	state.abandoned = true
	state.trip = nil
	endWorkLocked(l, state)
	l.inFlight--
	for _, b := range trip {
		if b.grantedAt != 0 {
			continue // its requests have their verdicts
		}
		sealLocked(b)
		b.allGranted = false
		b.err = reason
		endPrefetchLocked(b)
		b.done.Done()
	}
	if l.waiting > l.claimed && l.inFlight < maxInFlight {
		startWorkerLocked(l, l.nextSend) // not the clock, which may be what panicked
	}
}
