package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/gomodule/redigo/redis"
)

// conn is one connection to Redis, used by one goroutine at a time.
type conn struct {
	raw   net.Conn   // commands are written to it directly: redigo, interpreted, writes them byte by byte
	redis redis.Conn // replies are read by it
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
	c := &conn{raw: raw, redis: redis.NewConn(raw, settings.Timeout, settings.Timeout), fresh: true}
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
func (c *conn) run(calls []*Call, deadline time.Time) error {
	if err := c.roundTrip(calls, false, deadline); err != nil {
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
	return c.roundTrip(unknown, true, deadline)
}

func (c *conn) roundTrip(calls []*Call, source bool, deadline time.Time) error {
	var lines []string
	for _, call := range calls {
		call.pend()
		lines = call.appendTo(lines, source)
	}
	lines = append(lines, "")
	if err := c.raw.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.raw.Write([]byte(strings.Join(lines, newline))); err != nil {
		return err
	}
	for _, call := range calls {
		left := time.Until(deadline)
		if left < time.Millisecond {
			left = time.Millisecond
		}
		reply, err := redis.ReceiveWithTimeout(c.redis, left)
		if err != nil && c.redis.Err() != nil {
			return err
		}
		c.fresh = false
		call.read(reply, err)
	}
	return nil
}
