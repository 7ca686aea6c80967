package store

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gomodule/redigo/redis"
)

// maxReply is more than an answer to a call of ours has, in bytes.
const maxReply = 1 << 20

var errNotRedis = errors.New("what answers at this address is not a Redis, or not without TLS")

// conn is one connection to Redis, used by one goroutine at a time.
type conn struct {
	redigo       redis.Conn        // that greets
	stream       net.Conn          // that runs scripts: redigo, interpreted, writes byte by byte, and takes long to read
	limit        *io.LimitedReader // of raw, set before each answer: a line that does not end must not fill the memory
	reader       *bufio.Reader     // of limit
	pendingLoads int               // answers to SCRIPT LOAD that have not been read
	unavailable  *atomic.Bool      // the store's, or nil
	noLoad       *atomic.Bool      // to be set where Redis loads no script for us
	partialLine  string            // the part of a line that has been read
	isTLS        bool              // TLS
	number       int64             // grows from one connection to the next, of whichever store
	// fresh is set until the connection has answered a call: only one that worked before can have died idle.
	unproven   bool
	sentAt     time.Time   // when a call was last sent
	usedAt     time.Time   // when it was made, or what it has answered was sent
	expired    bool        // it is to be closed when it comes back; guarded by the store's lock
	renewTimer *time.Timer // or nil; guarded by the store's lock
}

// made counts the connections of this process.
var connCount atomic.Int64

func newConn(raw net.Conn, timeout time.Duration) *conn {
	limit := &io.LimitedReader{R: raw, N: maxReply}
	return &conn{
		redigo: redis.NewConn(raw, timeout, timeout), stream: raw, limit: limit, reader: bufio.NewReader(limit),
		number: connCount.Add(1), unproven: true, usedAt: time.Now(),
	}
}

// shut closes a connection. It is never used again.
func closeConn(c *conn) {
	c.redigo.Close()
	if c.renewTimer != nil {
		c.renewTimer.Stop()
	}
}

// tryDial makes a connection. It tries once more where its time has passed because this process was not running, and turns a
// panic of the interpreted redigo into an error.
func (s *Store) dialSafely() (c *conn, err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			c = nil
			err = fmt.Errorf("panic: %v", trouble)
		}
	}()
	begun := time.Now()
	c, err = dial(s)
	if isTimeout(err) && time.Since(begun) > s.settings.DialTimeout+descheduled {
		c, err = dial(s)
	}
	if err != nil {
		return nil, err
	}
	scheduleRenewal(s, c)
	return c, nil
}

// dial makes a connection: TCP, TLS, AUTH and SELECT, all within settings.DialTimeout.
func dial(s *Store) (*conn, error) {
	settings := s.settings
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
		raw = secure
	}
	c := newConn(raw, settings.DialTimeout)
	c.isTLS = settings.TLS != nil
	c.unavailable = &s.Unavailable
	if err := setUp(s, c, deadline); err != nil {
		closeConn(c)
		return nil, err
	}
	c.usedAt = time.Now()
	return c, nil
}

// greet authenticates, selects the database and sends our scripts to be loaded. The answers to the last are read before that to the
// first call, so that loading costs no round trip.
func setUp(s *Store, c *conn, deadline time.Time) error {
	var must []string // the commands that Redis must answer with OK
	if s.settings.Password != "" && s.settings.Username != "" {
		must = append(must, "AUTH")
		c.redigo.Send("AUTH", s.settings.Username, s.settings.Password)
	} else if s.settings.Password != "" {
		must = append(must, "AUTH")
		c.redigo.Send("AUTH", s.settings.Password)
	}
	if s.settings.DB != 0 {
		must = append(must, "SELECT")
		c.redigo.Send("SELECT", s.settings.DB)
	}
	c.redigo.Flush()
	if err := c.redigo.Err(); err != nil { // of any of the above
		return err
	}
	c.stream.SetDeadline(deadline)
	c.noLoad = &s.noLoad
	var unsent error
	if !s.noLoad.Load() {
		loads := loadCommands()
		c.pendingLoads = len(loads)
		_, unsent = io.WriteString(c.stream, strings.Join(loads, ""))
	}
	for _, command := range must {
		if err := readOK(c, command); err != nil {
			return err
		}
	}
	if unsent != nil {
		readLoads(c, "") // a Redis that has closed the connection may have said why
	}
	return unsent
}

// readOK reads the answer to a command that Redis answers with OK.
func readOK(c *conn, command string) error {
	line, err := readLine(c)
	if err != nil || line == "+OK"+newline {
		return err
	}
	if line[0] != '-' {
		return errNotRedis
	}
	return fmt.Errorf("%s: %s", command, reasonOf(replyError(strings.TrimSpace(line[1:]))).Error())
}

// readLoads reads the answers to SCRIPT LOAD that have not been read yet, of which the first line may have been: names of scripts, in
// two lines each, or errors. Where we have no right to load, or Redis does not know how to, a script is sent when it is first run.
func readLoads(c *conn, line string) (err error) {
	for c.pendingLoads > 0 {
		if line == "" {
			line, err = readLine(c)
			if err != nil {
				return err
			}
		}
		if line[0] == '-' {
			c.pendingLoads--
			if strings.HasPrefix(line, "-NOPERM") || strings.Contains(line, "unknown") {
				c.noLoad.Store(true)
			} else if err = replyError(strings.TrimSpace(line[1:])); errors.Is(err, ErrUnavailable) {
				return err
			}
		} else if len(line) == nameLength+len(newline) {
			c.pendingLoads--
		} else if line != nameHead {
			return errNotRedis
		}
		line = ""
	}
	return nil
}

const (
	nameLength = 40
	nameHead   = "$40" + newline
)
