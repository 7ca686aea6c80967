package store

import (
	"math/rand"
	"time"
)

// scheduleRenewal has the connection replaced when it reaches MaxConnAge, give or take a fifth: the connections of a fleet,
// made at the same time, are not all replaced at the same time.
func scheduleRenewal(s *Store, c *conn) {
	age := s.settings.MaxConnAge
	if age <= 0 {
		return
	}
	after := age*4/5 + time.Duration(rand.Int63n(int64(age*2/5)+1))
	s.mu.Lock()
	defer s.mu.Unlock()
	c.renewAt = time.Now().Add(after)
	c.renewTimer = time.AfterFunc(after, s.renewAged)
}

// initRenewals makes the function of all timers of a store. It is made once: a connection's function that was made in that of the one before
// would keep its frames alive, and so those of all before (R10).
func initRenewals(s *Store) {
	s.renewAged = func() {
		defer func() { recover() }()
		for c := s.takeAged(); c != nil; c = s.takeAged() {
			s.renew(c)
		}
	}
}

// takeAged returns a connection that has reached its age, once, or nil.
func (s *Store) takeAged() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.made {
		if !c.closed.Load() && !c.renewAt.IsZero() && time.Until(c.renewAt) <= 0 {
			c.renewAt = time.Time{}
			return c
		}
	}
	return nil
}

// renew replaces a connection by a new one, so that the store follows a name whose address has changed. No request waits for
// that: the old one serves until the new one exists and has passed a check.
func (s *Store) renew(c *conn) {
	if s.endForgotten() {
		return
	}
	if surplus, done := s.takeSurplus(c); done {
		closeAll(surplus)
		return
	}
	successor, err := s.dialAndCheck()
	if err != nil {
		postponeRenewal(s, c) // the old connection keeps serving, if it can
		return
	}
	closeAll(s.replace(c, successor))
}

func postponeRenewal(s *Store, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after := s.settings.MaxConnAge / 10
	c.renewAt = time.Now().Add(after)
	c.renewTimer.Reset(after)
}

// takeSurplus reports whether a connection needs no successor, and returns it if it is to be closed: there are others, and
// it was not used in the second half of its life.
func (s *Store) takeSurplus(c *conn) (surplus []*conn, done bool) {
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

// replace keeps the successor instead of a connection, and returns those to be closed. A connection in use is closed when it
// is released.
func (s *Store) replace(c, successor *conn) (unneeded []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.expired = true
	if at := indexOf(s.idle, c); at >= 0 && !successor.expired {
		s.idle[at] = successor
		return []*conn{c}
	}
	if !placeLocked(s, successor) {
		return []*conn{successor}
	}
	return nil
}
