package store

import "time"

// noteMade numbers and notes a connection, so that it can be renewed, and ended when sentinels announce another master. If
// they have done so since it was begun, it has expired: it is not used.
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
	c.number = connCount.Add(1)
	if s.server != "" && c.address != s.server {
		c.expired = true
	}
}

// expireOthers notes another master, and returns the connections to be closed: the old one may accept writes for a while, but
// they will be lost. Connections in use are closed when they are released. Those to the new master get their numbers
// afterwards, so that the new one is known to have less data than they had.
func (s *Store) expireOthers(master string) (unneeded []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == master {
		return nil
	}
	if s.server != "" {
		s.lost.Store(connCount.Load())
	}
	s.server = master
	for _, c := range s.made {
		if c.address != master {
			c.expired = true
		}
	}
	unneeded = append(s.idle, s.awaited...)
	s.idle = nil
	s.awaited = nil
	return unneeded
}

// keepMade keeps a connection that was made without a request that waits for it.
func (s *Store) keepMade(c *conn) {
	s.noteMade(c)
	scheduleRenewal(s, c)
	release(s, c)
}

// dialAndCheckAt returns a new connection to the server at the address, which has passed a check.
func dialAndCheckAt(s *Store, address string) (*conn, error) {
	c, err := dialAt(s, address, time.Now().Add(s.settings.DialTimeout))
	if err != nil {
		return nil, err
	}
	call := s.checkCall()
	err = run(c, []*Call{call}, time.Now().Add(s.settings.Timeout))
	if err == nil {
		err = call.Err
	}
	if err != nil {
		closeConn(c)
		rereadLogin(s, c.login, err) // for the next attempt
		return nil, err
	}
	return c, nil
}
