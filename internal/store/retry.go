package store

import (
	"errors"
	"fmt"
	"time"
)

// runAll is Run for any calls. It waits for a connection if none is idle.
func runAll(s *Store, calls []*Call, deadline time.Time) error {
	for _, call := range calls {
		markPending(call)
	}
	begun := time.Now()
	err := finalize(s, calls, tryConns(s, calls, deadline, 0))
	s.count(calls, begun)
	return err
}

// finishSlow ends a Run whose one call was sent but not answered with a string: reading failed with err, or the answer
// begins with line.
func finishSlow(s *Store, c *conn, calls []*Call, line string, err error, deadline time.Time) error {
	markPending(calls[0])
	if isTimeout(err) {
		line, err = readAfterDeadline(c, line)
	}
	if err == nil && c.pendingLoads > 0 {
		if err = readLoads(c, line); err == nil {
			line, err = readLine(c)
		}
	}
	if err == nil {
		err = parseReply(c, calls[0], line)
	}
	return finishAnswered(s, c, calls, err, deadline)
}

// finishUnsent ends a Run whose one call could not be written completely. If nothing was written because the deadline had
// passed, the connection may be sound: the call is made all the same, and waits for an answer for a few milliseconds.
func finishUnsent(s *Store, c *conn, calls []*Call, written int, err error, deadline time.Time) error {
	markPending(calls[0])
	if isTimeout(err) {
		err = errUnsent
		if written == 0 && !c.isTLS { // as in send
			err = roundTrip(c, calls, false, deadline)
		}
	}
	return finishAnswered(s, c, calls, err, deadline)
}

// finishAnswered ends a Run whose one call was answered, or failed with err.
func finishAnswered(s *Store, c *conn, calls []*Call, err error, deadline time.Time) error {
	defer s.count(calls, c.sentAt)
	if err == nil {
		err = runUnknown(c, calls, deadline)
	}
	if err == nil {
		c.usedAt = c.sentAt
		return finalize(s, calls, releaseOrFollow(s, c, calls, deadline, 0))
	}
	if err = discardConn(s, c, calls, err, deadline); err == nil {
		err = tryConns(s, calls, deadline, 0)
	}
	return finalize(s, calls, err)
}

// recoverRun ends a Run that panicked, as interpreted code may: that costs no more than an unavailable Redis. The connection
// in use, if any, is closed.
func recoverRun(s *Store, c *conn, calls []*Call, panicked interface{}) error {
	err := fmt.Errorf("panic: %v", panicked)
	s.markUnavailable(err)
	closeSafely(c)
	return failUnanswered(calls, err)
}

// tryConns makes the calls on one connection after another, until one has answered or the calls must not be repeated.
// Servers have already refused them as often as redirections says.
func tryConns(s *Store, calls []*Call, deadline time.Time, redirections int) error {
	for {
		c, err := acquire(s, deadline)
		if err != nil {
			return err
		}
		if !mayRepeat(calls) && diedIdle(c) {
			s.noteLost()
			closeConn(c)
			continue
		}
		err = run(c, calls, deadline)
		if err == nil {
			c.usedAt = c.sentAt
			return releaseOrFollow(s, c, calls, deadline, redirections)
		}
		if err = discardConn(s, c, calls, err, deadline); err != nil {
			return err
		}
	}
}

const peekTime = time.Millisecond // for which diedIdle waits for what has arrived

// diedIdle reports whether a connection that was idle for long has been closed meanwhile. That can be found
// out safely only before a call is sent: afterwards, Redis may have run the call.
func diedIdle(c *conn) bool {
	if time.Since(c.usedAt) < longIdle {
		return false
	}
	for attempt := 1; ; attempt++ {
		begun := time.Now()
		c.stream.SetDeadline(begun.Add(peekTime))
		err := readLoads(c, "")
		if err == nil {
			_, err = c.reader.ReadByte()
		}
		if !isTimeout(err) {
			return true
		}
		if attempt == maxAttempts || time.Since(begun) < 2*peekTime {
			return false
		}
	}
}

// discardConn gives up a connection that failed. It returns nil if the calls may be made once more, on another one.
func discardConn(s *Store, c *conn, calls []*Call, err error, deadline time.Time) error {
	if isTimeout(err) {
		return awaitInBackground(s, c, calls, deadline)
	}
	// Whatever failed, an answer may still arrive on this connection: it is never used again.
	closeConn(c)
	if errors.Is(err, errUnsent) {
		return err
	}
	err = failureOf(c, err)
	if c.unproven && c.sentAt.Sub(c.usedAt) < longIdle {
		s.markUnavailable(err)
		return err
	}
	s.noteLost()
	closeIdle(s)
	if !mayRepeat(calls) {
		return err
	}
	for _, call := range calls {
		if call.Again != nil {
			call.Again(call)
		}
	}
	return nil
}

// failureOf returns why a connection failed.
func failureOf(c *conn, err error) error {
	if c.limit.N <= 0 {
		return errNotRedis // it sent a line without an end
	}
	return err
}

func mayRepeat(calls []*Call) bool {
	for _, call := range calls {
		if call.Once && call.Again == nil {
			return false
		}
	}
	return true
}

// finalize gives err to every call without an answer. If err is nil, it looks for answers that make Redis unavailable.
func finalize(s *Store, calls []*Call, err error) error {
	if err != nil {
		return failUnanswered(calls, err)
	}
	for _, call := range calls {
		if call.Err == errNoScript { // though its source was just sent
			call.Err = unavailableError(errNoScript.Error())
		}
		if call.Err == errTryAgain || call.Err == errNowhere {
			continue // the slot's other keys are served
		}
		if call.Err != nil && errors.Is(call.Err, ErrUnavailable) {
			err = call.Err
			s.noteRefusal(call, err)
			s.markUnavailable(err)
		}
	}
	return err
}

// failUnanswered gives the error to every call without an answer.
func failUnanswered(calls []*Call, err error) error {
	if !errors.Is(err, ErrUnavailable) {
		err = unavailableError(reasonOf(err).Error())
	}
	for _, call := range calls {
		if call.Err == errPending {
			call.Err = err
		}
	}
	return err
}
