package store

import (
	"bufio"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/gomodule/redigo/redis"
)

// maxReply is the most bytes that a reply may have: more than any reply to a call of the engines.
const maxReply = 1 << 20

// conn is one connection to Redis, used by one goroutine at a time.
type conn struct {
	redigo      redis.Conn        // sends AUTH and SELECT
	stream      net.Conn          // runs scripts: interpreted, redigo writes byte by byte and reads slowly
	limit       *io.LimitedReader // of stream; set before each read, so that a line without an end cannot fill the memory
	reader      *bufio.Reader     // of limit
	partialLine string            // the beginning of a line whose deadline has passed

	pendingLoads int          // answers to SCRIPT LOAD that have not been read
	noLoad       *atomic.Bool // the store's
	unavailable  *atomic.Bool // the store's, or nil

	isTLS    bool
	follows  bool   // the store's
	asking   bool   // the store's
	movedTo  string // the server that refused a call said to ask this one; empty: it named none
	askAt    string // the same for calls about keys that have been moved already
	login    *Login // what the server was shown
	closed   atomic.Bool
	address  string // of the server; empty for a connection on which only questions are asked
	number   int64  // grows from one connection of this process to the next, whichever store makes them; 0 until noteMade
	unproven bool   // it has not answered a call yet; a proven one that fails may have died idle
	sentAt   time.Time
	usedAt   time.Time // when it was made, or when the last answered call was sent

	// Guarded by the store's mu.
	expired    bool        // to be closed when it is released
	renewTimer *time.Timer // or nil; set before the connection is first used
	renewAt    time.Time   // zero: it is being renewed, or never is
}

// connCount counts the connections that the stores of this process have noted.
var connCount atomic.Int64

func newConn(stream net.Conn, timeout time.Duration) *conn {
	limit := &io.LimitedReader{R: stream, N: maxReply}
	return &conn{
		redigo: redis.NewConn(stream, timeout, timeout), stream: stream, limit: limit, reader: bufio.NewReader(limit),
		unproven: true, usedAt: time.Now(),
	}
}

// closeConn closes a connection for good.
func closeConn(c *conn) {
	c.closed.Store(true)
	c.redigo.Close()
	if c.renewTimer != nil {
		c.renewTimer.Stop()
	}
}

// closeSafely closes a connection that may be nil, or broken by a panic.
func closeSafely(c *conn) {
	defer func() { recover() }()
	if c != nil {
		closeConn(c)
	}
}

func closeAll(conns []*conn) {
	for _, c := range conns {
		closeConn(c)
	}
}

func indexOf(conns []*conn, c *conn) int {
	for i, one := range conns {
		if one == c {
			return i
		}
	}
	return -1
}
