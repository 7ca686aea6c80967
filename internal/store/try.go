package store

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// runAll is Run for any calls, and waits for a connection.
func runAll(s *Store, calls []*Call, deadline time.Time) error {
	for _, call := range calls {
		pend(call)
	}
	return settle(s, calls, try(s, calls, deadline))
}

// goOn is the rest of Run where a connection did not answer its one call with a string: it failed, with err, or its answer
// begins with the line.
func goOn(s *Store, c *conn, calls []*Call, line string, err error, sent, deadline time.Time) error {
	pend(calls[0])
	if err == nil {
		err = understand(c, calls[0], line)
	}
	if err == nil {
		err = runUnknown(c, calls, deadline)
	}
	if err == nil {
		release(s, c)
		return settle(s, calls, nil)
	}
	if err = giveUp(s, c, calls, err, deadline.Sub(sent)); err == nil {
		err = try(s, calls, deadline)
	}
	return settle(s, calls, err)
}

// stumble is the end of Run where the interpreter has stumbled, as over redigo: that must cost no more than a Redis that is
// away.
func stumble(s *Store, calls []*Call, trouble interface{}) error {
	err := fmt.Errorf("panic: %v", trouble)
	s.markDown(err)
	return fail(calls, err)
}

// settle gives the error to every call that got no answer, and looks for answers by which Redis is as good as away.
func settle(s *Store, calls []*Call, err error) error {
	if err != nil {
		return fail(calls, err)
	}
	for _, call := range calls {
		if call.Err != nil && away(call.Err.Error()) {
			s.markDown(call.Err)
			call.Err = fmt.Errorf("%w: %s", ErrUnavailable, call.Err.Error())
			err = call.Err
		}
	}
	return err
}

// fail gives every unanswered call the error.
func fail(calls []*Call, err error) error {
	if !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %s", ErrUnavailable, err.Error())
	}
	for _, call := range calls {
		if call.Err == errPending {
			call.Err = err
		}
	}
	return err
}

// try runs the calls on one connection after the other, until one has answered or no other may be tried.
func try(s *Store, calls []*Call, deadline time.Time) error {
	for {
		c, err := acquire(s, deadline)
		if err != nil {
			return err
		}
		sent := time.Now()
		err = run(c, calls, deadline)
		if err == nil {
			release(s, c)
			return nil
		}
		if err = giveUp(s, c, calls, err, deadline.Sub(sent)); err != nil {
			return err
		}
	}
}

// giveUp closes a connection that failed, when the calls had so much time. It returns nil where they may be run once more, on
// another.
func giveUp(s *Store, c *conn, calls []*Call, err error, had time.Duration) error {
	// Whatever failed, an answer may still be under way on this connection: it is never used again.
	c.redis.Close()
	if isTimeout(err) {
		// A call that was late already when it was sent says nothing about Redis.
		if had >= s.settings.Timeout/2 {
			s.markDown(err)
		}
		return err
	}
	if c.fresh || !mayRunAgain(calls) {
		s.markDown(err)
		return err
	}
	dropIdle(s)
	for _, call := range calls {
		if call.Again != nil {
			call.Again(call)
		}
	}
	return nil
}

func mayRunAgain(calls []*Call) bool {
	for _, call := range calls {
		if call.Once && call.Again == nil {
			return false
		}
	}
	return true
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}
