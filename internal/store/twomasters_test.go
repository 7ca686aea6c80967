//go:build !yaegi

package store

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// twoMasters are two servers that both work as masters: the old one cannot reach the sentinels, which announce either.
type twoMasters struct {
	t              *testing.T
	previous, next *redistest.Server
	announced      atomic.Value
	store          *Store
	notes          *notes
}

// startTwoMasters returns two masters and a store that uses the old one.
func startTwoMasters(t *testing.T) *twoMasters {
	m := &twoMasters{t: t, previous: redistest.Start(t), next: redistest.Start(t)}
	m.previous.Do("SET", "who", "1")
	m.next.Do("SET", "who", "2")
	m.announced.Store(m.previous.Addr())
	sentinels := []string{announcing(t, &m.announced), announcing(t, &m.announced), announcing(t, &m.announced)}
	m.store, m.notes = newStore(t, Settings{Address: strings.Join(sentinels, ","), Sentinel: &SentinelSettings{Master: "m"}, Timeout: patience})
	require.Equal(t, int64(1), m.ask())
	return m
}

// ask returns 1 if the old master answers, and 2 if the new one does.
func (m *twoMasters) ask() int64 {
	call := &Call{Script: who, Keys: []string{"who"}}
	require.NoError(m.t, runOne(m.store, call))
	return call.Reply[0]
}

func (m *twoMasters) announceNext() { m.announced.Store(m.next.Addr()) }

// acquire takes a connection out of the store.
func (m *twoMasters) acquire() *conn {
	c, err := acquire(m.store, time.Now().Add(patience))
	require.NoError(m.t, err)
	return c
}

// awaitNext waits until the store knows the new master.
func (m *twoMasters) awaitNext() {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		_, server := m.store.Topology()
		return server == m.next.Addr()
	}, patience, time.Millisecond)
}

// requireLeft requires that no call reaches the old master from now on, and that the store has no connection to it.
func (m *twoMasters) requireLeft() {
	m.t.Helper()
	for i := 0; i < 20; i++ {
		require.Equal(m.t, int64(2), m.ask())
	}
	require.Eventually(m.t, func() bool {
		return strings.Count(m.previous.Text("CLIENT", "LIST", "TYPE", "normal"), "\n") == 1
	}, patience, time.Millisecond, "the connections to it are closed")
	require.Equal(m.t, 0, m.notes.count())
}

// Whatever the store does when the sentinels announce another master, none of its calls reaches the old one a second later.
func TestSentinel_anOldMasterIsLeftAltogether(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(m *twoMasters)
	}{
		{"a dial to it ends later", func(m *twoMasters) {
			c, err := dialAt(m.store, m.previous.Addr(), time.Now().Add(patience))
			require.NoError(m.t, err)
			m.announceNext()
			m.awaitNext()
			m.store.keepMade(c)
		}},
		{"a renewal ends later", func(m *twoMasters) {
			m.announceNext()
			m.awaitNext()
			c := m.acquire()
			late, err := dialAt(m.store, m.previous.Addr(), time.Now().Add(patience))
			require.NoError(m.t, err)
			m.store.noteMade(late)
			release(m.store, c)
			closeAll(m.store.replace(c, late))
		}},
		{"a connection was lost, and none was needed since", func(m *twoMasters) {
			keepConnections(m.t, m.store, 2)
			m.store.noteLost()
			m.announceNext()
			m.awaitNext()
		}},
		{"a request finds the new one while others use the old one", func(m *twoMasters) {
			keepConnections(m.t, m.store, 3)
			busy := []*conn{m.acquire(), m.acquire(), m.acquire()}
			m.announceNext()
			m.store.noteLost()
			c, err := m.store.dialSafely()
			require.NoError(m.t, err)
			require.Equal(m.t, m.next.Addr(), c.address)
			release(m.store, c)
			for _, one := range busy {
				release(m.store, one)
			}
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			m := startTwoMasters(t)
			row.do(m)
			m.requireLeft()
		})
	}
}

// Requests that come at the same time, always.
func TestSentinel_anOldMasterIsLeftUnderLoad(t *testing.T) {
	m := startTwoMasters(t)
	late := redistest.Late(t)
	var done sync.WaitGroup
	var end atomic.Bool
	var lastPrevious atomic.Int64 // when the old one answered
	failures := make(chan error, 12)
	for i := 0; i < cap(failures); i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for !end.Load() {
				begun := time.Now()
				call := &Call{Script: who, Keys: []string{"who"}}
				if err := runOne(m.store, call); err != nil {
					failures <- err
					return
				}
				if call.Reply[0] == 1 {
					lastPrevious.Store(begun.UnixNano())
				}
			}
		}()
	}
	m.announceNext()
	announced := time.Now()
	repeatFor(3*watchInterval, 10*time.Millisecond, func() {})
	end.Store(true)
	done.Wait()
	require.Empty(t, failures)
	after := time.Unix(0, lastPrevious.Load()).Sub(announced)
	t.Logf("the last call on the old master began %d ms after the announcement", after.Milliseconds())
	require.Less(t, after, 1500*time.Millisecond+late())
	m.requireLeft()
}

// The breaker believes a new master that has less data than the old one had only if the numbers say so.
func TestSentinel_aNewMastersConnectionsAreLaterThanTheLoss(t *testing.T) {
	m := startTwoMasters(t)
	keepConnections(t, m.store, 3)
	busy := m.acquire()
	m.announceNext()
	m.awaitNext()
	require.Equal(t, int64(2), m.ask())
	c := m.acquire()
	require.Greater(t, c.number, m.store.Lost())
	require.GreaterOrEqual(t, m.store.Lost(), busy.number)
	release(m.store, c)
	release(m.store, busy)
	m.requireLeft()
}

// A sentinel that is cut off with the old master goes on announcing it, and the third is gone. The store changes to the new
// master and stays there, until it cannot be used.
func TestSentinel_whoDisagreeAreFollowedOnce(t *testing.T) {
	m := startTwoMasters(t)
	var next atomic.Value
	next.Store(m.next.Addr())
	addresses := []string{announcing(t, &m.announced), announcing(t, &next), "127.0.0.1:" + redistest.FreePort(t)}
	m.store, m.notes = newStore(t, Settings{Address: strings.Join(addresses, ","), Sentinel: &SentinelSettings{Master: "m"}, Timeout: patience})
	requireAnswers(t, m.store)
	group := m.store.topology.(*sentinels)
	group.note(m.previous.Addr())
	group.failed(m.previous.Addr()) // it does not matter which one was used first
	m.awaitNext()
	repeatFor(3*watchInterval, 5*time.Millisecond, func() { require.Equal(t, int64(2), m.ask()) })
	m.next.Do("CLIENT", "KILL", "TYPE", "normal")
	require.Equal(t, int64(2), m.ask(), "a lost connection is no reason to return")
	require.Equal(t, 0, m.notes.count())

	m.next.Kill()
	require.Eventually(t, func() bool {
		call := &Call{Script: who, Keys: []string{"who"}}
		return runOne(m.store, call) == nil && call.Reply[0] == 1
	}, patience, 5*time.Millisecond)
}
