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
type wait struct {
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
func endWaitAfter(s *Store, w *wait, patience time.Duration, look int) *time.Timer {
	due := time.Now().Add(patience)
	return time.AfterFunc(patience, func() {
		defer func() { recover() }()
		if time.Since(due) > stall && look < looks {
			endWaitAfter(s, w, stall, look+1)
			return
		}
		s.endWait(w)
	})
}

// takeOrWait returns an idle connection, or a place in the line of those who wait for one.
func takeOrWait(s *Store) (*conn, *wait, error) {
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
	w := &wait{}
	w.done.Add(1)
	s.waits = append(s.waits, w)
	dialMore(s)
	return nil, w, nil
}

// endWait ends a wait, unless it has ended.
func (s *Store) endWait(w *wait) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range s.waits {
		if one == w {
			s.waits = append(s.waits[:i], s.waits[i+1:]...)
			w.err = errNoConnection
			w.done.Done()
			return
		}
	}
}

// dialMore starts a dial for each request that waits, up to maxDials at once. mu is held.
func dialMore(s *Store) {
	for s.dials < len(s.waits) && s.dials < maxDials {
		s.dials++
		go s.dial()
	}
}

// dial makes a connection, or marks the store down.
func (s *Store) dial() {
	defer func() { recover() }()
	c, err := s.tryDial()
	defer s.dialled(c)
	if err != nil {
		s.markUnavailable(err)
	}
}

// dialled ends a dial, which made a connection or none. One that no request waits for is kept when it has answered.
func (s *Store) dialled(c *conn) {
	if s.endDial(c) || c == nil {
		return
	}
	if noteLate(s, c) {
		s.awaitRest(c, 0, time.Now().Add(s.settings.DialTimeout))
	} else {
		shut(c)
	}
}

// endDial gives a new connection to a request that waits, if there is one.
func (s *Store) endDial(c *conn) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials--
	taken = c != nil && len(s.waits) > 0 && place(s, c)
	dialMore(s)
	return taken
}

// place gives a connection to whoever has waited longest, or keeps it, and tells whether it did. mu is held.
func place(s *Store, c *conn) bool {
	if c.old {
		return false
	}
	if len(s.waits) > 0 {
		w := s.waits[0]
		s.waits = s.waits[1:]
		w.conn = c
		w.done.Done()
		return true
	}
	if len(s.idle) >= s.room {
		return false
	}
	s.idle = append(s.idle, c)
	return true
}

// release takes back a connection that has answered.
func release(s *Store, c *conn) {
	if !placeOrDial(s, c) {
		shut(c)
	}
}

func placeOrDial(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := place(s, c)
	dialMore(s)
	return kept
}

// dropIdle closes the idle connections: where one has died idle, they all have.
func dropIdle(s *Store) {
	hangUp(takeIdle(s))
}

func takeIdle(s *Store) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.idle
	s.idle = nil
	return idle
}

// takeAll returns all connections of which none is in use, and keeps none from then on. mu is held.
func takeAll(s *Store) []*conn {
	all := append(s.idle, s.late...)
	s.idle = nil
	s.late = nil
	s.room = 0
	return all
}

func hangUp(conns []*conn) {
	for _, c := range conns {
		shut(c)
	}
}

// keepYoung has the connection replaced when it has reached its age.
func keepYoung(s *Store, c *conn) {
	age := s.settings.MaxConnAge
	if age <= 0 {
		return
	}
	// The connections of a fleet, made at once, are not replaced at once.
	after := age*4/5 + time.Duration(rand.Int63n(int64(age*2/5)+1))
	s.mu.Lock()
	defer s.mu.Unlock()
	c.renewal = time.AfterFunc(after, func() {
		defer func() { recover() }()
		s.renew(c)
	})
}

// renew replaces an old connection by a new one, so that a name whose address has changed is followed. No request waits for that: the
// old one serves until the new one is there and has passed a check.
func (s *Store) renew(c *conn) {
	if surplus, over := s.outgrown(c); over {
		hangUp(surplus)
		return
	}
	made, err := s.tryCheck()
	if err != nil {
		renewLater(s, c) // it serves on, if it can
		return
	}
	hangUp(s.replace(c, made))
}

func renewLater(s *Store, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.renewal.Reset(s.settings.MaxConnAge / 10)
}

// outgrown tells whether a connection needs no successor, and returns it where it is to be closed: there are others, and it was not
// used in the second half of its life.
func (s *Store) outgrown(c *conn) (surplus []*conn, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room == 0 {
		return nil, true // it is closed, or will be
	}
	at := indexOf(s.idle, c)
	if at < 0 || len(s.idle) == 1 || time.Since(c.used) < s.settings.MaxConnAge/2 {
		return nil, false
	}
	s.idle = append(s.idle[:at], s.idle[at+1:]...)
	return []*conn{c}, true
}

// replace keeps one connection instead of another and returns those to be closed. One that is in use is closed when it comes back.
func (s *Store) replace(c, made *conn) (useless []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.old = true
	if at := indexOf(s.idle, c); at >= 0 {
		s.idle[at] = made
		return []*conn{c}
	}
	if !place(s, made) {
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
func (s *Store) noteLost() { s.lost.Store(made.Load()) }

// Lost returns the number of the latest connection that there was when one was lost; 0: none was. Later connections may be to a Redis
// that has forgotten what earlier ones knew.
func (s *Store) Lost() int64 { return s.lost.Load() }
