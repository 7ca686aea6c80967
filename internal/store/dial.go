package store

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// maxReply is more than the scripts answer with, in bytes.
const maxReply = 1 << 20

// conn is one connection to Redis, used by one goroutine at a time.
type conn struct {
	redis  redis.Conn // that greets
	raw    net.Conn   // that runs scripts: redigo, interpreted, writes byte by byte, and takes long to read
	reader *bufio.Reader
	// fresh is set until the connection has answered once: only one that worked before can have died idle.
	fresh bool
}

// dial makes a connection: TCP, TLS, AUTH and SELECT, all within settings.DialTimeout.
func dial(settings Settings) (*conn, error) {
	deadline := time.Now().Add(settings.DialTimeout)
	dialer := &net.Dialer{Deadline: deadline}
	raw, err := dialer.Dial("tcp", settings.Address)
	if err != nil {
		return nil, err
	}
	if settings.TLS != nil {
		secure := tls.Client(raw, settings.TLS)
		raw.SetDeadline(deadline)
		if err := secure.Handshake(); err != nil {
			raw.Close()
			return nil, err
		}
		raw.SetDeadline(time.Time{})
		raw = secure
	}
	c := &conn{raw: raw, redis: redis.NewConn(raw, settings.Timeout, settings.Timeout), reader: bufio.NewReader(raw), fresh: true}
	if err := c.greet(settings, deadline); err != nil {
		c.redis.Close()
		return nil, err
	}
	return c, nil
}

// greet authenticates and selects the database.
func (c *conn) greet(settings Settings, deadline time.Time) error {
	if settings.Password != "" && settings.Username != "" {
		if err := c.expectOK(deadline, "AUTH", settings.Username, settings.Password); err != nil {
			return err
		}
	} else if settings.Password != "" {
		if err := c.expectOK(deadline, "AUTH", settings.Password); err != nil {
			return err
		}
	}
	if settings.DB != 0 {
		return c.expectOK(deadline, "SELECT", settings.DB)
	}
	return nil
}

// expectOK sends a command that Redis answers with OK. Interpreted redigo takes every simple string for an error
// (an interpreted named string type matches any string), so that OK comes back as one.
func (c *conn) expectOK(deadline time.Time, command string, args ...interface{}) error {
	left := time.Until(deadline)
	if left <= 0 {
		return errors.New("no time left to connect")
	}
	_, err := redis.DoWithTimeout(c.redis, left, command, args...)
	if err == nil || err.Error() == "OK" {
		return nil
	}
	return fmt.Errorf("%s: %s", command, err.Error())
}

// run sends the calls in one round trip, and once more in full those whose script Redis has not got. An error means that
// the connection is of no more use; calls that have their answer by then keep it.
func run(c *conn, calls []*Call, deadline time.Time) error {
	if err := roundTrip(c, calls, false, deadline); err != nil {
		return err
	}
	var unknown []*Call
	for _, call := range calls {
		if call.Err != nil && strings.HasPrefix(call.Err.Error(), "NOSCRIPT") {
			unknown = append(unknown, call)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return roundTrip(c, unknown, true, deadline)
}

func roundTrip(c *conn, calls []*Call, source bool, deadline time.Time) error {
	var lines []string
	for _, call := range calls {
		pend(call)
		lines = appendTo(lines, call, source)
	}
	lines = append(lines, "")
	if err := c.raw.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.raw.Write([]byte(strings.Join(lines, newline))); err != nil {
		return err
	}
	for _, call := range calls {
		if err := receive(c, call); err != nil {
			return err
		}
		c.fresh = false
	}
	return nil
}

// receive reads the reply to a call. Of the replies there are, our scripts make two, a string and an error: these few lines
// read them in one function, where redigo takes a method for each step. An error means that the connection is of no more use.
func receive(c *conn, call *Call) error {
	line, err := c.reader.ReadString('\n')
	if err != nil {
		return err
	}
	if len(line) < 3 || !strings.HasSuffix(line, newline) {
		return errBadReply
	}
	text := line[1 : len(line)-len(newline)]
	if line[0] == '-' {
		call.Err = errors.New(text)
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || line[0] != '$' || n < 0 || n > maxReply {
		return errBadReply
	}
	reply := make([]byte, n+len(newline))
	if _, err := io.ReadFull(c.reader, reply); err != nil {
		return err
	}
	read(call, string(reply[:n]))
	return nil
}
