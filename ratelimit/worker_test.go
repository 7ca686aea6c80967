package ratelimit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

func idle(l *Limiter) int {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return l.idleWorkers
}

func TestPilot_oneServesWhoComesOneAfterTheOther(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	defer Close(l)
	hand := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	for _, raw := range []string{"a", "b", "c"} {
		require.Equal(t, int64(1), request(hand, raw))
		require.Eventually(t, func() bool { return idle(l) == 1 }, 5*time.Second, time.Millisecond)
	}
}

// A pilot that the interpreter stumbles in takes nobody with it.
func TestPilot_stumbles(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	defer Close(l)
	naming := KeyMaker{MaxJoin: -1, Key: func(raw string) string {
		if raw == "bad" {
			panic("stumbled")
		}
		return raw
	}}
	hand := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, naming)
	require.Equal(t, int64(1), request(hand, "good"))
	for i := 0; i < 3; i++ {
		require.Equal(t, int64(Undecided), request(hand, "bad"))
		require.ErrorContains(t, LastErr(hand), "stumbled")
		require.Equal(t, int64(1), request(hand, "good"))
	}
	require.Zero(t, lookup(l, "good").prefetchBatch, "it may ask ahead again")
}

// stumbling panics in its first call, when it is let go.
type stumbling struct {
	store *store.Store
	gate  chan struct{}
	calls int64
}

func (s *stumbling) Run(calls []*store.Call, deadline time.Time) error {
	<-s.gate
	if atomic.AddInt64(&s.calls, 1) == 1 {
		panic("stumbled")
	}
	return s.store.Run(calls, deadline)
}

func TestPilot_whoWaitsBehindOneThatStumblesIsServed(t *testing.T) {
	server := redistest.Start(t)
	redis := &stumbling{store: newStore(t, server.Addr()), gate: make(chan struct{})}
	l := newLimiter(redis)
	defer Close(l)
	l.Now = func() int64 { return 1 } // so that none is in a hurry
	hand := NewCache(l, NewLimit(10, 10, time.Second), 20*time.Second, headers)
	var allowed, failed int64
	var done sync.WaitGroup
	done.Add(2)
	go askByRaw(hand, "first", &allowed, &failed, &done)
	gathered := func(flying, waiting int) func() bool {
		return func() bool {
			l.Mu.Lock()
			defer l.Mu.Unlock()
			return l.inFlight == flying && l.claimed == 0 && len(l.pending) == waiting
		}
	}
	require.Eventually(t, gathered(1, 0), 5*time.Second, time.Millisecond)
	go askByRaw(hand, "second", &allowed, &failed, &done)
	require.Eventually(t, gathered(1, 1), 5*time.Second, time.Millisecond)
	close(redis.gate)
	done.Wait()
	require.Equal(t, int64(1), failed)
	require.Equal(t, int64(1), allowed)
	require.ErrorContains(t, LastErr(hand), "stumbled")
	require.Eventually(t, gathered(0, 0), 5*time.Second, time.Millisecond)
}

// failing has no answer, at once.
type failing struct{}

func (failing) Run(calls []*store.Call, _ time.Time) error {
	for _, call := range calls {
		call.Err = store.ErrUnavailable
	}
	return store.ErrUnavailable
}

func TestPilot_noAnswerIsNoQuickOne(t *testing.T) {
	l := newLimiter(failing{})
	defer Close(l)
	hand := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	require.Equal(t, int64(Undecided), request(hand, "a"))
	l.Mu.Lock()
	defer l.Mu.Unlock()
	require.Equal(t, int64(sendInterval), l.minRTT)
}

// answering is another whose leave is asked for: until becomes given by a rider of it, or by extending.
type answering struct {
	rides, extends bool
	until          *int64
	asked          []string
}

func (a *answering) PiggybackCall(now int64) *store.Call {
	a.asked = append(a.asked, "rider")
	if !a.rides {
		return nil
	}
	call := &store.Call{Script: store.NewScript(`return '42'`), Keys: []string{"test:{name}:other"}}
	call.Then = func(c *store.Call) { *a.until = now + c.Reply[0]*1000000 }
	return call
}

func (a *answering) Extend(now int64) {
	a.asked = append(a.asked, "extend")
	if a.extends {
		*a.until = now + 1
	}
}

// Leave that is over when a batch leaves is asked for on its way, and where that was not to be had, once more when it has landed, for all of it.
func TestPilot_asksForLeave(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name   string
		until  int64 // Clear
		leave  *answering
		passes bool
		asked  []string
	}{
		{"it is clear", 1 << 62, &answering{}, true, nil},
		{"it is not, and nobody to be asked", 0, nil, false, nil},
		{"it is not, and a rider brings it", 0, &answering{rides: true}, true, []string{"rider"}},
		{"it is not, and it is given when the batch has landed", 0, &answering{extends: true}, true, []string{"rider", "extend"}},
		{"it is not, and it is not given", 0, &answering{}, false, []string{"rider", "extend"}},
	} {
		until := row.until
		l := newLimiter(newStore(t, server.Addr()))
		l.HealthyUntil = &until
		hand := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
		if row.leave != nil {
			row.leave.until = &until
			hand.Refresher = row.leave
		}
		require.Equal(t, row.passes, request(hand, "a") > 1, row.name)
		if row.leave != nil {
			require.Equal(t, row.asked, row.leave.asked, row.name)
		}
		Close(l)
	}
}

func TestClose(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	hand := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	require.Equal(t, int64(1), request(hand, "a"))
	require.Eventually(t, func() bool { return idle(l) == 1 }, 5*time.Second, time.Millisecond)
	Close(l)
	require.Equal(t, int64(1), request(hand, "b"), "who still comes is served")
	landed := func() bool {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		return l.inFlight == 0
	}
	require.Eventually(t, landed, 5*time.Second, time.Millisecond)
	require.Zero(t, idle(l), "no pilot waits any more") // one that has landed waits before it gives the lock back, if it does
}
