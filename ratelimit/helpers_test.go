package ratelimit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// Several test files share these helpers. The interpreter shares loop variables between iterations: closures get them as arguments.

// clock is a limiter's clock that only the test moves.
type clock struct{ micros int64 }

func (c *clock) now() int64           { return atomic.LoadInt64(&c.micros) }
func (c *clock) advance(micros int64) { atomic.AddInt64(&c.micros, micros) }

// tripStore passes trips to a store when the gate is open. It records the number of calls and the deadline of each trip.
type tripStore struct {
	store Store
	gate  chan struct{} // one value opens it for one trip; closing it opens it for all; nil: open

	mu        sync.Mutex // guards what follows
	calls     []int
	deadlines []time.Time
}

func (s *tripStore) Run(calls []*store.Call, deadline time.Time) error {
	s.mu.Lock()
	s.calls = append(s.calls, len(calls))
	s.deadlines = append(s.deadlines, deadline)
	s.mu.Unlock()
	if s.gate != nil {
		<-s.gate
	}
	return s.store.Run(calls, deadline)
}

// trips returns how many calls each trip so far had.
func (s *tripStore) trips() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int{}, s.calls...)
}

// eventually requires that the condition holds within some seconds.
func eventually(t *testing.T, condition func() bool, message ...interface{}) {
	t.Helper()
	require.Eventually(t, condition, 10*time.Second, time.Millisecond, message...)
}

// waiting returns how many requests wait in pending trips.
func waiting(l *Limiter) int {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	requests := 0
	for _, trip := range l.pending {
		for _, b := range trip {
			requests += len(b.ids) + len(b.keys)
		}
	}
	return requests
}

// isQuiet reports whether no trip is pending or in flight.
func isQuiet(l *Limiter) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return l.inFlight == 0 && l.claimed == 0 && len(l.pending) == 0
}

// results counts the verdicts on requests in the background.
type results struct {
	allowed, refused, failed int64
	done                     sync.WaitGroup
}

// ask sends a request of the identity in the background.
func (r *results) ask(cache *Cache, id string) {
	r.done.Add(1)
	go r.request(cache, id)
}

func (r *results) request(cache *Cache, id string) {
	defer r.done.Done()
	verdict := request(cache, id)
	if verdict == Undecided {
		atomic.AddInt64(&r.failed, 1)
	} else if verdict > 0 {
		atomic.AddInt64(&r.allowed, 1)
	} else {
		atomic.AddInt64(&r.refused, 1)
	}
}

const prefix = "test:{name}:bucket:"

func newLimiter(shared Store) *Limiter {
	return New(Settings{
		Store: shared, Prefix: prefix,
		Name: func(key string) string { return key },
		Now:  func() int64 { return time.Since(begun).Microseconds() },
	})
}

var begun = time.Now()

func newStore(t *testing.T, address string) *store.Store {
	s := store.New(store.Settings{
		Address: address, Timeout: 5 * time.Second, DialTimeout: time.Second, KeyPrefix: "test",
	}, func(error) {})
	t.Cleanup(s.Close)
	return s
}

func allow(t *testing.T, l *Limiter, key string, limit *Limit) int64 {
	verdict, err := allowBy(NewCache(l, limit, 5*time.Second, KeyMaker{}), key, key, l.Now())
	require.NoError(t, err)
	return verdict
}

// allowBy is AllowKey for a caller that does not hold the lock.
func allowBy(cache *Cache, id, key string, now int64) (int64, error) {
	cache.limiter.Mu.Lock()
	return AllowKey(cache, id, key, now)
}

func allowed(t *testing.T, l *Limiter, key string, limit *Limit) bool {
	return allow(t, l, key, limit) > 0
}

func allowedLocal(l *Limiter, key string, limit *Limit, now int64) bool {
	return AllowLocal(l, key, limit, now) > 0
}

// counter passes calls to a store and counts them.
type counter struct {
	store *store.Store
	calls int64
}

func (c *counter) Run(calls []*store.Call, deadline time.Time) error {
	atomic.AddInt64(&c.calls, int64(len(calls)))
	return c.store.Run(calls, deadline)
}
