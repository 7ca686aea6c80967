//go:build !yaegi

package ratelimit

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// While Redis is unavailable, a flood of keys takes bounded memory, and no client gets a full bucket again because others pushed it out of the table.
func TestPlans_aFloodOfKeysWhileRedisIsUnavailable(t *testing.T) {
	unavailable := &atomic.Bool{}
	unavailable.Store(true)
	now := int64(1000)
	l := New(Settings{Store: &lateStore{late: math.MaxInt64}, Unavailable: unavailable, Now: func() int64 { return now }})
	defer Close(l)
	client := NewLevels([]NamedLimit{{OwnLimit, NewLimit(2, 2, time.Hour)}, {"daily", NewLimit(5, 5, 24*time.Hour)}})
	everyone := Draw{Key: "limit:everyone:all:", Levels: NewLevels([]NamedLimit{{"everyone", NewLimit(1000000, 1000000, time.Hour)}}), Cost: 1}
	cache := NewPlanCache(l, everyone, time.Second)
	ask := func(key string) bool {
		l.Mu.Lock()
		verdict, _ := AcquirePlan(cache, &Plan{Draws: []Draw{{Key: key, Levels: client, Cost: 1}, everyone}, Fast: true}, key, now, nil)
		if verdict != Undecided {
			return verdict > 0
		}
		verdict, _ = AcquirePlanLocal(cache, &Plan{Draws: []Draw{{Key: key, Levels: client, Cost: 1}, everyone}, Fast: true}, now, nil)
		return verdict > 0
	}
	require.Equal(t, []bool{true, true, false}, []bool{ask("first"), ask("first"), ask("first")})
	before, admitted := heap(), 0
	for i := int64(0); i < 2*halfOfKeys+2000; i++ {
		if ask(digits(i)) {
			admitted++
		}
	}
	require.Less(t, heap()-before, int64(60<<20))
	table := l.bucketTables[client]
	require.LessOrEqual(t, len(table.recent)+len(table.previous), 2*halfOfKeys)
	require.Less(t, admitted, 2*halfOfKeys+2, "the others share one bucket")
	require.Greater(t, admitted, 2*halfOfKeys-3)
	require.False(t, ask("first"), "its bucket is still empty")

	now += 48 * time.Hour.Microseconds()
	again := 0
	for i := int64(0); i < halfOfKeys; i++ {
		if ask("new" + digits(i)) {
			again++
		}
	}
	require.Equal(t, halfOfKeys, again, "full buckets make room")
}
