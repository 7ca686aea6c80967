package ratelimit

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// A clock that is 2,000 ppm slow counts 499 ms while Redis counts half a second, and 119.76 s while it counts two minutes.
func TestLease_endsEarlyForASlowClock(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	rows := []struct {
		name  string
		limit *Limit
		ends  int64
	}{
		{"short", NewLimit(1000, 1, time.Hour), 499 * second / 1000},
		{"long", NewLimit(1000, 1000, time.Second), 119760 * second / 1000},
	}
	for _, row := range rows {
		found := false
		for i := 0; i < 100 && !found; i++ {
			before := l.Now()
			require.Equal(t, int64(1), allow(t, l, row.name, row.limit))
			if e := lookupLocked(l, row.name); e.Tokens > 0 {
				require.GreaterOrEqual(t, e.ends, before+row.ends, row.name)
				require.LessOrEqual(t, e.ends, l.Now()+row.ends, row.name)
				e.Until = e.ends // as if the lease were due for renewal
				require.Equal(t, int64(0), spendLocked(&e.Grant, e.ends), "%s: its last microseconds are not used", row.name)
				found = true
			}
		}
		require.True(t, found, "%s: no lease", row.name)
	}
}

// held makes each call when the gate allows it, so that requests gather behind the first call.
type held struct {
	store Store
	gate  chan struct{}
}

func (h *held) Run(calls []*store.Call, deadline time.Time) error {
	<-h.gate
	return h.store.Run(calls, deadline)
}

// A batch may ask for a key several times, and once for a lease. The lease is in the answer to that request.
func TestAllow_aKeyTwiceInABatch(t *testing.T) {
	server := redistest.Start(t)
	gate := make(chan struct{})
	redis := newStore(t, server.Addr())
	l := newLimiter(&held{redis, gate})
	limit := NewLimit(1000, 1, time.Hour)
	drain := &store.Call{Script: script, Number: 1, Words: []string{store.Word(l.Prefix + "ip:a"), limit.wire, leaseWire, store.Word("300 0")}}
	require.NoError(t, redis.Run([]*store.Call{drain}, time.Now().Add(5*time.Second)))
	cache := NewCache(l, limit, 5*time.Second, KeyMaker{})
	now := l.Now() // the clock stands still: no batch is overdue
	var done sync.WaitGroup
	ask := func(key string) {
		done.Add(1)
		go func() {
			defer done.Done()
			verdict, err := allowBy(cache, key, key, now)
			if verdict != 1 || err != nil {
				panic(fmt.Sprint(key, ": ", verdict, ", ", err))
			}
		}()
	}
	gathered := func() (n int) {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		if b := cache.lane.open; b != nil {
			n = len(b.keys)
		}
		return n
	}
	ask("ip:first")
	require.Eventually(t, func() bool { l.Mu.Lock(); defer l.Mu.Unlock(); return l.inFlight == 1 && l.claimed == 0 }, 5*time.Second, time.Millisecond)
	for i := 1; i <= 4; i++ {
		ask("ip:a")
		require.Eventually(t, func() bool { return gathered() == i }, 5*time.Second, time.Millisecond)
	}
	gate <- struct{}{}
	gate <- struct{}{}
	done.Wait()
	e := lookupLocked(l, "ip:a")
	require.Greater(t, e.Tokens, int64(0), "a lease")
	require.Equal(t, e.size, e.Tokens)
	require.Zero(t, e.prefetchBatch)
}
