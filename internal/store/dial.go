package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

var errNotRedis = errors.New("the server at this address is not a Redis, or it requires TLS")

// dialSafely makes a connection. It tries once more if its time passed while this process was not running, and turns a
// panic of the interpreted redigo into an error.
func (s *Store) dialSafely() (c *conn, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			c = nil
			err = fmt.Errorf("panic: %v", panicked)
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

// dial makes a connection: TCP, TLS, AUTH and SELECT, all within DialTimeout.
func dial(s *Store) (*conn, error) {
	settings := s.settings
	deadline := time.Now().Add(settings.DialTimeout)
	dialer := &net.Dialer{Deadline: deadline}
	stream, err := dialer.Dial("tcp", settings.Address)
	if err != nil {
		return nil, err
	}
	if settings.TLS != nil {
		secure := tls.Client(stream, settings.TLS)
		stream.SetDeadline(deadline)
		if err := secure.Handshake(); err != nil {
			stream.Close()
			return nil, err
		}
		stream = secure
	}
	c := newConn(stream, settings.DialTimeout)
	c.isTLS = settings.TLS != nil
	c.unavailable = &s.Unavailable
	if err := setUp(s, c, deadline); err != nil {
		closeConn(c)
		return nil, err
	}
	c.usedAt = time.Now()
	return c, nil
}

// setUp authenticates, selects the database and loads our scripts. The answers to the last are read before that to the
// first call, so that loading costs no round trip.
func setUp(s *Store, c *conn, deadline time.Time) error {
	var sent []string // the commands that Redis must answer with OK
	if s.settings.Password != "" && s.settings.Username != "" {
		sent = append(sent, "AUTH")
		c.redigo.Send("AUTH", s.settings.Username, s.settings.Password)
	} else if s.settings.Password != "" {
		sent = append(sent, "AUTH")
		c.redigo.Send("AUTH", s.settings.Password)
	}
	if s.settings.DB != 0 {
		sent = append(sent, "SELECT")
		c.redigo.Send("SELECT", s.settings.DB)
	}
	c.redigo.Flush()
	if err := c.redigo.Err(); err != nil { // of any of the above
		return err
	}
	c.stream.SetDeadline(deadline)
	c.noLoad = &s.noLoad
	var loadErr error
	if !s.noLoad.Load() {
		loads := loadCommands()
		c.pendingLoads = len(loads)
		_, loadErr = io.WriteString(c.stream, strings.Join(loads, ""))
	}
	for _, command := range sent {
		if err := readOK(c, command); err != nil {
			return err
		}
	}
	if loadErr != nil {
		readLoads(c, "") // a Redis that has closed the connection may have said why
	}
	return loadErr
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

// Redis answers SCRIPT LOAD with the script's name, in two lines.
const (
	nameLength = 40
	nameHead   = "$40" + newline
)

// readLoads reads the answers to SCRIPT LOAD that have not been read. line, unless empty, is the beginning of the first one. If
// the user may not load scripts, or Redis cannot, each script is sent in full when it is first run.
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
