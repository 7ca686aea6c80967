package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const (
	grace = 5 * time.Millisecond // for which an answer is looked for once more
	stall = 2 * grace            // more than we are ever late, unless others have the processors
	looks = 3                    // at one answer
)

// errUnsent is the error of calls that were not sent in time, so that Redis cannot have run them.
var errUnsent = errors.New("i/o timeout: not sent in time")

// readLine reads a line. When its deadline passes, what has come by then still counts.
func readLine(c *conn) (string, error) {
	c.limit.N = maxReply
	line, err := c.reader.ReadString('\n')
	line = c.begun + line
	c.begun = ""
	if isTimeout(err) {
		return lookAgain(c, line)
	}
	return line, err
}

// lookAgain reads the rest of a line whose deadline has passed. Where this process was not scheduled meanwhile, that says nothing about
// Redis: the answer may have arrived, but a read after its deadline fails without looking. It does not look again where Redis is known
// to be away.
func lookAgain(c *conn, line string) (string, error) {
	for i := 1; ; i++ {
		if c.away != nil && c.away.Load() {
			c.begun = line
			return "", os.ErrDeadlineExceeded
		}
		now := time.Now()
		c.raw.SetDeadline(now.Add(grace))
		rest, err := c.reader.ReadString('\n')
		line += rest
		if !isTimeout(err) {
			return line, err
		}
		if i == looks || time.Since(now) < stall {
			c.begun = line
			return "", err
		}
	}
}

// send sends calls. Where the deadline passes before the first byte is sent, it tries again; but TLS does not go on behind a write that
// failed.
func send(c *conn, text string) error {
	for i := 1; ; i++ {
		n, err := io.WriteString(c.raw, text)
		c.asked = time.Now()
		if !isTimeout(err) {
			return err
		}
		if n > 0 || c.secure || i == looks {
			return errUnsent
		}
		c.raw.SetDeadline(time.Now().Add(grace))
	}
}

// late handles a connection on which an answer has not come by the deadline. Whether Redis is late or this process was, is found out
// in the background: Redis gets the whole timeout, also for a call that was made late, and a second one where this process was not
// scheduled. The requests themselves do not wait for that.
func late(s *Store, c *conn, calls []*Call, deadline time.Time) error {
	reason := lateness(s)
	now := time.Now()
	until := c.asked.Add(s.settings.Timeout)
	if now.Sub(deadline) > stall {
		until = now.Add(s.settings.Timeout)
	}
	if !now.Before(until) {
		shut(c)
		s.markUnavailable(reason)
		return reason
	}
	if !noteLate(s, c) {
		shut(c)
		return reason
	}
	lines := 0
	for _, call := range calls {
		if call.Err == errPending {
			lines++
		}
	}
	go s.awaitRest(c, lines, until)
	return reason
}

// noteLate notes that the answers on a connection are awaited in the background, unless there is no use in that.
func noteLate(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room == 0 {
		return false
	}
	s.late = append(s.late, c)
	return true
}

// noteOver notes that the answers on a connection are no longer awaited. It reports whether they still were: the store may have given the
// connection up.
func noteOver(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := indexOf(s.late, c)
	if at >= 0 {
		s.late = append(s.late[:at], s.late[at+1:]...)
	}
	return at >= 0
}

func lateness(s *Store) error {
	return fmt.Errorf("i/o timeout: no answer within %s", s.settings.Timeout)
}

// awaitRest awaits the answers that no request waits for any more, and takes the connection back.
func (s *Store) awaitRest(c *conn, lines int, until time.Time) {
	defer func() { recover() }()
	c.raw.SetDeadline(until)
	err := readLoads(c, "")
	for i := 0; i < lines && err == nil; i++ {
		_, err = readLine(c)
	}
	if !noteOver(s, c) {
		shut(c)
		return
	}
	if err != nil {
		shut(c)
		if isTimeout(err) {
			s.markUnavailable(lateness(s))
		} else if c.fresh {
			s.markUnavailable(failureOf(c, err))
		}
		s.noteLost()
		return
	}
	c.fresh = false
	c.used = time.Now()
	release(s, c)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}
