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

// leases has each of so many clients hold a long lease, and returns the limiter, with a clock that only ahead moves, and a hand.
func leases(t *testing.T, shared Store, clients int) (l *Limiter, hand *Cache, ahead *int64) {
	l = newLimiter(shared)
	t.Cleanup(func() { Close(l) })
	ahead = new(int64)
	now := l.Now
	l.Now = func() int64 { return now() + atomic.LoadInt64(ahead) }
	hand = NewCache(l, NewLimit(10000, 10000, time.Second), 5*time.Second, headers)
	for i := 0; i < clients; i++ {
		for tokenOf(hand, raw(i)) == 0 {
			require.Equal(t, int64(1), request(hand, raw(i)))
		}
	}
	return l, hand, ahead
}

func raw(i int) string { return fmt.Sprint("c", i) }

// tokenOf returns how many tokens the hand has for a client.
func tokenOf(hand *Cache, raw string) int64 {
	hand.lock.Lock()
	defer hand.lock.Unlock()
	if e := hand.Grants[raw]; e != nil {
		return e.Tokens
	}
	return 0
}

// endOf returns when the lease of a client ends.
func endOf(hand *Cache, raw string) int64 {
	hand.lock.Lock()
	defer hand.lock.Unlock()
	return hand.Grants[raw].ends
}

func TestRenew_whoAsksTakesThoseAlongThatWait(t *testing.T) {
	server := redistest.Start(t)
	counted := &counter{store: newStore(t, server.Addr())}
	l, hand, ahead := leases(t, counted, 3)
	calls := atomic.LoadInt64(&counted.calls)

	atomic.StoreInt64(ahead, 61*second)
	ends := endOf(hand, raw(0))
	for i := 0; i < 3; i++ {
		left := tokenOf(hand, raw(i))
		require.Equal(t, int64(1), request(hand, raw(i)))
		require.Equal(t, left-1, tokenOf(hand, raw(i)), "it takes a token of what it has")
	}
	require.Equal(t, calls, atomic.LoadInt64(&counted.calls), "and nobody asks")

	require.Equal(t, int64(1), request(hand, "new"))
	require.Equal(t, calls+1, atomic.LoadInt64(&counted.calls))
	for i := 0; i < 3; i++ {
		require.Greater(t, endOf(hand, raw(i)), ends+60*second, "renewed")
		require.Greater(t, tokenOf(hand, raw(i)), int64(0))
		require.Zero(t, lookup(l, headers.Kind+raw(i)).prefetchBatch, "it may ask ahead again")
	}
}

func TestRenew_manyThatWaitGoAlone(t *testing.T) {
	server := redistest.Start(t)
	_, hand, ahead := leases(t, newStore(t, server.Addr()), renewTogether)
	atomic.StoreInt64(ahead, 61*second)
	ends := endOf(hand, raw(renewTogether-1))
	for i := 0; i < renewTogether; i++ {
		require.Equal(t, int64(1), request(hand, raw(i)))
	}
	for i := 0; i < renewTogether; i++ {
		require.Eventually(t, func() bool { return endOf(hand, raw(i)) > ends+59*second }, 5*time.Second, time.Millisecond)
	}
}

// A batch that only renews, and finds nothing to renew any more, asks for no key.
func TestRenew_whatWasAskedForSinceIsLeftAlone(t *testing.T) {
	server := redistest.Start(t)
	counted := &counter{store: newStore(t, server.Addr())}
	l, hand, _ := leases(t, counted, 1)
	calls := atomic.LoadInt64(&counted.calls)
	l.Mu.Lock()
	l.renewals = []renewal{{headers.Kind + raw(0), hand}, {headers.Kind + "x", hand}}
	cannotJoinLocked(hand, l.Now())
	l.Mu.Unlock()
	landed := func() bool { return atomic.LoadInt64(&counted.calls) == calls+1 && idle(l) == 1 }
	require.Eventually(t, landed, 5*time.Second, time.Millisecond)
	require.Equal(t, int64(1), request(hand, "new"))
}

// What a client has left counts as its use of the lease does: the bucket gets the rest back, and the request's token is the lease's.
func TestRenew_givesBackWhatIsLeft(t *testing.T) {
	server := redistest.Start(t)
	l, hand, ahead := leases(t, newStore(t, server.Addr()), 1)
	atomic.StoreInt64(ahead, 61*second)
	require.Equal(t, int64(1), request(hand, raw(0)))
	b := &batch{number: 99, cache: hand, limit: hand.limit}
	left, lease := tokenOf(hand, raw(0)), lookup(l, headers.Kind+raw(0)).number
	l.Mu.Lock()
	addRenewals(l, []*batch{b}, l.Now())
	l.Mu.Unlock()
	require.Equal(t, []string{headers.Kind + raw(0)}, b.keys)
	require.Len(t, b.args, 1)
	require.Regexp(t, fmt.Sprintf("\r\n0 [0-9]+ [0-9]+ %d %d$", lease, left), b.args[0])
	require.Equal(t, []int{0}, b.returns)
	require.Zero(t, tokenOf(hand, raw(0)))
}

func TestRenew_whileRedisIsAwayALeaseIsSpentToItsEnd(t *testing.T) {
	server := redistest.Start(t)
	l, hand, ahead := leases(t, newStore(t, server.Addr()), 1)
	l.Unavailable.Store(true)
	atomic.StoreInt64(ahead, 61*second)
	for left := tokenOf(hand, raw(0)); left > 0; left-- {
		require.Equal(t, int64(1), request(hand, raw(0)))
	}
	require.Equal(t, int64(Undecided), request(hand, raw(0)))
	require.ErrorIs(t, LastErr(hand), store.ErrUnavailable)
	require.Empty(t, l.renewals)
}
