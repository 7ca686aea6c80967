//go:build !yaegi

package store

import (
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Redis closes idle connections, as do NATs and proxies. A call that must count once is made once all the same, because the
// store looks at an idle connection before it sends such a call.
func TestIdle_aCallThatMustCountOnceIsMadeOnceAfterAConnectionDied(t *testing.T) {
	count := NewScript(`return '' .. redis.call('INCR', KEYS[1])`)
	for _, row := range []struct {
		name string
		end  func(t *testing.T, server *redistest.Server)
	}{
		{"by its timeout", func(t *testing.T, server *redistest.Server) {
			require.Eventually(t, func() bool {
				return strings.Count(server.Text("CLIENT", "LIST", "TYPE", "normal"), "\n") == 1 // that which asks
			}, patience, 10*time.Millisecond)
		}},
		{"by CLIENT KILL", func(t *testing.T, server *redistest.Server) { killConnections(server) }},
		{"by a restart", func(t *testing.T, server *redistest.Server) { server.Restart() }},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t, "--timeout", "1", "--appendonly", "yes", "--appendfsync", "always")
			s, n := newStore(t, Settings{Address: server.Addr()})
			keepConnections(t, s, 3)
			for i := int64(1); i <= 3; i++ {
				call := &Call{Script: count, Keys: []string{"n"}, Once: true}
				require.NoError(t, runOne(s, call), i)
				require.Equal(t, []int64{i}, call.Reply)
				row.end(t, server)
				ageIdle(s)
			}
			require.Equal(t, 0, n.count())
		})
	}
}

// What else may happen to an idle connection: the call is made on a new one, and nothing is noted.
func TestIdle_aDeadConnectionIsReplaced(t *testing.T) {
	for _, row := range []struct {
		name string
		used bool // the connection has answered a call before
		end  func(server *redistest.Server)
	}{
		{"by a restart", true, (*redistest.Server).Restart},
		{"by CLIENT KILL", true, killConnections},
		{"before its first call", false, killConnections},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			s, n := newStore(t, Settings{Address: server.Addr()})
			if row.used {
				requireAnswers(t, s)
			} else {
				keepConnections(t, s, 3)
				ageIdle(s)
			}
			row.end(server)
			requireAnswers(t, s)
			require.Equal(t, 0, n.count())
		})
	}
}

// If a call was sent before the connection ended, Redis may have run it.
func TestIdle_aCallThatMustCountOnceIsNotRepeated(t *testing.T) {
	server := redistest.Start(t)
	s, n := newUsedStore(t, Settings{Address: server.Addr()})
	server.Pause()
	call := &Call{Script: sum, Args: []string{"1", "1"}, Once: true}
	answered := make(chan error)
	go func() { answered <- s.Run([]*Call{call}, time.Now().Add(time.Second)) }()
	require.Eventually(t, func() bool { return idleCount(s) == 0 }, patience, time.Millisecond)
	time.Sleep(50 * time.Millisecond) // nothing shows that the call was sent
	server.Restart()
	require.ErrorIs(t, <-answered, ErrUnavailable)
	require.ErrorIs(t, call.Err, ErrUnavailable)
	require.Equal(t, 0, n.count(), "one connection ended, which does not make Redis unavailable")
}
