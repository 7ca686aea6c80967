//go:build !yaegi

package store

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// passOn passes what is said on a connection on to an address, until either side ends it.
func passOn(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer client.Close()
		defer server.Close()
		io.Copy(server, client)
	}()
	io.Copy(client, server)
}

// name is what a DNS name is to its clients: an address whose target changes, for new connections only.
type name struct {
	address string
	target  atomic.Value // string
	delay   atomic.Int64 // of new connections, nanoseconds
	made    atomic.Int32 // connections
}

func newName(t *testing.T, target string) *name {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	n := &name{address: listener.Addr().String()}
	n.target.Store(target)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			n.made.Add(1)
			go func() {
				time.Sleep(time.Duration(n.delay.Load()))
				passOn(client, n.target.Load().(string))
			}()
		}
	}()
	return n
}

var who = NewScript(`return redis.call('GET', KEYS[1])`)

func TestStore_followsANameThatMoves(t *testing.T) {
	first, second := redistest.Start(t), redistest.Start(t)
	first.Do("SET", "who", "1")
	second.Do("SET", "who", "2")
	for _, age := range []time.Duration{0, 200 * time.Millisecond} {
		t.Run(age.String(), func(t *testing.T) {
			n := newName(t, first.Addr())
			s, told := open(t, Settings{Address: n.address, MaxConnAge: age})
			s.settings.Timeout = 300 * time.Millisecond
			ask := func() int64 {
				call := &Call{Script: who, Keys: []string{"who"}}
				require.NoError(t, s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout/2)))
				return call.Reply[0]
			}
			require.Equal(t, int64(1), ask())
			n.delay.Store(int64(s.settings.Timeout * 3 / 4)) // a request that waited for a connection would fail
			n.target.Store(second.Addr())
			last := int64(0)
			for end := time.Now().Add(5 * 200 * time.Millisecond); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
				last = ask()
			}
			require.Equal(t, 0, told.count())
			if age == 0 {
				require.Equal(t, int64(1), last)
				require.Equal(t, int32(1), n.made.Load())
				return
			}
			require.Equal(t, int64(2), last)
			require.LessOrEqual(t, n.made.Load(), int32(9), "a connection each 160 ms")
		})
	}
}

func TestStore_keepsAnOldConnectionWhereNoOtherCanBeMade(t *testing.T) {
	server := redistest.Start(t)
	n := newName(t, server.Addr())
	s, told := open(t, Settings{Address: n.address, MaxConnAge: 100 * time.Millisecond})
	_, err := add(s, "1", "1")
	require.NoError(t, err)
	n.target.Store("127.0.0.1:" + redistest.FreePort(t))
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		_, err := add(s, "1", "1")
		require.NoError(t, err)
	}
	require.Equal(t, 0, told.count())
	require.Greater(t, n.made.Load(), int32(2), "it was tried")
}

func TestStore_letsGoOfConnectionsThatAreNotNeeded(t *testing.T) {
	server := redistest.Start(t)
	n := newName(t, server.Addr())
	s, _ := open(t, Settings{Address: n.address, MaxConnAge: 300 * time.Millisecond})
	for i := 0; i < 8; i++ {
		c, err := s.dialSafely()
		require.NoError(t, err)
		release(s, c)
	}
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.idle)
	}
	require.Equal(t, 8, count())
	for end := time.Now().Add(900 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		_, err := add(s, "1", "1")
		require.NoError(t, err)
	}
	require.Equal(t, 1, count())
	s.Close()
	made := n.made.Load()
	time.Sleep(500 * time.Millisecond)
	require.Equal(t, made, n.made.Load(), "a closed store makes no connections")
}

// Redis closes idle connections, as do NATs and proxies. Nothing of a call that must not be made twice was sent then.
func TestStore_makesACallOnceAfterAConnectionThatDiedIdle(t *testing.T) {
	count := NewScript(`return '' .. redis.call('INCR', KEYS[1])`)
	rows := []struct {
		name string
		end  func(server *redistest.Server)
	}{
		{"by its timeout", func(*redistest.Server) { time.Sleep(2500 * time.Millisecond) }},
		{"by CLIENT KILL", func(server *redistest.Server) {
			server.Do("CLIENT", "KILL", "TYPE", "normal")
			time.Sleep(longIdle + 10*time.Millisecond)
		}},
		{"by a restart", func(server *redistest.Server) {
			server.Kill()
			server.Run()
			time.Sleep(longIdle + 10*time.Millisecond)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t, "--timeout", "1", "--appendonly", "yes", "--appendfsync", "always")
			s, n := open(t, Settings{Address: server.Addr()})
			var made []*conn
			for i := 0; i < 3; i++ {
				c, err := s.dialSafely()
				require.NoError(t, err)
				made = append(made, c)
			}
			for _, c := range made {
				release(s, c)
			}
			for i := int64(1); i <= 3; i++ {
				call := &Call{Script: count, Keys: []string{"n"}, Once: true}
				require.NoError(t, s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout)), i)
				require.Equal(t, []int64{i}, call.Reply)
				row.end(server)
			}
			require.Equal(t, 0, n.count())
		})
	}
}

// Where it was sent before the connection ended, Redis may have run it.
func TestStore_triesACallOnceThatMustNotCountTwice(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	_, err := add(s, "1", "1")
	require.NoError(t, err)

	server.Pause()
	call := &Call{Script: sum, Args: []string{"1", "1"}, Once: true}
	answered := make(chan error)
	go func() { answered <- s.Run([]*Call{call}, time.Now().Add(time.Second)) }()
	time.Sleep(50 * time.Millisecond)
	server.Kill()
	server.Run()
	require.ErrorIs(t, <-answered, ErrUnavailable)
	require.ErrorIs(t, call.Err, ErrUnavailable)
	require.Equal(t, 0, n.count(), "that a connection ended does not say that Redis is away")
}

// An idle connection may never have answered a call.
func TestStore_dialsAnewForAConnectionThatDiedBeforeItsFirstCall(t *testing.T) {
	server := redistest.Start(t)
	s, n := open(t, Settings{Address: server.Addr()})
	for i := 0; i < 3; i++ {
		c, err := s.dialSafely()
		require.NoError(t, err)
		release(s, c)
	}
	server.Do("CLIENT", "KILL", "TYPE", "normal")
	time.Sleep(longIdle + 10*time.Millisecond)
	answer, err := add(s, "2", "2")
	require.NoError(t, err)
	require.Equal(t, int64(4), answer)
	require.Equal(t, 0, n.count())
}
