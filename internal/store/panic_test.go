//go:build !yaegi

package store

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Whoever is notified may panic, as a logger may in the interpreter.
func TestPanic_ofWhoIsNotified(t *testing.T) {
	server := redistest.Start(t)
	s := New(Settings{Address: server.Addr(), Timeout: 200 * time.Millisecond, DialTimeout: time.Second, KeyPrefix: "test"}, func(error) { panic("no") })
	t.Cleanup(s.Close)
	for i := 0; i < maxDials+1; i++ {
		requireAnswers(t, s)
		server.Kill()
		requireUnavailable(t, s)
		server.Run()
		awaitAvailable(t, s)
	}
}

// Every function that takes the store's lock panics in the middle: it is unlocked, and the store serves the next call.
func TestPanic_whileTheStoreIsLocked(t *testing.T) {
	server := redistest.Start(t)
	broken := []*waiter{nil}
	for _, row := range []struct {
		name     string
		do       func(s *Store)
		recovers bool // it turns the panic into an error
	}{
		{"Run returns a connection", func(s *Store) {
			s.idle = []*conn{nil}
			s.Run([]*Call{{Script: sum, Args: []string{"1", "1"}}}, time.Now().Add(s.settings.Timeout))
		}, true},
		{"Run uses a broken connection", func(s *Store) {
			s.idle = []*conn{{}}
			s.Run([]*Call{{Script: sum, Args: []string{"1", "1"}}}, time.Now().Add(s.settings.Timeout))
		}, true},
		{"a connection is released", func(s *Store) { release(s, nil) }, false},
		{"a connection is released to a waiter", func(s *Store) {
			s.waiters = broken
			release(s, &conn{})
		}, false},
		{"a dial ends", func(s *Store) {
			s.dialing++
			s.waiters = broken
			s.finishDial(&conn{})
		}, false},
		{"a wait ends", func(s *Store) {
			w := &waiter{} // whose done is not expected any more
			s.waiters = []*waiter{w}
			s.endWait(w)
		}, false},
		{"Redis becomes unavailable", func(s *Store) {
			s.waiters = broken
			s.markUnavailable(errNotRedis)
		}, false},
		{"a refusal is noted", func(s *Store) { s.noteRefusal(nil, nil) }, false},
		{"a renewal is scheduled", func(s *Store) {
			s.settings.MaxConnAge = time.Hour
			scheduleRenewal(s, nil)
		}, false},
		{"a renewal is postponed", func(s *Store) { postponeRenewal(s, &conn{}) }, false},
		{"a surplus connection is taken", func(s *Store) {
			s.idle = []*conn{nil, nil}
			s.takeSurplus(nil)
		}, false},
		{"a connection is replaced", func(s *Store) { s.replace(nil, nil) }, false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, _ := newUsedStore(t, Settings{Address: server.Addr()})
			func() {
				defer func() { require.Equal(t, !row.recovers, recover() != nil, "it panics") }()
				row.do(s)
			}()
			isFree := func() bool {
				free := s.mu.TryLock()
				if free {
					s.waiters = nil // what the test broke
					s.idle = nil
					s.mu.Unlock()
				}
				return free
			}
			require.Eventually(t, isFree, time.Second, time.Millisecond)
			require.Eventually(t, func() bool {
				answer, err := add(s, "1", "1")
				return err == nil && answer == 2
			}, patience, 5*time.Millisecond)
		})
	}
}

// Nothing that asks other servers may hang: all dials wait for the answer.
func TestPanic_whileServersAreAsked(t *testing.T) {
	broken := opener{} // without a store
	s, _ := newStore(t, Settings{Address: "127.0.0.1:1"})
	for name, one := range map[string]topology{
		"sentinel":           newSentinels(s, []string{"a:1", "b:1"}, "m", broken),
		"sentinel, no asker": &sentinels{store: s, askers: []*asker{nil, nil}},
		"cluster":            newCluster([]string{"a:1", "b:1"}, 0, broken),
	} {
		one := one
		t.Run(name, func(t *testing.T) {
			failed := make(chan error, 1)
			go func() {
				_, err := one.locate(time.Now().Add(time.Second))
				failed <- err
			}()
			select {
			case err := <-failed:
				require.ErrorContains(t, err, "panic")
			case <-time.After(patience):
				require.FailNow(t, "it hangs")
			}
		})
	}
}
