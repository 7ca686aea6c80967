package ratelimit

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
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
	require.Equal(t, int64(1), request(hand, "good"), "the next ones join by their raws")
	for i := 0; i < 3; i++ {
		require.Equal(t, int64(Failed), request(hand, "bad"))
		require.ErrorContains(t, Trouble(hand), "stumbled")
		require.Equal(t, int64(1), request(hand, "good"))
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
	time.Sleep(10 * time.Millisecond)
	require.Zero(t, idle(l), "no pilot waits any more")
}
