package store

import (
	"fmt"
	"sync"
	"time"
)

const (
	maxIdle  = 16                     // connections kept for later
	maxDials = 4                      // connections made at a time
	longIdle = 100 * time.Millisecond // after which Redis, or a proxy before it, may have closed an idle connection
)

var errNoConnection = fmt.Errorf("%w: no connection in time", ErrUnavailable)

// waiter is a request that waits for a connection.
type waiter struct {
	done sync.WaitGroup // until conn or err is set
	conn *conn
	err  error
}

// acquire returns an idle connection, or waits for one until the deadline. Connections are made in the background.
func acquire(s *Store, deadline time.Time) (*conn, error) {
	c, w, err := takeOrWait(s)
	if w == nil {
		return c, err
	}
	timeLeft := time.Until(deadline)
	if timeLeft < grace {
		timeLeft = grace
	}
	timer := endWaitAfter(s, w, timeLeft, 1)
	w.done.Wait()
	timer.Stop()
	return w.conn, w.err
}

// takeOrWait returns an idle connection, or a waiter for the next one.
func takeOrWait(s *Store) (*conn, *waiter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Unavailable.Load() {
		return nil, nil, ErrUnavailable
	}
	if last := len(s.idle) - 1; last >= 0 {
		c := s.idle[last]
		s.idle = s.idle[:last]
		return c, nil, nil
	}
	w := &waiter{}
	w.done.Add(1)
	s.waiters = append(s.waiters, w)
	dialMoreLocked(s)
	return nil, w, nil
}

// endWaitAfter ends a wait after the duration. If this process was not scheduled then, neither was the goroutine that makes
// the connection: the wait gets a little more time.
func endWaitAfter(s *Store, w *waiter, after time.Duration, attempt int) *time.Timer {
	due := time.Now().Add(after)
	return time.AfterFunc(after, func() {
		defer func() { recover() }()
		if time.Since(due) > descheduled && attempt < maxAttempts {
			endWaitAfter(s, w, descheduled, attempt+1)
			return
		}
		s.endWait(w)
	})
}

// endWait ends a wait without a connection, unless it has ended.
func (s *Store) endWait(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range s.waiters {
		if one == w {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			w.err = errNoConnection
			w.done.Done()
			return
		}
	}
}

// release takes back a connection that has answered.
func release(s *Store, c *conn) {
	if !placeOrDial(s, c) {
		closeConn(c)
	}
}

func placeOrDial(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := placeLocked(s, c)
	dialMoreLocked(s)
	return kept
}

// dial makes a connection, or marks Redis unavailable.
func (s *Store) dial() {
	defer func() { recover() }()
	c, err := s.dialSafely()
	defer s.keepDialled(c)
	if err != nil {
		s.markUnavailable(err)
	}
}

// keepDialled ends a dial, which made a connection or nil. One that no request waits for is kept once it has answered.
func (s *Store) keepDialled(c *conn) {
	if s.finishDial(c) || c == nil {
		return
	}
	if addAwaited(s, c) {
		s.awaitAnswers(c, 0, time.Now().Add(s.settings.DialTimeout))
	} else {
		closeConn(c)
	}
}

// finishDial gives a new connection to a waiter, and reports whether there was one.
func (s *Store) finishDial(c *conn) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing--
	taken = c != nil && len(s.waiters) > 0 && placeLocked(s, c)
	dialMoreLocked(s)
	return taken
}

// dialMoreLocked starts a dial for each waiter, up to maxDials at a time.
func dialMoreLocked(s *Store) {
	for s.dialing < len(s.waiters) && s.dialing < maxDials {
		s.dialing++
		go s.dial()
	}
}

// placeLocked gives a connection to the longest-waiting waiter or keeps it, and reports whether it did.
func placeLocked(s *Store, c *conn) bool {
	if c.expired {
		return false
	}
	if len(s.waiters) > 0 {
		w := s.waiters[0]
		s.waiters = s.waiters[1:]
		w.conn = c
		w.done.Done()
		return true
	}
	if len(s.idle) >= s.idleCap {
		return false
	}
	s.idle = append(s.idle, c)
	return true
}

// closeIdle closes the idle connections: if one has died idle, all have.
func closeIdle(s *Store) {
	closeAll(takeIdle(s))
}

func takeIdle(s *Store) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.idle
	s.idle = nil
	return idle
}

// takeAllLocked returns all connections that no request uses; the store keeps none from then on.
func takeAllLocked(s *Store) []*conn {
	all := append(s.idle, s.awaited...)
	s.idle = nil
	s.awaited = nil
	s.idleCap = 0
	return all
}
