package store

import (
	"math/rand"
	"time"
)

const (
	minRetryDelay = 50 * time.Millisecond
	maxRetryDelay = 500 * time.Millisecond
)

// markUnavailable notes that Redis is unavailable and starts the checks, unless they run.
func (s *Store) markUnavailable(reason error) {
	unneeded, changed := s.setUnavailable()
	if !changed {
		return
	}
	closeAll(unneeded)
	s.notifySafely(reasonOf(reason))
}

func (s *Store) setUnavailable() (unneeded []*conn, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Unavailable.Load() {
		return nil, false
	}
	s.Unavailable.Store(true)
	s.noteLost()
	s.retryDelay = minRetryDelay
	go s.runChecks()
	for _, w := range s.waiters {
		w.err = ErrUnavailable
		w.done.Done()
	}
	s.waiters = nil
	return takeAllLocked(s), true
}

// runChecks finds out in the background when Redis is back. It is a loop, because checks that start each other would keep the frames of all
// before them alive (R10).
func (s *Store) runChecks() {
	defer func() { recover() }()
	for {
		time.Sleep(s.untilCheck())
		if s.check() || s.endForgotten() || !s.backOff() {
			return
		}
	}
}

func (s *Store) untilCheck() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return jitter(s.retryDelay)
}

// check reports whether Redis is back.
func (s *Store) check() (back bool) {
	defer func() { recover() }()
	c, err := s.dialAndCheck()
	if err != nil {
		return false
	}
	s.markAvailable()
	back = true
	release(s, c)
	s.notifySafely(nil)
	return true
}

func (s *Store) markAvailable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Unavailable.Store(false)
	s.noLoad.Store(false)
	if !s.closed {
		s.idleCap = maxIdle
	}
}

// backOff doubles the delay until the next check. It reports false if there is none, because the store is closed.
func (s *Store) backOff() bool {
	_, server := s.topology.describe()
	s.topology.failed(server)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retryDelay = s.retryDelay * 2
	if s.retryDelay > maxRetryDelay {
		s.retryDelay = maxRetryDelay
	}
	return !s.closed
}

// jitter spreads the checks of a fleet: from half of d to d.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int63n(int64(d/2)+1))
}

// notifySafely calls notify and recovers: a panic in it must not fail the call that was under way.
func (s *Store) notifySafely(reason error) {
	defer func() { recover() }()
	s.notify(reason)
}

// noteLost notes that a connection was lost, rather than closed by us: Redis may have lost its data too.
func (s *Store) noteLost() {
	s.lost.Store(connCount.Load())
	s.topology.doubt()
}

// Lost returns the number of the latest connection that existed when one was lost; 0: none was lost yet. Later connections
// may be to a Redis that has lost what earlier ones stored.
func (s *Store) Lost() int64 { return s.lost.Load() }
