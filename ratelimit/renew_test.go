package ratelimit

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// leases gives some clients a long lease each. It returns the limiter, its cache, and the offset of its clock.
func leases(t *testing.T, shared Store, clients int) (l *Limiter, cache *Cache, ahead *int64) {
	l = newLimiter(shared)
	t.Cleanup(func() { Close(l) })
	ahead = new(int64)
	now := l.Now
	l.Now = func() int64 { return now() + atomic.LoadInt64(ahead) }
	cache = NewCache(l, NewLimit(10000, 10000, time.Second), 5*time.Second, headers)
	for i := 0; i < clients; i++ {
		for tokenOf(cache, idOf(i)) == 0 {
			require.Equal(t, int64(1), request(cache, idOf(i)))
		}
	}
	return l, cache, ahead
}

func idOf(i int) string { return fmt.Sprint("c", i) }

// tokenOf returns how many tokens the cache has for a client.
func tokenOf(cache *Cache, id string) int64 {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	if e := cache.Grants[id]; e != nil {
		return e.Tokens
	}
	return 0
}

// endOf returns when a client's lease ends.
func endOf(cache *Cache, id string) int64 {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	return cache.Grants[id].ends
}

func TestRenew_nextBatchIncludesPendingRenewals(t *testing.T) {
	server := redistest.Start(t)
	counted := &counter{store: newStore(t, server.Addr())}
	l, cache, ahead := leases(t, counted, 3)
	calls := atomic.LoadInt64(&counted.calls)

	atomic.StoreInt64(ahead, 61*second)
	ends := endOf(cache, idOf(0))
	for i := 0; i < 3; i++ {
		left := tokenOf(cache, idOf(i))
		require.Equal(t, int64(1), request(cache, idOf(i)))
		require.Equal(t, left-1, tokenOf(cache, idOf(i)), "it spends a token of its lease")
	}
	require.Equal(t, calls, atomic.LoadInt64(&counted.calls), "and no request asks")

	require.Equal(t, int64(1), request(cache, "new"))
	require.Equal(t, calls+1, atomic.LoadInt64(&counted.calls))
	for i := 0; i < 3; i++ {
		require.Greater(t, endOf(cache, idOf(i)), ends+60*second, "renewed")
		require.Greater(t, tokenOf(cache, idOf(i)), int64(0))
		require.Zero(t, lookupLocked(l, headers.Kind+idOf(i)).prefetchBatch, "it may ask for a lease again")
	}
}

func TestRenew_manyPendingRenewalsMakeABatch(t *testing.T) {
	server := redistest.Start(t)
	_, cache, ahead := leases(t, newStore(t, server.Addr()), renewTogether)
	atomic.StoreInt64(ahead, 61*second)
	ends := endOf(cache, idOf(renewTogether-1))
	for i := 0; i < renewTogether; i++ {
		require.Equal(t, int64(1), request(cache, idOf(i)))
	}
	for i := 0; i < renewTogether; i++ {
		require.Eventually(t, func() bool { return endOf(cache, idOf(i)) > ends+59*second }, 5*time.Second, time.Millisecond)
	}
}

// A batch for renewals that are no longer due asks for no key.
func TestRenew_keyAskedForSinceIsSkipped(t *testing.T) {
	server := redistest.Start(t)
	counted := &counter{store: newStore(t, server.Addr())}
	l, cache, _ := leases(t, counted, 1)
	calls := atomic.LoadInt64(&counted.calls)
	l.Mu.Lock()
	l.renewals = []renewal{{headers.Kind + idOf(0), cache}, {headers.Kind + "x", cache}}
	cannotJoinLocked(cache, l.Now())
	l.Mu.Unlock()
	replied := func() bool { return atomic.LoadInt64(&counted.calls) == calls+1 && idle(l) == 1 }
	require.Eventually(t, replied, 5*time.Second, time.Millisecond)
	require.Equal(t, int64(1), request(cache, "new"))
}

// A renewal returns the unused tokens to the bucket. The request's own token comes from the old lease.
func TestRenew_returnsWhatIsLeft(t *testing.T) {
	server := redistest.Start(t)
	l, cache, ahead := leases(t, newStore(t, server.Addr()), 1)
	atomic.StoreInt64(ahead, 61*second)
	require.Equal(t, int64(1), request(cache, idOf(0)))
	b := &batch{number: 99, cache: cache, limit: cache.limit}
	left, lease := tokenOf(cache, idOf(0)), lookupLocked(l, headers.Kind+idOf(0)).number
	l.Mu.Lock()
	addRenewalsLocked(l, &tripState{trip: []*batch{b}}, l.Now())
	l.Mu.Unlock()
	require.Equal(t, []string{headers.Kind + idOf(0)}, b.keys)
	require.Len(t, b.args, 1)
	require.Regexp(t, fmt.Sprintf("\r\n0 [0-9]+ [0-9]+ %d %d$", lease, left), b.args[0])
	require.Equal(t, []int{0}, b.returns)
	require.Zero(t, tokenOf(cache, idOf(0)))
}

func TestRenew_leaseIsSpentToItsEndWhileRedisIsUnavailable(t *testing.T) {
	server := redistest.Start(t)
	l, cache, ahead := leases(t, newStore(t, server.Addr()), 1)
	l.Unavailable.Store(true)
	atomic.StoreInt64(ahead, 61*second)
	for left := tokenOf(cache, idOf(0)); left > 0; left-- {
		require.Equal(t, int64(1), request(cache, idOf(0)))
	}
	require.Equal(t, int64(Undecided), request(cache, idOf(0)))
	require.ErrorIs(t, LastErr(cache), store.ErrUnavailable)
	require.Empty(t, l.renewals)
}
