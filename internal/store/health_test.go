package store

import (
	"errors"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestUnavailable_callsAreAnsweredAtOnce(t *testing.T) {
	late := redistest.Late(t)
	s, n := newStore(t, Settings{Address: "127.0.0.1:" + redistest.FreePort(t)})
	requireUnavailable(t, s)
	n.await(t, 1)

	begun := time.Now()
	for i := 0; i < 100; i++ {
		requireUnavailable(t, s)
	}
	require.Less(t, time.Since(begun), 100*time.Millisecond+late())
	require.Equal(t, 1, n.count(), "one note for one change")
}

// What makes Redis unavailable, and what makes it available again.
func TestUnavailable_untilRedisServesAgain(t *testing.T) {
	server := redistest.Start(t)
	write := NewScript(`redis.call('SET', KEYS[1], 'x') return '1'`)
	do := func(command string, args ...interface{}) func() {
		return func() { server.Do(command, args...) }
	}
	for _, row := range []struct {
		name       string
		begin, end func()
	}{
		{"it is killed", server.Kill, server.Run},
		{"it does not answer in time", server.Pause, server.Resume},
		{"it becomes a replica", do("REPLICAOF", "127.0.0.1", "1"), do("REPLICAOF", "NO", "ONE")},
		{"it is out of memory", do("CONFIG", "SET", "maxmemory", "1"), do("CONFIG", "SET", "maxmemory", "0")},
		{"a command is forbidden", do("ACL", "SETUSER", "default", "-set"), do("ACL", "SETUSER", "default", "+set")},
		{"the keys are forbidden", do("ACL", "SETUSER", "default", "resetkeys"), do("ACL", "SETUSER", "default", "~*")},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, n := newStore(t, Settings{Address: server.Addr()})
			run := func() error { return runOne(s, &Call{Script: write, Keys: []string{"test:key"}}) }
			require.NoError(t, run())
			late := redistest.Late(t)

			row.begin()
			begun := time.Now()
			require.ErrorIs(t, run(), ErrUnavailable)
			require.Less(t, time.Since(begun), s.settings.Timeout+100*time.Millisecond+late())
			require.Eventually(t, func() bool { return s.IsUnavailable() }, patience, time.Millisecond)
			n.await(t, 1)
			require.Error(t, n.get(0))
			awaitFailedChecks(t, s)
			require.True(t, s.IsUnavailable(), "a Redis that answers but does not write is not back")

			row.end()
			awaitAvailable(t, s)
			require.NoError(t, run())
			requireAnswers(t, s) // not the answer to the call that was given up
			n.await(t, 2)
			require.NoError(t, n.get(1))
		})
	}
}

func TestUnavailable_afterAPanicInARun(t *testing.T) {
	server := redistest.Start(t)
	s, n := newStore(t, Settings{Address: server.Addr()})
	s.idle = append(s.idle, &conn{})
	call := &Call{Script: sum, Args: []string{"1", "1"}}
	require.ErrorIs(t, s.Run([]*Call{call}, time.Now().Add(time.Second)), ErrUnavailable)
	require.ErrorIs(t, call.Err, ErrUnavailable)
	n.await(t, 1)
	require.ErrorContains(t, n.get(0), "panic")
	awaitAvailable(t, s)
	requireAnswers(t, s)
}

// A connection that is made while Redis becomes unavailable may be dead by the time it is back, and would then count as a new
// one that failed.
func TestUnavailable_newConnectionsAreNotKept(t *testing.T) {
	server := redistest.Start(t)
	s, _ := newStore(t, Settings{Address: server.Addr()})
	s.dialing++
	s.markUnavailable(errors.New("the test says so"))
	s.dial()
	require.Equal(t, 0, idleCount(s))
	require.Equal(t, 0, s.dialing)
}
