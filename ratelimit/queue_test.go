package ratelimit

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// twoRoutes returns two routes of one limiter, on a clock that stands still.
func twoRoutes(t *testing.T, shared Store, timeout time.Duration, one, other *Limit) (*Limiter, *Cache, *Cache, *clock) {
	l := newLimiter(shared)
	t.Cleanup(func() { Close(l) })
	stopped := &clock{micros: 1}
	l.Now = stopped.now
	return l, NewCache(l, one, timeout, headers), NewCache(l, other, timeout, KeyMaker{}), stopped
}

func TestQueue_routesWithDifferentLimitsShareARoundTrip(t *testing.T) {
	redis := &tripStore{store: newStore(t, redistest.Start(t).Addr()), gate: make(chan struct{})}
	l, wide, narrow, _ := twoRoutes(t, redis, 20*time.Second, NewLimit(10, 1, time.Hour), NewLimit(1, 1, time.Hour))
	ofFirst, ofWide, ofNarrow := &results{}, &results{}, &results{}
	ofFirst.ask(wide, "first")
	eventually(t, func() bool { return len(redis.trips()) == 1 })
	for i := 0; i < 3; i++ {
		ofWide.ask(wide, "a")
		ofNarrow.ask(narrow, "b")
	}
	eventually(t, func() bool { return waiting(l) == 6 })
	close(redis.gate)
	ofFirst.done.Wait()
	ofWide.done.Wait()
	ofNarrow.done.Wait()
	require.Equal(t, []int{1, 2}, redis.trips(), "one call for each limit, in one round trip")
	require.Equal(t, int64(3), ofWide.allowed)
	require.Equal(t, int64(1), ofNarrow.allowed)
	require.Equal(t, int64(2), ofNarrow.refused)
	require.Zero(t, ofWide.failed+ofNarrow.failed)
}

func TestQueue_oneBucketUnderTwoLimitsIsJudgedByEach(t *testing.T) {
	server := redistest.Start(t)
	redis := &tripStore{store: newStore(t, server.Addr()), gate: make(chan struct{})}
	l, wide, narrow, _ := twoRoutes(t, redis, 20*time.Second, NewLimit(10, 1, time.Hour), NewLimit(2, 1, time.Hour))
	ofFirst, ofWide, ofNarrow := &results{}, &results{}, &results{}
	ofFirst.ask(wide, "first")
	eventually(t, func() bool { return len(redis.trips()) == 1 })
	for i := 0; i < 4; i++ {
		ofNarrow.ask(narrow, "header:a")
	}
	eventually(t, func() bool { return waiting(l) == 4 })
	for i := 0; i < 3; i++ {
		ofWide.ask(wide, "a")
	}
	eventually(t, func() bool { return waiting(l) == 7 })
	close(redis.gate)
	ofFirst.done.Wait()
	ofWide.done.Wait()
	ofNarrow.done.Wait()
	require.Equal(t, []int{1, 2}, redis.trips())
	require.Equal(t, int64(2), ofNarrow.allowed, "two of the narrow limit's bucket")
	require.Zero(t, ofWide.allowed, "and the bucket is the same")
	require.Equal(t, int64(2), server.Int("DBSIZE"))
}

func TestQueue_renewalsOfAllRoutesGoAlong(t *testing.T) {
	redis := &tripStore{store: newStore(t, redistest.Start(t).Addr())}
	l, one, other, now := twoRoutes(t, redis, 5*time.Second, NewLimit(10000, 10000, time.Second), NewLimit(20000, 10000, time.Second))
	for _, cache := range []*Cache{one, other} {
		for tokenOf(cache, "c") == 0 {
			require.Equal(t, int64(1), request(cache, "c"))
		}
	}
	eventually(t, func() bool { return isQuiet(l) })
	now.advance(61 * second)
	before := len(redis.trips())
	endsOfOne, endsOfOther := endOf(one, "c"), endOf(other, "c")
	require.Equal(t, int64(1), request(one, "c"))
	require.Equal(t, int64(1), request(other, "c"))
	require.Len(t, redis.trips(), before, "both spend what they have")

	require.Equal(t, int64(1), request(one, "new"))
	require.Equal(t, []int{2}, redis.trips()[before:])
	require.Greater(t, endOf(one, "c"), endsOfOne+60*second)
	require.Greater(t, endOf(other, "c"), endsOfOther+60*second)
}

// hangingStore does not return from its first trips until it is released.
type hangingStore struct {
	store Store
	hangs int64 // trips
	let   chan struct{}
}

func (s *hangingStore) Run(calls []*store.Call, deadline time.Time) error {
	if atomic.AddInt64(&s.hangs, -1) >= 0 {
		<-s.let
	}
	return s.store.Run(calls, deadline)
}

