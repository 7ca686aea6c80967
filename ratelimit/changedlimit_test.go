package ratelimit

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// If refillPeriod changes, each bucket keeps its tokens, both in this process and in Redis.
func TestLimiter_aChangedPeriodKeepsTheTokens(t *testing.T) {
	second, minute := NewLimit(50, 1, time.Second), NewLimit(50, 1, time.Minute)
	for _, row := range []struct {
		name     string
		from, to *Limit
		taken    int // before the change
	}{
		{"two are left, and the period grows", second, minute, 48},
		{"two are left, and it shrinks", minute, second, 48},
		{"forty are left, and it grows", second, minute, 10},
		{"forty are left, and it shrinks", minute, second, 10},
	} {
		left := 50 - row.taken
		t.Run(row.name+", in this process", func(t *testing.T) {
			l := New(Settings{})
			require.Equal(t, row.taken, takeLocally(l, row.from, row.taken))
			require.Equal(t, left, takeLocally(l, row.to, 100))
		})
		t.Run(row.name+", as Redis reports", func(t *testing.T) {
			l := newLimiter(newStore(t, redistest.Start(t).Addr()))
			defer Close(l)
			for i := 0; i < row.taken; i++ {
				require.True(t, allowed(t, l, "ip:a", row.from))
			}
			require.True(t, allowed(t, l, "ip:a", row.to))
			require.InDelta(t, left-1, takeLocally(l, row.to, 100), 1)
		})
		t.Run(row.name+", as Redis reported before", func(t *testing.T) {
			l := newLimiter(newStore(t, redistest.Start(t).Addr()))
			defer Close(l)
			for i := 0; i < row.taken; i++ {
				require.True(t, allowed(t, l, "ip:a", row.from))
			}
			require.InDelta(t, left, takeLocally(l, row.to, 100), 1)
		})
	}
}

// takeLocally takes up to this many tokens in this process, and returns how many it took.
func takeLocally(l *Limiter, limit *Limit, most int) (taken int) {
	now := int64(0)
	if l.Now != nil {
		now = l.Now()
	}
	for taken < most && allowedLocal(l, "ip:a", limit, now) {
		taken++
	}
	return taken
}

// A level under a short period may overflow an int64 in the units of a long period.
func TestAllowLocal_aFullBucketIsFullInALongerPeriod(t *testing.T) {
	l := New(Settings{})
	brief, daily := NewLimit(1000000000, 1, time.Microsecond), NewLimit(100000, 1, 24*time.Hour)
	require.True(t, allowedLocal(l, "ip:a", brief, 0))
	require.True(t, allowedLocal(l, "ip:a", daily, 0))
	require.Equal(t, int64(99999)*daily.period, lookupLocked(l, "ip:a").bucket.level)
}

// If the table has no room for another key, it only drops buckets that are full under their own limits, whatever the new key's limit.
func TestAllowLocal_eachKeyIsJudgedByItsOwnLimit(t *testing.T) {
	wide, narrow, brief := NewLimit(1000, 1, time.Hour), NewLimit(2, 1, time.Hour), NewLimit(2, 1, time.Second)
	l := New(Settings{})
	for i := 0; i < maxKeys; i++ {
		require.True(t, allowedLocal(l, numbered(i), wide, 0))
	}
	for i := 0; i < 3; i++ {
		require.Equal(t, i < 2, allowedLocal(l, numbered(maxKeys+i), narrow, 0), "the others share one bucket")
	}
	require.Len(t, l.recent, halfOfKeys)
	require.Len(t, l.previous, halfOfKeys, "none is full, though each would be under the other limit")
	for i := 0; i < 3; i++ {
		require.Equal(t, i < 2, allowedLocal(l, numbered(maxKeys+i), brief, 0), "under another limit they share another one")
	}
	require.False(t, allowedLocal(l, numbered(maxKeys), narrow, 0))
}

// A request under another limit changes the limit of its key.
func TestAllowLocal_lastLimitHolds(t *testing.T) {
	wide, narrow := NewLimit(1000, 1, time.Hour), NewLimit(2, 1, time.Hour)
	l := New(Settings{})
	require.True(t, allowedLocal(l, "ip:a", narrow, 0))
	require.True(t, allowedLocal(l, "ip:a", wide, 0))
	require.Same(t, wide, lookupLocked(l, "ip:a").limit)
	require.True(t, allowedLocal(l, "ip:b", wide, 0))
	require.True(t, allowedLocal(l, "ip:b", narrow, 0))
	require.Same(t, narrow, lookupLocked(l, "ip:b").limit)
	require.False(t, evictFullLocked(l.recent, 0), "neither is full")
}
