package store

import (
	"errors"
	"fmt"
	"io"
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
	s.noteMade(c)
	scheduleRenewal(s, c)
	return c, nil
}

// dial makes a connection to the server that the topology names: TCP, TLS, AUTH, SELECT and ROLE, all within DialTimeout. If
// that fails, and passwords or certificates have changed meanwhile, it tries once more.
func dial(s *Store) (*conn, error) {
	deadline := time.Now().Add(s.settings.DialTimeout)
	address, err := s.topology.locate(deadline)
	if err != nil {
		return nil, err
	}
	c, err := dialAt(s, address, deadline)
	if err != nil {
		s.topology.failed(address)
	}
	return c, err
}

func dialAt(s *Store, address string, deadline time.Time) (*conn, error) {
	login := s.login()
	c, err := dialWith(s, address, deadline, login)
	if err != nil && rereadLogin(s, login, err) {
		c, err = dialWith(s, address, deadline, s.login())
	}
	return c, err
}

func dialWith(s *Store, address string, deadline time.Time, login *Login) (*conn, error) {
	c, err := connect(s, address, deadline, login)
	if err != nil {
		return nil, err
	}
	c.address = address
	c.unavailable = &s.Unavailable
	c.follows = s.follows
	c.asking = s.asking
	c.login = login
	if err := setUp(s, c, deadline); err != nil {
		closeConn(c)
		return nil, err
	}
	c.usedAt = time.Now()
	return c, nil
}

// setUp authenticates, selects the database, makes sure of the server's role and loads our scripts. The answers to the last
// are read before that to the first call, so that loading costs no round trip.
func setUp(s *Store, c *conn, deadline time.Time) error {
	settings := s.settings
	var sent []string // the commands that Redis must answer with OK
	if c.login.Password != "" && settings.Username != "" {
		sent = append(sent, "AUTH")
		c.redigo.Send("AUTH", settings.Username, c.login.Password)
	} else if c.login.Password != "" {
		sent = append(sent, "AUTH")
		c.redigo.Send("AUTH", c.login.Password)
	}
	if settings.DB != 0 {
		sent = append(sent, "SELECT")
		c.redigo.Send("SELECT", settings.DB)
	}
	verifies := s.topology.verifiesRole()
	if verifies {
		c.redigo.Send("ROLE")
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
	if verifies {
		if err := readRole(c); err != nil {
			return err
		}
	}
	if loadErr != nil {
		readLoads(c, "") // a Redis that has closed the connection may have said why
	}
	return loadErr
}

var errNotMaster = fmt.Errorf("%w: the sentinels name a redis as the master that is not one", ErrUnavailable)

// readRole reads the answer to ROLE, and requires a master.
func readRole(c *conn) error {
	answer, err := readAnswer(c)
	if err != nil {
		return err
	}
	fields, ok := answer.([]interface{})
	if !ok || len(fields) == 0 {
		return errNotRedis
	}
	if role, _ := fields[0].(string); role != "master" {
		return errNotMaster
	}
	return nil
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
