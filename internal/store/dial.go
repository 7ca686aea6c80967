package store

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/gomodule/redigo/redis"
)

// conn is one connection to Redis, used by one goroutine at a time.
type conn struct {
	redis  redis.Conn // that greets
	raw    net.Conn   // that runs scripts: redigo, interpreted, writes byte by byte, and takes long to read
	reader *bufio.Reader
	number int64 // grows from one connection to the next, of whichever store
	// fresh is set until the connection has answered once: only one that worked before can have died idle.
	fresh bool
}

// made counts the connections of this process.
var made atomic.Int64

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
	c := &conn{raw: raw, redis: redis.NewConn(raw, settings.Timeout, settings.Timeout), reader: bufio.NewReader(raw), number: made.Add(1), fresh: true}
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
