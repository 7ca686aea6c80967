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

// halting is a connection of a process that is not running for a while: the first reads or writes begin behind their deadline.
// What arrives meanwhile arrives.
type halting struct {
	net.Conn
	length        time.Duration
	reads, writes atomic.Int32
}

func (h *halting) Read(p []byte) (int, error) {
	if h.reads.Add(-1) >= 0 {
		time.Sleep(h.length)
	}
	return h.Conn.Read(p)
}

func (h *halting) Write(p []byte) (int, error) {
	if h.writes.Add(-1) >= 0 {
		time.Sleep(h.length)
	}
	return h.Conn.Write(p)
}

// haltOn has the store's one connection halt.
func haltOn(t *testing.T, s *Store, length time.Duration, reads, writes int) {
	require.Len(t, s.idle, 1)
	c := s.idle[0]
	h := &halting{Conn: c.stream, length: length}
	h.reads.Store(int32(reads))
	h.writes.Store(int32(writes))
	c.stream, c.limit.R = h, h
}

func TestStore_takesAnAnswerThatWasHereWhenThisProcessWasNot(t *testing.T) {
	server := redistest.Start(t)
	rows := []struct {
		name          string
		reads, writes int
		calls         int
	}{
		{"while it waited", 1, 0, 1},
		{"while it waited, twice", 2, 0, 1},
		{"while it sent", 0, 1, 1},
		{"while it waited for the first of several", 1, 0, 3},
		{"while it sent several", 0, 1, 3},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s, n := open(t, Settings{Address: server.Addr()})
			_, err := add(s, "1", "1")
			require.NoError(t, err)
			haltOn(t, s, s.settings.Timeout+50*time.Millisecond, row.reads, row.writes)
			var calls []*Call
			for i := 0; i < row.calls; i++ {
				calls = append(calls, &Call{Script: sum, Args: []string{"2", "3"}, Once: row.calls > 1})
			}
			require.NoError(t, s.Run(calls, time.Now().Add(s.settings.Timeout)))
			for _, call := range calls {
				require.Equal(t, []int64{5}, call.Reply)
			}
			require.Equal(t, 0, n.count())
			require.Len(t, s.idle, 1, "the connection is kept")
		})
	}
}

func TestStore_asksForACallThatComesBehindItsDeadline(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	for _, connection := range []string{"with no connection yet", "with one"} {
		call := &Call{Script: sum, Args: []string{"2", "3"}}
		s.Run([]*Call{call}, time.Now().Add(-time.Second))
		if connection == "with one" {
			require.NoError(t, call.Err)
			require.Equal(t, []int64{5}, call.Reply)
		}
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.idle) == 1
		}, time.Second, time.Millisecond)
	}
	require.Equal(t, 0, n.count())
}

// A request that waited before its call was sent leaves Redis less than the timeout.
func TestStore_isNotDownWhereRedisAnswersWithinItsTimeout(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)
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
		answer, err := add(s, "4", "4")
		require.NoError(t, err)
		require.Equal(t, int64(8), answer, "not the answer to the call that was given up")
	}
	require.Equal(t, 0, n.count())
}

func TestStore_isDownWhereRedisDoesNotAnswerACallThatCameLate(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)
	server.Pause()
	defer server.Resume()
	begun := time.Now()
	call := &Call{Script: sum, Args: []string{"1", "1"}}
	require.ErrorIs(t, s.Run([]*Call{call}, begun.Add(20*time.Millisecond)), ErrUnavailable)
	require.False(t, s.IsUnavailable())
	n.await(t, 1)
	require.Greater(t, time.Since(begun), s.settings.Timeout, "it has all of its time")
	require.EqualError(t, n.get(0), "i/o timeout: no answer within 200ms")
}
