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

// hostName behaves like a DNS name: an address whose target may change, for new connections only.
type hostName struct {
	address string
	target  atomic.Value // string
	delay   atomic.Int64 // of new connections, nanoseconds
	made    atomic.Int32 // connections
}

func newHostName(t *testing.T, target string) *hostName {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	n := &hostName{address: listener.Addr().String()}
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
				forward(client, n.target.Load().(string))
			}()
		}
	}()
	return n
}

// forward connects a client with an address until either side ends the connection.
func forward(client net.Conn, address string) {
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

// repeatFor calls do every few milliseconds for a while: connections age by the machine's own clock.
func repeatFor(duration, pause time.Duration, do func()) {
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(pause) {
		do()
	}
}

var who = NewScript(`return redis.call('GET', KEYS[1])`)

func TestStore_followsANameThatMoves(t *testing.T) {
	first, second := redistest.Start(t), redistest.Start(t)
	first.Do("SET", "who", "1")
	second.Do("SET", "who", "2")
	for _, row := range []struct {
		name        string
		age         time.Duration
		last        int64 // the Redis that answers in the end
		connections int32 // at most
	}{
		{"without maxConnAge it does not", 0, 1, 1},
		{"with maxConnAge", 200 * time.Millisecond, 2, 9}, // at most one each 160 ms
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			name := newHostName(t, first.Addr())
			s, n := newStore(t, Settings{Address: name.address, MaxConnAge: row.age})
			s.settings.Timeout = 300 * time.Millisecond
			last := int64(0)
			ask := func() {
				call := &Call{Script: who, Keys: []string{"who"}}
				require.NoError(t, s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout/2)))
				last = call.Reply[0]
			}
			ask()
			require.Equal(t, int64(1), last)
			name.delay.Store(int64(s.settings.Timeout * 3 / 4)) // a request that waited for a connection would fail
			name.target.Store(second.Addr())
			repeatFor(5*200*time.Millisecond, 2*time.Millisecond, ask)
			require.Equal(t, row.last, last)
			require.Equal(t, 0, n.count())
			require.LessOrEqual(t, name.made.Load(), row.connections)
		})
	}
}

func TestRenew_anOldConnectionIsKeptIfNoNewOneCanBeMade(t *testing.T) {
	server := redistest.Start(t)
	name := newHostName(t, server.Addr())
	s, n := newUsedStore(t, Settings{Address: name.address, MaxConnAge: 100 * time.Millisecond})
	name.target.Store("127.0.0.1:" + redistest.FreePort(t))
	repeatFor(500*time.Millisecond, 5*time.Millisecond, func() { requireAnswers(t, s) })
	require.Equal(t, 0, n.count())
	require.Greater(t, name.made.Load(), int32(2), "it was tried")
}

func TestRenew_connectionsThatAreNotNeededAreClosed(t *testing.T) {
	server := redistest.Start(t)
	name := newHostName(t, server.Addr())
	s, _ := newStore(t, Settings{Address: name.address, MaxConnAge: 300 * time.Millisecond})
	keepConnections(t, s, 8)
	require.Equal(t, 8, idleCount(s))
	require.Eventually(t, func() bool {
		_, err := add(s, "1", "1") // the last connection is in use
		return err == nil && idleCount(s) == 1
	}, patience, 5*time.Millisecond)
}

func TestRenew_aClosedStoreMakesNoConnections(t *testing.T) {
	server := redistest.Start(t)
	name := newHostName(t, server.Addr())
	s, _ := newStore(t, Settings{Address: name.address, MaxConnAge: 100 * time.Millisecond})
	keepConnections(t, s, 8)
	s.Close()
	time.Sleep(200 * time.Millisecond) // renewals that had begun end
	made := name.made.Load()
	time.Sleep(300 * time.Millisecond) // more than MaxConnAge
	require.Equal(t, made, name.made.Load())
}
