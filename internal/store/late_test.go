//go:build !yaegi

package store

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// pausedConn is a connection of a process that does not run for a while: its first reads or writes begin after their
// deadline. What arrives meanwhile is there then.
type pausedConn struct {
	net.Conn
	length        time.Duration
	reads, writes atomic.Int32
}

func (h *pausedConn) Read(p []byte) (int, error) {
	if h.reads.Add(-1) >= 0 {
		time.Sleep(h.length)
	}
	return h.Conn.Read(p)
}

func (h *pausedConn) Write(p []byte) (int, error) {
	if h.writes.Add(-1) >= 0 {
		time.Sleep(h.length)
	}
	return h.Conn.Write(p)
}

// pauseOn pauses on the first reads and writes of the store's one connection.
func pauseOn(t *testing.T, s *Store, length time.Duration, reads, writes int) {
	require.Len(t, s.idle, 1)
	c := s.idle[0]
	h := &pausedConn{Conn: c.stream, length: length}
	h.reads.Store(int32(reads))
	h.writes.Store(int32(writes))
	c.stream, c.limit.R = h, h
}

func TestDeadline_anAnswerThatArrivedWhileThisProcessDidNotRunCounts(t *testing.T) {
	server := redistest.Start(t)
	rows := []struct {
		name          string
		reads, writes int
		calls         int
	}{
		{"paused while it reads", 1, 0, 1},
		{"paused twice while it reads", 2, 0, 1},
		{"paused while it writes", 0, 1, 1},
		{"paused while it reads the first of several", 1, 0, 3},
		{"paused while it writes several", 0, 1, 3},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			requireWithinGrace(t, func() error {
				s, n := newUsedStore(t, Settings{Address: server.Addr()})
				pauseOn(t, s, s.settings.Timeout+50*time.Millisecond, row.reads, row.writes)
				var calls []*Call
				for i := 0; i < row.calls; i++ {
					calls = append(calls, &Call{Script: sum, Args: []string{"2", "3"}, Once: row.calls > 1})
				}
				if err := s.Run(calls, time.Now().Add(s.settings.Timeout)); err != nil {
					return err
				}
				for _, call := range calls {
					require.Equal(t, []int64{5}, call.Reply)
				}
				require.Equal(t, 0, n.count())
				require.Len(t, s.idle, 1, "the connection is kept")
				return nil
			})
		})
	}
}

// requireWithinGrace requires that what Redis has to answer within the grace succeeds. It gives it several tries: a busy machine may not run
// Redis that soon.
func requireWithinGrace(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for i := 0; i < 5; i++ {
		if err = try(); err == nil {
			return
		}
	}
	require.NoError(t, err)
}

func TestDeadline_aCallAfterItsDeadlineIsMade(t *testing.T) {
	server := redistest.Start(t)
	requireWithinGrace(t, func() error {
		s, n := newStore(t, Settings{Address: server.Addr()})
		for _, connection := range []string{"with no connection yet", "with one"} {
			call := &Call{Script: sum, Args: []string{"2", "3"}}
			s.Run([]*Call{call}, time.Now().Add(-time.Second))
			if connection == "with one" {
				if call.Err != nil {
					return call.Err
				}
				require.Equal(t, []int64{5}, call.Reply)
			}
			require.Eventually(t, func() bool { return idleCount(s) == 1 }, patience, time.Millisecond)
		}
		require.Equal(t, 0, n.count())
		return nil
	})
}

// A request that waited before its call was sent has less time left than Redis has.
func TestLate_anAnswerWithinTheTimeoutDoesNotMakeRedisUnavailable(t *testing.T) {
	server := redistest.Start(t)
	s, n := newUsedStore(t, Settings{Address: server.Addr()})
	kept := s.idle[0]
	for _, left := range []time.Duration{20 * time.Millisecond, s.settings.Timeout * 3 / 5} {
		late := redistest.Late(t)
		server.Pause()
		begun := time.Now()
		call := &Call{Script: sum, Args: []string{"1", "1"}}
		require.ErrorIs(t, s.Run([]*Call{call}, begun.Add(left)), ErrUnavailable)
		require.Less(t, time.Since(begun), left+25*time.Millisecond+late(), "the request does not wait for it")
		time.Sleep(s.settings.Timeout*4/5 - time.Since(begun))
		server.Resume()
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.idle) == 1 && s.idle[0] == kept
		}, time.Second, time.Millisecond, "the connection is kept")
		requireAnswers(t, s) // not the answer to the call that was given up
	}
	require.Equal(t, 0, n.count())
}

func TestLate_noAnswerWithinTheTimeoutMakesRedisUnavailable(t *testing.T) {
	server := redistest.Start(t)
	s, n := newUsedStore(t, Settings{Address: server.Addr()})
	server.Pause()
	defer server.Resume()
	begun := time.Now()
	call := &Call{Script: sum, Args: []string{"1", "1"}}
	require.ErrorIs(t, s.Run([]*Call{call}, begun.Add(20*time.Millisecond)), ErrUnavailable)
	require.False(t, s.IsUnavailable())
	n.await(t, 1)
	require.Greater(t, time.Since(begun), s.settings.Timeout, "it has the whole timeout")
	require.EqualError(t, n.get(0), "i/o timeout: no answer within 200ms")
}
