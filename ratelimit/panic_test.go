package ratelimit

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// panicker panics when its step is reached for the turn-th time from now.
type panicker struct {
	step  string
	turn  int64
	store Store
}

func (s *panicker) at(step string) {
	if step == s.step && atomic.AddInt64(&s.turn, -1) == 0 {
		panic("panicked at " + step)
	}
}

func (s *panicker) Run(calls []*store.Call, deadline time.Time) error {
	s.at("run")
	return s.store.Run(calls, deadline)
}

func (s *panicker) PiggybackCall(now int64) *store.Call {
	s.at("piggyback")
	call := &store.Call{Script: store.NewScript(`return '42'`), Keys: []string{"test:{name}:other"}}
	call.Then = func(c *store.Call) { s.at("then") }
	return call
}

func (s *panicker) Extend(now int64) { s.at("extend") }

// If a caller's code panics anywhere, the next request is served, and no lock stays held.
func TestLimiter_aPanicAtAnyStep(t *testing.T) {
	server := redistest.Start(t)
	shared := newStore(t, server.Addr())
	for _, row := range []struct {
		step  string
		turns int64 // each turn panics once
	}{
		{"run", 3}, {"piggyback", 3}, {"then", 3}, {"extend", 3}, {"name", 3}, {"key", 6}, {"now", 12},
	} {
		for turn := int64(1); turn <= row.turns; turn++ {
			for _, many := range []bool{false, true} {
				s := &panicker{step: row.step, store: shared}
				l := newLimiter(s)
				now := l.Now
				l.Now = func() int64 { s.at("now"); return now() }
				l.Name = func(key string) string { s.at("name"); return key }
				cache := NewCache(l, NewLimit(1000, 1000, time.Second), 5*time.Second, KeyMaker{
					MaxJoin: -1, Key: func(id string) string { s.at("key"); return id }, ManyToOne: many,
				})
				cache.Refresher = s
				stopped := now()
				ask := func(id string) {
					defer func() { recover() }() // like Traefik
					Allow(cache, id, stopped)
				}
				ask("a")
				atomic.StoreInt64(&s.turn, turn)
				inTime(t, row.step, func() {
					for i := 0; i < 4; i++ {
						ask("a")
						ask("b")
					}
				})
				atomic.StoreInt64(&s.turn, 0)
				inTime(t, row.step, func() {
					require.Greater(t, Allow(cache, "a", now()), int64(0), "%s, turn %d: %v", row.step, turn, LastErr(cache))
					require.Greater(t, Allow(cache, "new", now()), int64(0), "%s, turn %d", row.step, turn)
				})
				free := func() bool {
					l.Mu.Lock()
					defer l.Mu.Unlock()
					return l.inFlight == 0 && l.claimed == 0 && len(l.pending) == 0
				}
				require.Eventually(t, free, 5*time.Second, time.Millisecond, "%s, turn %d", row.step, turn)
				Close(l)
			}
		}
	}
}

// The renewal of a lease needs the client's key.
func TestLimiter_aPanicWhileALeaseIsRenewed(t *testing.T) {
	l, cache, ahead := leases(t, newStore(t, redistest.Start(t).Addr()), 1)
	atomic.StoreInt64(ahead, 61*second)
	cache.keyMaker = KeyMaker{MaxJoin: -1, Key: func(id string) string { panic("panicked") }}
	require.Panics(t, func() { request(cache, idOf(0)) })
	cache.keyMaker = headers
	inTime(t, "renew", func() { require.Greater(t, request(cache, idOf(0)), int64(0)) })
	inTime(t, "renew", func() { idle(l) })
}

// inTime requires that the function returns.
func inTime(t *testing.T, step string, something func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		something()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		require.FailNow(t, "it waits forever", step)
	}
}
