package store

import (
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

var sum = NewScript(`return string.format('%d', ARGV[1] + ARGV[2])`)

// patience bounds waits for what happens in the background.
const patience = 5 * time.Second

// notes collects what a store notifies of. It is safe for concurrent use.
type notes struct {
	mu      sync.Mutex
	reasons []error
}

func (n *notes) add(reason error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reasons = append(n.reasons, reason)
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.reasons)
}

// await waits for a number of notes. The last may come a moment after the change that it is about.
func (n *notes) await(t *testing.T, count int) {
	t.Helper()
	require.Eventually(t, func() bool { return n.count() >= count }, patience, time.Millisecond)
	require.Equal(t, count, n.count())
}

func (n *notes) get(i int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reasons[i]
}

// newStore returns a store that ends with the test, and its notes. Its timeout is 200 ms, unless the settings have one. A busy machine may take
// longer, so tests whose calls are all answered have patience.
func newStore(t *testing.T, settings Settings) (*Store, *notes) {
	if settings.Timeout == 0 {
		settings.Timeout = 200 * time.Millisecond
	}
	settings.DialTimeout = time.Second
	settings.KeyPrefix = "test"
	n := &notes{}
	s := New(settings, n.add)
	t.Cleanup(s.Close)
	return s, n
}

// newUsedStore is newStore, of which a call has been answered.
func newUsedStore(t *testing.T, settings Settings) (*Store, *notes) {
	s, n := newStore(t, settings)
	requireAnswers(t, s)
	return s, n
}

// runOne makes one call within the store's timeout.
func runOne(s *Store, call *Call) error {
	err := s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout))
	if err != nil {
		return err
	}
	return call.Err
}

func add(s *Store, a, b string) (int64, error) {
	call := &Call{Script: sum, Args: []string{a, b}}
	if err := runOne(s, call); err != nil {
		return 0, err
	}
	return call.Reply[0], nil
}

// requireAnswers requires that the store answers a call, with its own answer.
func requireAnswers(t *testing.T, s *Store) {
	t.Helper()
	answer, err := add(s, "40", "2")
	require.NoError(t, err)
	require.Equal(t, int64(42), answer)
}

func requireUnavailable(t *testing.T, s *Store) {
	t.Helper()
	_, err := add(s, "1", "1")
	require.ErrorIs(t, err, ErrUnavailable)
	require.True(t, s.IsUnavailable())
}

func awaitAvailable(t *testing.T, s *Store) {
	t.Helper()
	require.Eventually(t, func() bool { return !s.IsUnavailable() }, patience, 5*time.Millisecond)
}

// awaitFailedChecks waits until two checks of an unavailable Redis have failed: each doubles the delay of the next one.
func awaitFailedChecks(t *testing.T, s *Store) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.retryDelay >= 4*minRetryDelay
	}, patience, time.Millisecond)
}

func idleCount(s *Store) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.idle)
}

// keepConnections makes a number of idle connections.
func keepConnections(t *testing.T, s *Store, count int) {
	t.Helper()
	var made []*conn
	for i := 0; i < count; i++ {
		c, err := s.dialSafely()
		require.NoError(t, err)
		made = append(made, c)
	}
	for _, c := range made {
		release(s, c)
	}
}

// ageIdle makes the idle connections idle for long.
func ageIdle(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		c.usedAt = c.usedAt.Add(-2 * longIdle)
	}
}

// killConnections has Redis close all connections, and returns when it has.
func killConnections(server *redistest.Server) {
	server.Do("CLIENT", "KILL", "TYPE", "normal")
}
