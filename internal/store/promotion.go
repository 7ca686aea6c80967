package store

import "time"

// noteMade notes a connection, so that it can be renewed, and ended when sentinels announce another master.
func (s *Store) noteMade(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []*conn
	for _, one := range s.made {
		if !one.closed.Load() {
			open = append(open, one)
		}
	}
	s.made = append(open, c)
}

// masterAnnounced connects to another master that the sentinels announce, and ends the connections to the old one: it may
// accept writes for a while, but they will be lost. It reports false if the new one cannot be used.
func (s *Store) masterAnnounced(address string) bool {
	if s.IsUnavailable() {
		return true // the next check uses it
	}
	c, err := dialAndCheckAt(s, address)
	if err != nil {
		return false
	}
	unneeded := s.switchTo(c)
	s.lost.Store(connCount.Load())
	closeAll(unneeded)
	return true
}

func dialAndCheckAt(s *Store, address string) (*conn, error) {
	c, err := dialAt(s, address, time.Now().Add(s.settings.DialTimeout))
	if err != nil {
		return nil, err
	}
	s.noteMade(c)
	scheduleRenewal(s, c)
	return passCheck(s, c, s.checkCall())
}

// switchTo keeps a connection instead of all others, and returns those to be closed. Connections in use are closed when they
// are released.
func (s *Store) switchTo(c *conn) (unneeded []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.made {
		if one != c {
			one.expired = true
		}
	}
	unneeded = s.idle
	s.idle = nil
	if !placeLocked(s, c) {
		unneeded = append(unneeded, c)
	}
	return unneeded
}
