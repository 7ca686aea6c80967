// Package store keeps the shared state: it runs scripts on one Redis, and knows whether that Redis can be had.
//
// While Redis is away no request waits for it: the store is marked down at the first failure, Run answers
// ErrUnavailable at once, and one retry at a time, beside requests, finds out when Redis is back.
package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnavailable is wrapped by every error that says Redis could not be asked, or not in time.
var ErrUnavailable = errors.New("store: redis is unavailable")

var (
	errPending  = errors.New("store: not answered")
	errBadReply = errors.New("store: the script did not answer with integers")
)

const (
	maxIdle   = 16 // connections kept for later
	maxDials  = 4  // connections being made at once
	minRetry  = 50 * time.Millisecond
	maxRetry  = 500 * time.Millisecond
	checkTime = 1000 // milliseconds for which a retry's check stays in Redis
)

// check writes, as the engines' scripts do: a Redis that answers reads only (a replica, one that is full, one whose
// rights for us were cut) is no use to us.
//
//	KEYS[1]  <keyPrefix>:check
//	ARGV[1]  milliseconds until it expires
//	answers  1
var check = NewScript(`redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return '1'`)

// Settings say which Redis, and how long to wait for it.
type Settings struct {
	Address     string // host:port
	Username    string
	Password    string
	DB          int
	TLS         *tls.Config   // nil for a plain connection
	Timeout     time.Duration // for the answer to a call
	DialTimeout time.Duration // for making a connection: TCP, TLS, AUTH and SELECT
	MaxConnAge  time.Duration // after which another connection takes the place of one, a fifth more or less; 0: never
	KeyPrefix   string
}

// Store runs scripts on one Redis. It is safe for concurrent use.
type Store struct {
	settings Settings
	// notify is told, outside of any lock, when the store goes down (with the reason) and when it is back (with nil).
	notify func(reason error)

	// Away tells whether the store is marked down, without a call of ours.
	Away atomic.Bool

	mu      sync.Mutex // guards what follows, and each change of Away
	changed *sync.Cond // idle has grown, a dial has ended, a wait is over, or down has changed
	idle    []*conn    // none while the store is marked down
	room    int        // how many idle may hold: none while the store is marked down, or closed
	dials   int
	waiting int
	closed  bool
	retry   time.Duration
}

// New returns the store for the given settings. It does not dial: the first call does.
func New(settings Settings, notify func(reason error)) *Store {
	s := &Store{settings: settings, notify: notify, room: maxIdle}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// Down tells whether the store is marked down.
func (s *Store) Down() bool { return s.Away.Load() }

// Close lets the store's connections go. Calls that still come are served, each on a connection of its own.
func (s *Store) Close() {
	s.mu.Lock()
	idle := takeIdle(s)
	s.room = 0
	s.closed = true
	s.mu.Unlock()
	hangUp(idle)
}

// acquire returns a connection: an idle one, or one dialled beside this request, which waits no longer than the deadline.
func acquire(s *Store, deadline time.Time) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var timer *time.Timer
	for {
		if s.Away.Load() {
			return nil, ErrUnavailable
		}
		if last := len(s.idle) - 1; last >= 0 {
			c := s.idle[last]
			s.idle = s.idle[:last]
			return c, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, fmt.Errorf("%w: no connection in time", ErrUnavailable)
		}
		if timer == nil {
			timer = time.AfterFunc(left, s.wake)
			defer timer.Stop()
		}
		s.waiting++
		if s.dials < s.waiting && s.dials < maxDials {
			s.dials++
			go s.dial()
		}
		s.changed.Wait()
		s.waiting--
	}
}

