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
	grace       = 5 * time.Millisecond // for which an answer is looked for once more
	descheduled = 2 * grace            // more than we are ever late, unless others have the processors
	maxAttempts = 3                    // at one answer
)

// errUnsent is the error of calls that were not sent in time, so that Redis cannot have run them.
var errUnsent = errors.New("i/o timeout: not sent in time")

// readLine reads a line. When its deadline passes, what has come by then still counts.
func readLine(c *conn) (string, error) {
	c.limit.N = maxReply
	line, err := c.reader.ReadString('\n')
	line = c.partialLine + line
	c.partialLine = ""
	if isTimeout(err) {
		return readAfterDeadline(c, line)
	}
	return line, err
}

// lookAgain reads the rest of a line whose deadline has passed. Where this process was not scheduled meanwhile, that says nothing about
// Redis: the answer may have arrived, but a read after its deadline fails without looking. It does not look again where Redis is known
// to be away.
func readAfterDeadline(c *conn, line string) (string, error) {
	for i := 1; ; i++ {
		if c.unavailable != nil && c.unavailable.Load() {
			c.partialLine = line
			return "", os.ErrDeadlineExceeded
		}
		now := time.Now()
		c.stream.SetDeadline(now.Add(grace))
		rest, err := c.reader.ReadString('\n')
		line += rest
		if !isTimeout(err) {
			return line, err
		}
		if i == maxAttempts || time.Since(now) < descheduled {
			c.partialLine = line
			return "", err
		}
	}
}

// send sends calls. Where the deadline passes before the first byte is sent, it tries again; but TLS does not go on behind a write that
// failed.
func send(c *conn, text string) error {
	for i := 1; ; i++ {
		n, err := io.WriteString(c.stream, text)
		c.sentAt = time.Now()
		if !isTimeout(err) {
			return err
		}
		if n > 0 || c.isTLS || i == maxAttempts {
			return errUnsent
		}
		c.stream.SetDeadline(time.Now().Add(grace))
	}
}

// late handles a connection on which an answer has not come by the deadline. Whether Redis is late or this process was, is found out
// in the background: Redis gets the whole timeout, also for a call that was made late, and a second one where this process was not
// scheduled. The requests themselves do not wait for that.
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
	if !addAwaited(s, c) {
		closeConn(c)
		return reason
	}
	lines := 0
	for _, call := range calls {
		if call.Err == errPending {
			lines++
		}
	}
	go s.awaitAnswers(c, lines, until)
	return reason
}

// noteLate notes that the answers on a connection are awaited in the background, unless there is no use in that.
func addAwaited(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idleCap == 0 {
		return false
	}
	s.awaited = append(s.awaited, c)
	return true
}

// noteOver notes that the answers on a connection are no longer awaited. It reports whether they still were: the store may have given the
// connection up.
func removeAwaited(s *Store, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := indexOf(s.awaited, c)
	if at >= 0 {
		s.awaited = append(s.awaited[:at], s.awaited[at+1:]...)
	}
	return at >= 0
}

func timeoutError(s *Store) error {
	return fmt.Errorf("i/o timeout: no answer within %s", s.settings.Timeout)
}

// awaitRest awaits the answers that no request waits for any more, and takes the connection back.
func (s *Store) awaitAnswers(c *conn, lines int, until time.Time) {
	defer func() { recover() }()
	c.stream.SetDeadline(until)
	err := readLoads(c, "")
	for i := 0; i < lines && err == nil; i++ {
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

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}
