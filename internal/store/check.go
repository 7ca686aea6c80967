package store

import (
	"fmt"
	"strings"
	"time"
)

const checkTTL = 1000 // milliseconds for which a check's key stays in Redis

// checkScript writes, as the engines' scripts do: a Redis that accepts no writes (a replica, one that is full, one whose
// user has lost the right) is of no use.
//
//	KEYS[1]  <keyPrefix>:check, or <keyPrefix>:{<name>}:check
//	ARGV[1]  time to live, milliseconds
//	answers  1
var checkScript = NewScript(`redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return '1'`)

// checkAllScript calls every command that the engines' scripts call, for a Redis that refused one of them. It leaves
// nothing. Keys, arguments and answers are those of checkScript.
var checkAllScript = NewScript(`redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PTTL', KEYS[1])
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'a', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('HGETALL', KEYS[1])
redis.call('HDEL', KEYS[1], 'a')
return '1'`)

// dialAndCheck returns a new connection that has passed a check.
func (s *Store) dialAndCheck() (c *conn, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			c = nil
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	c, err = s.dialSafely()
	if err != nil {
		return nil, err
	}
	call := s.checkCall()
	return passCheck(s, c, call)
}

// passCheck makes a check on a connection and returns it, or another one if its server names another.
func passCheck(s *Store, c *conn, call *Call) (*conn, error) {
	for redirections := 0; ; redirections++ {
		deadline := time.Now().Add(s.settings.Timeout)
		err := run(c, []*Call{call}, deadline)
		if err == nil && call.Err == errAsk {
			err = askImporter(s, c.askAt, []*Call{call}, deadline)
		}
		if err == nil && call.Err == errMoved && !s.asking && redirections < maxRedirections {
			s.topology.redirect(c.movedTo)
			closeConn(c)
			c, err = s.dialSafely()
			if err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			err = call.Err
		}
		if err == nil {
			return c, nil
		}
		closeConn(c)
		if redirections > 0 || !rereadLogin(s, c.login, err) {
			return nil, err
		}
		c, err = s.dialSafely()
		if err != nil {
			return nil, err
		}
	}
}

// checkCall returns the call that must succeed before Redis counts as available. If Redis refused a call, it must do what
// that call needed: a Redis that runs scripts may lack a command they call, and a node of a cluster serves only some keys.
func (s *Store) checkCall() *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	tag := s.checkTag
	if s.settings.HashTag != "" {
		tag = s.settings.HashTag + ":"
	}
	call := &Call{Script: checkScript, Keys: []string{s.settings.KeyPrefix + ":" + tag + "check"}, Args: []string{fmt.Sprint(checkTTL)}}
	if s.checkEverything {
		call.Script = checkAllScript
	}
	return call
}

// noteRefusal notes for later checks which call Redis has refused with err.
func (s *Store) noteRefusal(call *Call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkEverything = strings.Contains(err.Error(), "our scripts")
	s.checkTag = ""
	if strings.Contains(err.Error(), "Redis Cluster") {
		s.checkTag = tagOf(call)
	}
}

// tagOf returns the hash tag of a call's keys and a colon, or nothing. The tag decides which node of a cluster serves them.
func tagOf(call *Call) string {
	key := ""
	if len(call.Keys) > 0 {
		key = call.Keys[0]
	} else if call.Number > 0 && len(call.Words) > 0 {
		key = call.Words[0]
	}
	from := strings.Index(key, "{")
	to := strings.Index(key, "}")
	if from < 0 || to < from {
		return ""
	}
	return key[from:to+1] + ":"
}
