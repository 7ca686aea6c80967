package store

import "time"

// awaitInBackground keeps a connection whose answer has not arrived by the deadline, and returns the error of its calls.
// The background wait shows whether Redis is slow or this process was: Redis gets the whole timeout, even for a call that was
// made late, and a second one if this process was not scheduled. The requests do not wait for that.
func awaitInBackground(s *Store, c *conn, calls []*Call, deadline time.Time) error {
	reason := timeoutError(s)
	now := time.Now()
	until := c.sentAt.Add(s.settings.Timeout)
	if now.Sub(deadline) > descheduled {
		until = now.Add(s.settings.Timeout)
	}
	if !now.Before(until) {
		closeConn(c)
		s.markUnavailable(reason)
		return reason
	}
	if c.asking || !addAwaited(s, c) { // each answer of an importing node is two lines
		closeConn(c)
		return reason
	}
	unanswered := 0
	for _, call := range calls {
		if call.Err == errPending {
			unanswered++
		}
	}
	go s.awaitAnswers(c, unanswered, until)
	return reason
}

// awaitAnswers reads answers that no request waits for any more, and keeps the connection if they arrive.
func (s *Store) awaitAnswers(c *conn, answers int, until time.Time) {
	defer func() { recover() }()
	c.stream.SetDeadline(until)
	err := readLoads(c, "")
	for i := 0; i < answers && err == nil; i++ {
		_, err = readLine(c)
	}
	if !removeAwaited(s, c) {
		closeConn(c)
		return
	}
	if err != nil {
		closeConn(c)
		if isTimeout(err) {
			s.markUnavailable(timeoutError(s))
		} else if c.unproven {
			s.markUnavailable(failureOf(c, err))
		}
		s.noteLost()
		return
	}
	c.unproven = false
	c.usedAt = time.Now()
	release(s, c)
}

// addAwaited adds the connection to those whose answers are awaited. It reports false if the store keeps none.
func addAwaited(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idleCap == 0 {
		return false
	}
	s.awaited = append(s.awaited, c)
	return true
}

// removeAwaited ends the wait for a connection's answers. It reports false if the store has closed the connection.
func removeAwaited(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := indexOf(s.awaited, c)
	if at >= 0 {
		s.awaited = append(s.awaited[:at], s.awaited[at+1:]...)
	}
	return at >= 0
}
