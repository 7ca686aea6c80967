package store

import (
	"fmt"
	"math/rand"
	"strings"
	"time"
)

const (
	minRetry = 50 * time.Millisecond
	maxRetry = 500 * time.Millisecond
	checkTTL = 1000 // milliseconds for which a retry's check stays in Redis
)

// check writes, as the engines' scripts do: a Redis that answers reads only (a replica, one that is full, one whose
// rights for us were cut) is no use to us.
//
//	KEYS[1]  <keyPrefix>:check
//	ARGV[1]  milliseconds until it expires
//	answers  1
var checkScript = NewScript(`redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return '1'`)

// checkAll calls all commands that the engines' scripts call: it is for a Redis that refused one of them. Keys and arguments are
// those of check.
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

// markDown notes that Redis is away and starts the retries, unless they run already.
func (s *Store) markUnavailable(reason error) {
	useless, begun := s.setUnavailable()
	if !begun {
		return
	}
	closeAll(useless)
	s.notifySafely(reasonOf(reason))
}

func (s *Store) setUnavailable() (useless []*conn, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Unavailable.Load() {
		return nil, false
	}
	s.Unavailable.Store(true)
	s.noteLost()
	s.retryDelay = minRetry
	scheduleCheckLocked(s, jitter(s.retryDelay))
	for _, w := range s.waiters {
		w.err = ErrUnavailable
		w.done.Done()
	}
	s.waiters = nil
	return takeAllLocked(s), true
}

// tell tells whoever made the store that it is down or back. That must not fail what was going on.
func (s *Store) notifySafely(reason error) {
	defer func() { recover() }()
	s.notify(reason)
}

func scheduleCheckLocked(s *Store, after time.Duration) {
	time.AfterFunc(after, func() {
		defer func() { recover() }()
		s.runCheck()
	})
}

// check tries whether Redis is back. It runs in the background, alone, and sets the time of its next run itself.
func (s *Store) runCheck() {
	back := false
	defer func() {
		recover()
		if !back {
			s.backOff()
		}
	}()
	c, err := s.dialAndCheck()
	if err != nil {
		return
	}
	s.markAvailable()
	back = true
	release(s, c)
	s.notifySafely(nil)
}

func (s *Store) markAvailable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Unavailable.Store(false)
	s.noLoad.Store(false)
	if !s.closed {
		s.idleCap = maxIdle
	}
}

func (s *Store) backOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.retryDelay = s.retryDelay * 2
	if s.retryDelay > maxRetry {
		s.retryDelay = maxRetry
	}
	scheduleCheckLocked(s, jitter(s.retryDelay))
}

func (s *Store) dialAndCheck() (c *conn, err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			c = nil
			err = fmt.Errorf("panic: %v", trouble)
		}
	}()
	c, err = s.dialSafely()
	if err != nil {
		return nil, err
	}
	call := s.checkCall()
	err = run(c, []*Call{call}, time.Now().Add(s.settings.Timeout))
	if err == nil {
		err = call.Err
	}
	if err != nil {
		closeConn(c)
		return nil, err
	}
	return c, nil
}

// checkCall returns the call that must succeed before the store is back. A Redis that refused a call must do what that was to do: one
// that runs scripts may lack a command that they call, and a node of a cluster serves some keys.
func (s *Store) checkCall() *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := &Call{Script: checkScript, Keys: []string{s.settings.KeyPrefix + ":" + s.checkTag + "check"}, Args: []string{fmt.Sprint(checkTTL)}}
	if s.checkEverything {
		call.Script = checkAllScript
	}
	return call
}

// noteRefusal notes for the checks to come which call Redis has refused.
func (s *Store) noteRefusal(call *Call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkEverything = strings.Contains(err.Error(), "our scripts")
	s.checkTag = ""
	if strings.Contains(err.Error(), "Redis Cluster") {
		s.checkTag = tagOf(call)
	}
}

// tagOf returns the hash tag of a call's keys, which decides on the node of a cluster that they belong to.
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

// jitter spreads the retries of a fleet: from half of d to d.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int63n(int64(d/2)+1))
}
