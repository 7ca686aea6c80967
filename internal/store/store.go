// Package store runs Lua scripts on one Redis, and knows whether that Redis can be reached.
//
// While Redis is unavailable no request waits for it: the first failure marks the store unavailable, Run then answers
// ErrUnavailable at once, and one check at a time, in the background, finds out when Redis is back.
package store

import (
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnavailable is wrapped by every error that says that Redis could not be asked, or did not answer in time. No error of
// this package contains anything of a call's keys and arguments.
var ErrUnavailable = errors.New("store: redis is unavailable")

// Settings say which Redis to use, and how long to wait for it. All durations but MaxConnAge must be positive.
type Settings struct {
	Address      string            // host:port; of sentinels, or of nodes of a cluster, several with commas
	Sentinel     *SentinelSettings // nil: the address is not that of sentinels
	Cluster      bool              // the address is that of nodes of a cluster
	HashTag      string            // Cluster: {name}, which all keys contain
	Username     string
	Password     string
	DB           int
	TLS          *tls.Config   // nil: a plain connection
	Reread       func() *Login // reads passwords and certificates again; nil if it cannot. Nil: they do not change
	LoginVersion string        // of Password, TLS and the sentinels' password
	Timeout      time.Duration // for the answer to a call
	DialTimeout  time.Duration // for making a connection: TCP, TLS, AUTH and SELECT
	MaxConnAge   time.Duration // after which a connection is replaced, give or take a fifth; 0: never
	KeyPrefix    string        // of the key that checks write
}

// Store runs scripts on one Redis, over a pool of at most 16 idle connections. It is safe for concurrent use. Run makes the
// calls; Unavailable and Lost say how Redis is doing; Close ends it.
type Store struct {
	settings Settings
	topology topology

	// follows is true if servers may refuse calls because another server is to be asked: with sentinels or a cluster. asking
	// is true in the store of a node that is importing a slot.
	follows bool
	asking  bool

	// notify is called without a lock when Redis becomes unavailable, with the reason, and when it is back, with nil.
	notify func(reason error)

	// Unavailable is true while the store is marked unavailable. It is exported so that it can be read without a call of
	// ours.
	Unavailable atomic.Bool

	lost   atomic.Int64 // see Lost
	noLoad atomic.Bool  // Redis has refused to load a script

	askedAt atomic.Int64 // asking: when the last call was redirected here, in nanoseconds

	mu         sync.Mutex // guards what follows, and each change of Unavailable
	idle       []*conn    // none while the store is unavailable
	idleCap    int        // how many idle may hold: 0 while the store is unavailable, or closed
	awaited    []*conn    // their late answers are awaited in the background; none while the store is unavailable
	waiters    []*waiter  // the longest-waiting first; none while the store is unavailable
	dialing    int        // connections being made
	closed     bool
	retryDelay time.Duration // until the next check
	stats      *Stats        // nil: calls are not counted

	renewAged func() // replaces the connections that have reached their age

	currentLogin *Login
	made         []*conn // connections that may be open
	server       string  // the address of the master that sentinels announce, if any: connections to others have expired
	importer     *Store  // a cluster's node to which keys are being moved; nil: none is known

	// What checks must do besides, because Redis has refused it.
	checkEverything bool   // all commands that our scripts call
	checkTag        string // use a key with this hash tag
}

// New returns a store with the given settings. It does not dial: the first call does. notify may be nil only if the store is
// never used.
func New(settings Settings, notify func(reason error)) *Store {
	s := &Store{settings: settings, notify: notify, idleCap: maxIdle}
	initRenewals(s)
	s.topology = newTopology(s)
	s.follows = settings.Sentinel != nil || settings.Cluster
	return s
}

// IsUnavailable reports whether the store is marked unavailable.
func (s *Store) IsUnavailable() bool { return s.Unavailable.Load() }

// Close closes the store's connections. Later calls are still served, each over a connection that is closed after it.
func (s *Store) Close() {
	closeAll(s.close())
	s.topology.close()
	closeImporter(s)
}

func (s *Store) close() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return takeAllLocked(s)
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