func TestQueue_aWaitEndsThoughTheWorkerHangs(t *testing.T) {
	for _, hangs := range []int64{1, 2} {
		redis := &hangingStore{store: newStore(t, redistest.Start(t).Addr()), hangs: hangs, let: make(chan struct{})}
		l := newLimiter(redis)
		one := NewCache(l, NewLimit(10, 1, time.Hour), 100*time.Millisecond, headers)
		other := NewCache(l, NewLimit(20, 1, time.Hour), 100*time.Millisecond, KeyMaker{})
		for i := int64(0); i < hangs; i++ {
			inTime(t, "a worker that hangs", func() {
				require.Equal(t, int64(Undecided), request(one, "a"))
			})
			require.ErrorIs(t, LastErr(one), store.ErrUnavailable)
		}
		inTime(t, "the next request", func() {
			require.Equal(t, int64(1), request(one, "a"), "another worker has taken its place")
			require.Equal(t, int64(1), request(other, "b"))
		})
		close(redis.let)
		eventually(t, func() bool { return isQuiet(l) })
		require.Equal(t, int64(1), request(one, "a"), "the worker that came back does no harm")
		eventually(t, func() bool { return isQuiet(l) && idle(l) > 0 })
		require.Len(t, l.atWork, idle(l))
		Close(l)
	}
}

func TestQueue_requestsBehindAHangingWorkerAreServed(t *testing.T) {
	redis := &hangingStore{store: newStore(t, redistest.Start(t).Addr()), hangs: 1, let: make(chan struct{})}
	defer close(redis.let)
	l, one, other, _ := twoRoutes(t, redis, 200*time.Millisecond, NewLimit(10, 1, time.Hour), NewLimit(20, 1, time.Hour))
	ofFirst, ofNext := &results{}, &results{}
	ofFirst.ask(one, "a")
	eventually(t, func() bool { return atomic.LoadInt64(&redis.hangs) == 0 })
	ofNext.ask(one, "b")
	ofNext.ask(other, "b")
	inTime(t, "all requests", func() {
		ofFirst.done.Wait()
		ofNext.done.Wait()
	})
	require.Equal(t, int64(1), ofFirst.failed)
	require.Equal(t, int64(2), ofNext.allowed+ofNext.failed, "served, or failed by their deadlines")
	eventually(t, func() bool { return isQuiet(l) })
}

func TestQueue_aPanicFailsAllBatchesOfItsTripOnly(t *testing.T) {
	redis := &tripStore{store: newStore(t, redistest.Start(t).Addr()), gate: make(chan struct{})}
	l, good, bad, _ := twoRoutes(t, redis, 20*time.Second, NewLimit(10, 1, time.Hour), NewLimit(20, 1, time.Hour))
	bad.keyMaker = KeyMaker{MaxJoin: -1, Key: func(string) string { panic("no key") }}
	ofFirst, ofNext := &results{}, &results{}
	ofFirst.ask(good, "first")
	eventually(t, func() bool { return len(redis.trips()) == 1 })
	ofNext.ask(good, "a")
	ofNext.ask(bad, "b")
	eventually(t, func() bool { return waiting(l) == 2 })
	close(redis.gate)
	inTime(t, "all requests", func() {
		ofFirst.done.Wait()
		ofNext.done.Wait()
	})
	require.Equal(t, int64(1), ofFirst.allowed)
	require.Equal(t, int64(2), ofNext.failed)
	require.ErrorContains(t, LastErr(good), "no key")
	inTime(t, "the next request", func() { require.Equal(t, int64(1), request(good, "a")) })
	eventually(t, func() bool { return isQuiet(l) })
}

func TestQueue_aTripWaitsUntilTheEarliestDeadline(t *testing.T) {
	redis := &tripStore{store: newStore(t, redistest.Start(t).Addr()), gate: make(chan struct{})}
	limit := NewLimit(10, 1, time.Hour)
	l, patient, _, _ := twoRoutes(t, redis, 20*time.Second, limit, limit)
	hurried := NewCache(l, limit, 10*time.Second, headers)
	all := &results{}
	all.ask(patient, "first")
	eventually(t, func() bool { return len(redis.trips()) == 1 })
	all.ask(patient, "a")
	eventually(t, func() bool { return waiting(l) == 1 })
	all.ask(hurried, "b")
	eventually(t, func() bool { return waiting(l) == 2 })
	close(redis.gate)
	all.done.Wait()
	require.Equal(t, int64(3), all.allowed)
	require.Equal(t, []int{1, 2}, redis.trips(), "routes that wait for different times have batches of their own")
	require.Equal(t, 10*time.Second, redis.deadlines[0].Sub(redis.deadlines[1]))
}
