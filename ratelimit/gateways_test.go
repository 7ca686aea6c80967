package ratelimit

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Three tokens are kept back at most, and one is refilled in a second: a registration lasts 18 s and more, and the last use is 3 s before its end.
func TestRegistration_steps(t *testing.T) {
	limit := withStanding(NewLimit(300, 1, time.Second), 3)
	type row struct {
		name      string
		join      bool
		size      int64
		found     bool
		sent, now int64 // seconds
		until     int64 // of the use of standing tokens; 0: it may not use them
		permitted bool
	}
	for _, walk := range []struct {
		name string
		rows []row
	}{
		{"it joins, waits, and is confirmed", []row{
			{"there is room", false, 1, false, 0, 0, 0, false},
			{"it joins as the second", true, 2, true, 0, 1, 0, true},
			{"a renewal that was sent before the end of the wait confirms nothing", false, 2, true, 2, 4, 0, true},
			{"another one does", false, 2, true, 4, 5, 19, true},
			{"each renewal prolongs it", false, 2, true, 10, 11, 25, true},
		}},
		{"it joins as one too many", []row{
			{"", true, 4, true, 0, 1, 0, false},
			{"a renewal permits nothing", false, 3, true, 5, 6, 0, false},
		}},
		{"its registration is lost", []row{
			{"", true, 1, true, 0, 0, 0, true},
			{"", false, 1, true, 2, 2, 17, true},
			{"", false, 0, false, 5, 5, 0, false},
		}},
		{"an answer comes after the last use", []row{
			{"", true, 1, true, 0, 0, 0, true},
			{"", false, 1, true, 2, 2, 17, true},
			{"", false, 1, true, 3, 18, 0, false},
		}},
	} {
		t.Run(walk.name, func(t *testing.T) {
			g, s := &registration{}, &standing{limit: limit, used: map[string]int64{}}
			for _, row := range walk.rows {
				applyFoundLocked(g, s, row.size, row.found, row.join, row.sent*1000000, row.now*1000000)
				require.Equal(t, row.permitted, g.permitted, row.name)
				require.InDelta(t, row.until, float64(s.until)/1000000, 0.1, row.name)
				require.Equal(t, row.until == 0, s.until == 0, row.name)
			}
		})
	}
}

// A reload that changes the limit ends the permission: the gateway joins anew. One that changes nothing does not.
func TestRegistration_ofAReload(t *testing.T) {
	server := redistest.Start(t)
	limit := WithStanding(NewLimit(1000, 100, time.Second))
	cache := standingGateway(t, newStore(t, server.Addr()), limit, headers)
	startStanding(t, []*Cache{cache}, 1)
	l := cache.limiter
	name := l.gateways.own.name

	require.True(t, stands(NewCache(l, limit, time.Second, headers)))

	other := NewCache(l, WithStanding(NewLimit(2000, 100, time.Second)), time.Second, headers)
	require.False(t, stands(other))
	require.False(t, stands(cache))
	eventually(t, func() bool { return stands(other) })
	require.False(t, stands(cache), "requests under the old limit ask")
	require.NotEqual(t, name, l.gateways.own.name)

	require.False(t, stands(NewCache(l, NewLimit(2000, 100, time.Second), time.Second, headers)), "without standing leases")
	require.False(t, stands(other))
}
