package store

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// A deadline may pass while this process is not scheduled. That says nothing about Redis: its answer may have arrived, but a
// read that begins after its deadline fails without looking. So reads and writes get a little more time then.
const (
	grace       = 5 * time.Millisecond // how much more time
	descheduled = 2 * grace            // this much later than planned means that the process was not scheduled
	maxAttempts = 3                    // at one read, write or wait
)

// errUnsent is the error of calls that were not sent in time, so that Redis cannot have run them.
var errUnsent = errors.New("i/o timeout: not sent in time")

func timeoutError(s *Store) error {
	return fmt.Errorf("i/o timeout: no answer within %s", s.settings.Timeout)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// send writes encoded calls. If the deadline passes before the first byte is written, it tries again, but not with TLS: a
// TLS connection does not recover from a write that failed.
func send(c *conn, text string) error {
	for attempt := 1; ; attempt++ {
		n, err := io.WriteString(c.stream, text)
		c.sentAt = time.Now()
		if !isTimeout(err) {
			return err
		}
		if n > 0 || c.isTLS || attempt == maxAttempts {
			return errUnsent
		}
		c.stream.SetDeadline(time.Now().Add(grace))
	}
}

// readLine reads a line. What has arrived when its deadline passes still counts.
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

// readAfterDeadline reads the rest of a line whose deadline has passed, unless Redis is known to be unavailable.
func readAfterDeadline(c *conn, line string) (string, error) {
	for attempt := 1; ; attempt++ {
		if c.unavailable != nil && c.unavailable.Load() {
			c.partialLine = line
			return "", os.ErrDeadlineExceeded
		}
		begun := time.Now()
		c.stream.SetDeadline(begun.Add(grace))
		rest, err := c.reader.ReadString('\n')
		line += rest
		if !isTimeout(err) {
			return line, err
		}
		if attempt == maxAttempts || time.Since(begun) < descheduled {
			c.partialLine = line
			return "", err
		}
	}
}
