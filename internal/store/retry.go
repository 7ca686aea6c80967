package store

import (
	"errors"
	"fmt"
	"time"
)

// runAll is Run for any calls, and waits for a connection.
func runAll(s *Store, calls []*Call, deadline time.Time) error {
	for _, call := range calls {
		markPending(call)
	}
	return finalize(s, calls, tryConns(s, calls, deadline))
}

// goOn is the rest of Run where a connection did not answer its one call with a string: it failed, with err, or its answer
// begins with the line.
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

// goOnUnsent is the rest of Run where its one call could not be written, but for the first bytes. If there are none, and only the
// deadline has passed, that says nothing about the connection: it is asked all the same, for as long as an answer takes that is near.
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

// goOnWith is the rest of Run where its one call has its answer, or failed.
func finishAnswered(s *Store, c *conn, calls []*Call, err error, deadline time.Time) error {
	if err == nil {
		err = runUnknown(c, calls, deadline)
	}
	if err == nil {
		c.usedAt = c.sentAt
		release(s, c)
		return finalize(s, calls, nil)
	}
	if err = discardConn(s, c, calls, err, deadline); err == nil {
		err = tryConns(s, calls, deadline)
	}
	return finalize(s, calls, err)
}

// stumble is the end of Run where the interpreter has stumbled, as over redigo: that must cost no more than a Redis that is
// away. The connection in use, if there is one, is lost.
func recoverRun(s *Store, c *conn, calls []*Call, trouble interface{}) error {
	err := fmt.Errorf("panic: %v", trouble)
	s.markUnavailable(err)
	closeSafely(c)
	return failUnanswered(calls, err)
}

// drop closes what may be no connection.
func closeSafely(c *conn) {
	defer func() { recover() }()
	if c != nil {
		closeConn(c)
	}
}

// settle gives the error to every call that got no answer, and looks for answers by which Redis is as good as away.
func finalize(s *Store, calls []*Call, err error) error {
	if err != nil {
		return failUnanswered(calls, err)
	}
	for _, call := range calls {
		if call.Err == errNoScript { // that it was just sent
			call.Err = unavailableError(errNoScript.Error())
		}
		if call.Err != nil && errors.Is(call.Err, ErrUnavailable) {
			err = call.Err
			s.noteRefusal(call, err)
			s.markUnavailable(err)
		}
	}
	return err
}

// fail gives every unanswered call the error.
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

// try runs the calls on one connection after the other, until one has answered or no other may be tried.
func tryConns(s *Store, calls []*Call, deadline time.Time) error {
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
			release(s, c)
			return nil
		}
		if err = discardConn(s, c, calls, err, deadline); err != nil {
			return err
		}
	}
}

const peekTime = time.Millisecond // for a look at what has come

// died tells whether a connection that was idle for long has been closed meanwhile. That can be told before something is sent, and
// not afterwards, when Redis may have run it.
func diedIdle(c *conn) bool {
	if time.Since(c.usedAt) < longIdle {
		return false
	}
	for i := 1; ; i++ {
		now := time.Now()
		c.stream.SetDeadline(now.Add(peekTime))
		err := readLoads(c, "")
		if err == nil {
			_, err = c.reader.ReadByte()
		}
		if !isTimeout(err) {
			return true
		}
		if i == maxAttempts || time.Since(now) < 2*peekTime {
			return false
		}
	}
}

// giveUp closes a connection that failed. It returns nil where the calls may be run once more, on another.
func discardConn(s *Store, c *conn, calls []*Call, err error, deadline time.Time) error {
	if isTimeout(err) {
		return awaitInBackground(s, c, calls, deadline)
	}
	// Whatever failed, an answer may still be under way on this connection: it is never used again.
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
		return errNotRedis // its line did not end
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
