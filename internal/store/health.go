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
	scheduleCheckLocked(s, jitter(s.retryDelay))
	for _, w := range s.waiters {
		w.err = ErrUnavailable
		w.done.Done()
	}
	s.waiters = nil
	return takeAllLocked(s), true
}

// runCheck finds out whether Redis is back. It runs in the background, one at a time, and schedules the next one itself.
func (s *Store) runCheck() {
	back := false
	defer func() {
		recover()
		if !back {
			s.backOff()
		}
	}()
	c, err := s.dialAndCheck()
	if err != nil {
		return
	}
	s.markAvailable()
	back = true
	release(s, c)
	s.notifySafely(nil)
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

// backOff schedules the next check, after twice the delay of the last one.
func (s *Store) backOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.retryDelay = s.retryDelay * 2
	if s.retryDelay > maxRetryDelay {
		s.retryDelay = maxRetryDelay
	}
	scheduleCheckLocked(s, jitter(s.retryDelay))
}

func scheduleCheckLocked(s *Store, after time.Duration) {
	time.AfterFunc(after, func() {
		defer func() { recover() }()
		s.runCheck()
	})
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
func (s *Store) noteLost() { s.lost.Store(connCount.Load()) }

// Lost returns the number of the latest connection that existed when one was lost; 0: none was lost yet. Later connections
// may be to a Redis that has lost what earlier ones stored.
func (s *Store) Lost() int64 { return s.lost.Load() }
