// Package store keeps the shared state: it runs scripts on one Redis, and knows whether that Redis can be had.
//
// While Redis is away no request waits for it: the store is marked down at the first failure, Run answers
// ErrUnavailable at once, and one retry at a time, in the background, finds out when Redis is back.
package store

import (
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnavailable is wrapped by every error that says Redis could not be asked, or not in time. No error of this package holds
// anything of a call's keys and arguments.
var ErrUnavailable = errors.New("store: redis is unavailable")

var (
	errPending  = errors.New("store: not answered")
	errBadReply = errors.New("store: the script did not answer with integers")
)

// Settings say which Redis, and how long to wait for it.
type Settings struct {
	Address     string // host:port
	Username    string
	Password    string
	DB          int
	TLS         *tls.Config   // nil for a plain connection
	Timeout     time.Duration // for the answer to a call
	DialTimeout time.Duration // for making a connection: TCP, TLS, AUTH and SELECT
	MaxConnAge  time.Duration // after which a connection is replaced, a fifth more or less; 0: never
	KeyPrefix   string
}

// Store runs scripts on one Redis. It is safe for concurrent use.
type Store struct {
	settings Settings
	// notify is told, outside of any lock, when the store goes down (with the reason) and when it is back (with nil).
	notify func(reason error)

	// Away tells whether the store is marked down, without a call of ours.
	Unavailable atomic.Bool

	lost atomic.Int64 // see Lost
	// noLoad is set once Redis has refused to load a script for us.
	noLoad atomic.Bool

	mu         sync.Mutex // guards what follows, and each change of Away
	awaited    []*conn    // whose answers are awaited in the background; none while the store is marked down
	idle       []*conn    // none while the store is marked down
	idleCap    int        // how many idle may hold: none while the store is marked down, or closed
	waiters    []*waiter  // the longest first; none while the store is marked down
	dialing    int
	closed     bool
	retryDelay time.Duration

	// What the checks must do.
	checkEverything bool   // all that our scripts do
	checkTag        string // with a key of this hash tag
}

// New returns the store for the given settings. It does not dial: the first call does.
func New(settings Settings, notify func(reason error)) *Store {
	return &Store{settings: settings, notify: notify, idleCap: maxIdle}
}

// Down tells whether the store is marked down.
func (s *Store) IsUnavailable() bool { return s.Unavailable.Load() }

// Close lets the store's connections go. Calls that still come are served, each on a connection of its own.
func (s *Store) Close() {
	closeAll(s.close())
}

func (s *Store) close() (useless []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return takeAllLocked(s)
}