// wake lets every wait look at its deadline again.
func (s *Store) wake() {
	defer func() { recover() }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// dial adds a connection to the idle ones, or marks the store down.
func (s *Store) dial() {
	defer func() { recover() }()
	c, err := s.tryDial()
	if err != nil {
		s.markDown(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials--
	if err == nil && (s.Away.Load() || s.closed && s.waiting == 0) {
		c.redis.Close() // nobody is left to take it
	} else if err == nil {
		s.idle = append(s.idle, c)
	}
	s.changed.Broadcast()
}

// tryDial is dial with a panic of the interpreted redigo turned into an error.
func (s *Store) tryDial() (c *conn, err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			c = nil
			err = fmt.Errorf("panic: %v", trouble)
		}
	}()
	return dial(s.settings)
}

// release takes back a connection that has answered.
func release(s *Store, c *conn) {
	s.mu.Lock()
	releaseLocked(s, c)
}

// releaseLocked is release with mu held, which it unlocks.
func releaseLocked(s *Store, c *conn) {
	keep := len(s.idle) < s.room
	if keep {
		s.idle = append(s.idle, c)
		s.changed.Signal()
	}
	s.mu.Unlock()
	if !keep {
		c.redis.Close()
	}
}

// takeIdle empties idle. mu is held.
func takeIdle(s *Store) []*conn {
	idle := s.idle
	s.idle = nil
	return idle
}

func hangUp(conns []*conn) {
	for _, c := range conns {
		c.redis.Close()
	}
}

// dropIdle closes the idle connections: where one has died idle, they all have.
func dropIdle(s *Store) {
	s.mu.Lock()
	idle := takeIdle(s)
	s.mu.Unlock()
	hangUp(idle)
}

// markDown notes that Redis is away and starts the retries, unless they run already.
func (s *Store) markDown(reason error) {
	s.mu.Lock()
	if s.Away.Load() {
		s.mu.Unlock()
		return
	}
	s.Away.Store(true)
	idle := takeIdle(s)
	s.room = 0
	s.retry = minRetry
	time.AfterFunc(jitter(s.retry), s.check)
	s.changed.Broadcast()
	s.mu.Unlock()
	hangUp(idle)
	s.notify(reason)
}

// check tries whether Redis is back. It runs beside requests, alone, and sets the time of its next run itself.
func (s *Store) check() {
	defer func() { recover() }()
	c, err := s.tryCheck()
	s.mu.Lock()
	if err != nil {
		if !s.closed {
			s.retry = s.retry * 2
			if s.retry > maxRetry {
				s.retry = maxRetry
			}
			time.AfterFunc(jitter(s.retry), s.check)
		}
		s.mu.Unlock()
		return
	}
	s.Away.Store(false)
	if !s.closed {
		s.room = maxIdle
	}
	s.mu.Unlock()
	release(s, c)
	s.notify(nil)
}

func (s *Store) tryCheck() (c *conn, err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			c = nil
			err = fmt.Errorf("panic: %v", trouble)
		}
	}()
	c, err = dial(s.settings)
	if err != nil {
		return nil, err
	}
	call := &Call{Script: check, Keys: []string{s.settings.KeyPrefix + ":check"}, Args: []string{fmt.Sprint(checkTime)}}
	err = run(c, []*Call{call}, time.Now().Add(s.settings.Timeout))
	if err == nil {
		err = call.Err
	}
	if err != nil {
		c.redis.Close()
		return nil, err
	}
	return c, nil
}

// jitter spreads the retries of a fleet: from half of d to d.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int63n(int64(d/2)+1))
}

// away tells from the text of Redis's answer whether Redis cannot serve us at all, rather than this one call.
func away(text string) bool {
	for _, code := range awayCodes {
		// Redis 6 hands a script's error on as "ERR Error running script …: -OOM …".
		if strings.HasPrefix(text, code) || strings.Contains(text, ": -"+code) {
			return true
		}
	}
	for _, words := range awayWords {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

var (
	awayCodes = []string{
		"LOADING", "READONLY", "OOM", "NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "MASTERDOWN", "BUSY", "NOREPLICAS",
		"CLUSTERDOWN", "MOVED", "NOSCRIPT",
	}
	awayWords = []string{"max number of clients", "executing the script can't", "AUTH"}
)
