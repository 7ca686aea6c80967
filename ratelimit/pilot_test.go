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
	return l.idle
}

func TestPilot_oneServesWhoComesOneAfterTheOther(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	defer Close(l)
	hand := NewHand(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
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
	naming := Naming{Longest: -1, Key: func(raw string) string {
		if raw == "bad" {
			panic("stumbled")
		}
		return raw
	}}
	hand := NewHand(l, NewLimit(10, 10, time.Second), 5*time.Second, naming)
	require.Equal(t, int64(1), request(hand, "good"))
	for i := 0; i < 3; i++ {
		require.Equal(t, int64(Failed), request(hand, "bad"))
		require.ErrorContains(t, Trouble(hand), "stumbled")
		require.Equal(t, int64(1), request(hand, "good"))
	}
	require.Zero(t, get(l, "good").batch, "it may ask ahead again")
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
	hand := NewHand(l, NewLimit(10, 10, time.Second), 20*time.Second, headers)
	var allowed, failed int64
	var done sync.WaitGroup
	done.Add(2)
	go askByRaw(hand, "first", &allowed, &failed, &done)
	gathered := func(flying, waiting int) func() bool {
		return func() bool {
			l.Mu.Lock()
			defer l.Mu.Unlock()
			return l.flying == flying && l.cleared == 0 && len(l.waiting) == waiting
		}
	}
	require.Eventually(t, gathered(1, 0), 5*time.Second, time.Millisecond)
	go askByRaw(hand, "second", &allowed, &failed, &done)
	require.Eventually(t, gathered(1, 1), 5*time.Second, time.Millisecond)
	close(redis.gate)
	done.Wait()
	require.Equal(t, int64(1), failed)
	require.Equal(t, int64(1), allowed)
	require.ErrorContains(t, Trouble(hand), "stumbled")
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
	hand := NewHand(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	require.Equal(t, int64(Failed), request(hand, "a"))
	l.Mu.Lock()
	defer l.Mu.Unlock()
	require.Equal(t, int64(farAway), l.away)
}

// A view that has grown old while a request waited for its token is asked for anew once, and not by each request of the batch.
func TestPilot_asksForLeaveAnew(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name        string
		until       int64 // Clear
		asks, given bool
		passes      bool
	}{
		{"it is clear", 1 << 62, true, false, true},
		{"it is not, and nobody to be asked", 0, false, false, false},
		{"it is not, and leave is given", 0, true, true, true},
		{"it is not, and leave is not given", 0, true, false, false},
	} {
		until, given := row.until, row.given
		l := newLimiter(newStore(t, server.Addr()))
		l.Clear = &until
		hand := NewHand(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
		if row.asks {
			hand.Leave = func(now int64) {
				if given {
					until = now + 1
				}
			}
		}
		require.Equal(t, row.passes, request(hand, "a") > 1, row.name)
		Close(l)
	}
}

func TestClose(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	hand := NewHand(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	require.Equal(t, int64(1), request(hand, "a"))
	require.Eventually(t, func() bool { return idle(l) == 1 }, 5*time.Second, time.Millisecond)
	Close(l)
	require.Equal(t, int64(1), request(hand, "b"), "who still comes is served")
	landed := func() bool {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		return l.flying == 0
	}
	require.Eventually(t, landed, 5*time.Second, time.Millisecond)
	require.Zero(t, idle(l), "no pilot waits any more") // one that has landed waits before it gives the lock back, if it does
}
