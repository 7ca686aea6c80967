package store

import (
	"fmt"
	"math/rand"
	"sync"
	"time"
)

const (
	maxIdle  = 16                     // connections kept for later
	maxDials = 4                      // connections being made at once
	longIdle = 100 * time.Millisecond // after which a connection may have been closed by a Redis, or something before it, that tidies up
)

var errNoConnection = fmt.Errorf("%w: no connection in time", ErrUnavailable)

// wait is a request that waits for a connection.
type waiter struct {
	done sync.WaitGroup // until what follows is there
	conn *conn
	err  error
}

// acquire returns a connection: an idle one, or one dialled in the background. A request waits no longer than the deadline.
func acquire(s *Store, deadline time.Time) (*conn, error) {
	c, w, err := takeOrWait(s)
	if w == nil {
		return c, err
	}
	patience := time.Until(deadline)
	if patience < grace {
		patience = grace
	}
	timer := endWaitAfter(s, w, patience, 1)
	w.done.Wait()
	timer.Stop()
	return w.conn, w.err
}

// endWaitAfter ends a wait when its time is over. Where this process was not scheduled then, neither was the goroutine that makes the
// connection: it gets a little more time.
func endWaitAfter(s *Store, w *waiter, patience time.Duration, look int) *time.Timer {
	due := time.Now().Add(patience)
	return time.AfterFunc(patience, func() {
		defer func() { recover() }()
		if time.Since(due) > descheduled && look < maxAttempts {
			endWaitAfter(s, w, descheduled, look+1)
			return
		}
		s.endWait(w)
	})
}

// takeOrWait returns an idle connection, or a place in the line of those who wait for one.
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

// endWait ends a wait, unless it has ended.
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

// dialMore starts a dial for each request that waits, up to maxDials at once. mu is held.
func dialMoreLocked(s *Store) {
	for s.dialing < len(s.waiters) && s.dialing < maxDials {
		s.dialing++
		go s.dial()
	}
}

// dial makes a connection, or marks the store down.
func (s *Store) dial() {
	defer func() { recover() }()
	c, err := s.dialSafely()
	defer s.keepDialled(c)
	if err != nil {
		s.markUnavailable(err)
	}
}

// dialled ends a dial, which made a connection or none. One that no request waits for is kept when it has answered.
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

// endDial gives a new connection to a request that waits, if there is one.
func (s *Store) finishDial(c *conn) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing--
	taken = c != nil && len(s.waiters) > 0 && placeLocked(s, c)
	dialMoreLocked(s)
	return taken
}

// place gives a connection to whoever has waited longest, or keeps it, and tells whether it did. mu is held.
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

// dropIdle closes the idle connections: where one has died idle, they all have.
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

// takeAll returns all connections of which none is in use, and keeps none from then on. mu is held.
func takeAllLocked(s *Store) []*conn {
	all := append(s.idle, s.awaited...)
	s.idle = nil
	s.awaited = nil
	s.idleCap = 0
	return all
}

func closeAll(conns []*conn) {
	for _, c := range conns {
		closeConn(c)
	}
}

// keepYoung has the connection replaced when it has reached its age.
func scheduleRenewal(s *Store, c *conn) {
	age := s.settings.MaxConnAge
	if age <= 0 {
		return
	}
	// The connections of a fleet, made at once, are not replaced at once.
	after := age*4/5 + time.Duration(rand.Int63n(int64(age*2/5)+1))
	s.mu.Lock()
	defer s.mu.Unlock()
	c.renewTimer = time.AfterFunc(after, func() {
		defer func() { recover() }()
		s.renew(c)
	})
}

// renew replaces an old connection by a new one, so that a name whose address has changed is followed. No request waits for that: the
// old one serves until the new one is there and has passed a check.
func (s *Store) renew(c *conn) {
	if surplus, over := s.takeSurplus(c); over {
		closeAll(surplus)
		return
	}
	made, err := s.dialAndCheck()
	if err != nil {
		postponeRenewal(s, c) // it serves on, if it can
		return
	}
	closeAll(s.replace(c, made))
}

func postponeRenewal(s *Store, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.renewTimer.Reset(s.settings.MaxConnAge / 10)
}

// outgrown tells whether a connection needs no successor, and returns it where it is to be closed: there are others, and it was not
// used in the second half of its life.
func (s *Store) takeSurplus(c *conn) (surplus []*conn, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idleCap == 0 {
		return nil, true // it is closed, or will be
	}
	at := indexOf(s.idle, c)
	if at < 0 || len(s.idle) == 1 || time.Since(c.usedAt) < s.settings.MaxConnAge/2 {
		return nil, false
	}
	s.idle = append(s.idle[:at], s.idle[at+1:]...)
	return []*conn{c}, true
}

// replace keeps one connection instead of another and returns those to be closed. One that is in use is closed when it comes back.
func (s *Store) replace(c, made *conn) (useless []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.expired = true
	if at := indexOf(s.idle, c); at >= 0 {
		s.idle[at] = made
		return []*conn{c}
	}
	if !placeLocked(s, made) {
		return []*conn{made}
	}
	return nil
}

func indexOf(conns []*conn, c *conn) int {
	for i, one := range conns {
		if one == c {
			return i
		}
	}
	return -1
}

// noteLost notes that a connection was lost, and not closed by us: what Redis held may be lost with it.
func (s *Store) noteLost() { s.lost.Store(connCount.Load()) }

// Lost returns the number of the latest connection that there was when one was lost; 0: none was. Later connections may be to a Redis
// that has forgotten what earlier ones knew.
func (s *Store) Lost() int64 { return s.lost.Load() }
