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

func TestLimiter_burstThenRefill(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(3, 1, time.Hour)

	for i := 0; i < 3; i++ {
		require.Equal(t, int64(1), allow(t, l, "ip:a", limit))
	}
	require.InDelta(t, -3600*second, allow(t, l, "ip:a", limit), float64(5*second))
	require.True(t, allowed(t, l, "ip:b", limit), "another client has another bucket")
	require.Equal(t, int64(2), server.Int("EXISTS", prefix+"ip:a", prefix+"ip:b"))
}

func TestLimiter_exactUnderContention(t *testing.T) {
	server := redistest.Start(t)
	limit := NewLimit(100, 1, time.Hour)
	counted := &counter{store: newStore(t, server.Addr())}
	gateways := []*Limiter{newLimiter(counted), newLimiter(newStore(t, server.Addr())), newLimiter(newStore(t, server.Addr()))}
	var allowed, failed int64
	var done sync.WaitGroup
	for i := 0; i < 90; i++ {
		done.Add(1)
		go askTenTimes(gateways[i%3], limit, &allowed, &failed, &done)
	}
	done.Wait()
	require.Equal(t, int64(0), failed)
	require.Equal(t, int64(100), allowed)
	require.Less(t, counted.calls, int64(300), "waiting requests share a call")
}

func askTenTimes(l *Limiter, limit *Limit, allowed, failed *int64, done *sync.WaitGroup) {
	defer done.Done()
	for i := 0; i < 10; i++ {
		verdict, err := allowBy(NewCache(l, limit, 20*time.Second, KeyMaker{}), "ip:a", "ip:a", l.Now())
		if err != nil {
			atomic.AddInt64(failed, 1)
		} else if verdict > 0 {
			atomic.AddInt64(allowed, 1)
		}
	}
}

func TestLimiter_eachVerdictBelongsToItsKey(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(1, 1, time.Hour)
	var done sync.WaitGroup
	allowed := make([]int64, 200)
	var failed int64
	for i := range allowed {
		for n := 0; n < 2; n++ {
			done.Add(1)
			go askForKey(l, "ip:"+string(rune('a'+i%26))+string(rune('a'+i/26)), limit, &allowed[i], &failed, &done)
		}
	}
	done.Wait()
	require.Equal(t, int64(0), failed)
	for i, n := range allowed {
		require.Equal(t, int64(1), n, "key %d", i)
	}
}

func askForKey(l *Limiter, key string, limit *Limit, allowed, failed *int64, done *sync.WaitGroup) {
	defer done.Done()
	verdict, err := allowBy(NewCache(l, limit, 20*time.Second, KeyMaker{}), key, key, l.Now())
	if err != nil {
		atomic.AddInt64(failed, 1)
	} else if verdict > 0 {
		atomic.AddInt64(allowed, 1)
	}
}

func TestLimiter_eachCallHasItsOwnLimit(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	wide, narrow := NewLimit(10, 1, time.Hour), NewLimit(2, 1, time.Hour)

	require.True(t, allowed(t, l, "ip:a", wide))
	require.True(t, allowed(t, l, "ip:a", narrow))
	require.True(t, allowed(t, l, "ip:a", wide))
	require.False(t, allowed(t, l, "ip:a", wide), "the narrow limit has cut the bucket")
}

func TestLimiter_foreignKeyIsErrNotABucket(t *testing.T) {
	server := redistest.Start(t)
	server.Do("RPUSH", prefix+"ip:list", "x")
	server.Do("SET", prefix+"ip:text", "x")
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(1, 1, time.Hour)
	for _, key := range []string{"ip:list", "ip:text"} {
		_, err := allowBy(NewCache(l, limit, 5*time.Second, KeyMaker{}), key, key, l.Now())
		require.ErrorIs(t, err, ErrNotABucket)
	}
	require.True(t, allowed(t, l, "ip:good", limit))
}

func TestLimiter_withoutRedisReturnsErrUnavailable(t *testing.T) {
	l := newLimiter(newStore(t, "127.0.0.1:"+redistest.FreePort(t)))
	_, err := allowBy(NewCache(l, NewLimit(1, 1, time.Hour), time.Second, KeyMaker{}), "ip:a", "ip:a", l.Now())
	require.ErrorIs(t, err, store.ErrUnavailable)
}
