package ratelimit

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestAllowLocal_steps(t *testing.T) {
	l := New(Settings{})
	limit := NewLimit(2, 1, time.Second)
	rows := []struct {
		name    string
		at      int64
		verdict int64
	}{
		{"first of two", 0, 1},
		{"second of two", 0, 1},
		{"none left", 0, -second},
		{"half a second later", second / 2, -second / 2},
		{"a microsecond short", second - 1, -1},
		{"one again", second, 1},
	}
	for _, row := range rows {
		verdict := AllowLocal(l, "ip:a", limit, row.at)
		require.Equal(t, row.verdict, verdict, row.name)
	}
}

func TestAllowLocal_continuesFromTheLastLevelOfRedis(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(5, 1, time.Hour)
	for i := 0; i < 3; i++ {
		require.True(t, allowed(t, l, "ip:a", limit))
	}
	require.True(t, allowedLocal(l, "ip:a", limit, 0))
	require.True(t, allowedLocal(l, "ip:a", limit, 0))
	require.False(t, allowedLocal(l, "ip:a", limit, 0))
	require.False(t, allowed(t, l, "ip:a", limit), "Redis has two left, which were taken here")
	require.False(t, allowedLocal(l, "ip:a", limit, 0), "no fresh bucket each time that Redis fails")
}

func TestAllowLocal_memoryIsBounded(t *testing.T) {
	l := New(Settings{})
	limit := NewLimit(2, 1, time.Second)
	for i := 0; i < maxKeys; i++ {
		require.True(t, allowedLocal(l, numbered(i), limit, 0))
	}
	require.True(t, allowedLocal(l, numbered(maxKeys), limit, 0))
	require.True(t, allowedLocal(l, numbered(maxKeys+1), limit, 0))
	require.False(t, allowedLocal(l, numbered(maxKeys+2), limit, 0), "no room left: the others share one bucket")
	require.True(t, allowedLocal(l, numbered(0), limit, 0), "clients known before are not affected")
	require.False(t, allowedLocal(l, numbered(0), limit, 0))
	require.Equal(t, maxKeys, len(l.recent)+len(l.previous))

	require.True(t, allowedLocal(l, numbered(maxKeys+3), limit, 10*second), "full buckets make room")
	require.Less(t, len(l.recent)+len(l.previous), maxKeys)
}
