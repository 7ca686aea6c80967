package ratelimit

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// lateStore is a Redis that is late on demand: a late call has no reply, whether Redis makes it or not.
type lateStore struct {
	store   Store
	late    int64 // how many of the next calls are late
	arrives bool  // Redis makes late calls
	every   int64 // every n-th call is late, too; 0: none
	calls   int64
}

func (f *lateStore) Run(calls []*store.Call, deadline time.Time) error {
	number := atomic.AddInt64(&f.calls, 1)
	late := atomic.AddInt64(&f.late, -1) >= 0 || f.every > 0 && number%f.every == 0
	if !late || f.arrives {
		f.store.Run(calls, deadline)
	}
	for _, call := range calls {
		if late {
			call.Answer, call.Err = "", store.ErrUnavailable
		}
	}
	return calls[0].Err
}

func (f *lateStore) lateFor(calls int64) { atomic.StoreInt64(&f.late, calls) }

// askOrDecide asks like the middleware with onError local.
func askOrDecide(cache *Cache, id string) bool {
	now := cache.limiter.Now()
	verdict := Allow(cache, id, now)
	if verdict == Undecided && errors.Is(LastErr(cache), store.ErrUnavailable) {
		verdict = AllowLocal(cache.limiter, bucketKey(cache, id), cache.limit, now)
	}
	return verdict > 0
}

// Tokens taken in this process while Redis was late are subtracted from the next level that Redis reports, and taken in Redis.
func TestDebt_isPaid(t *testing.T) {
	limit := NewLimit(50, 1, time.Hour)
	for _, row := range []struct {
		name           string
		before, late   int // requests
		arrives        bool
		admitted       int // of a hundred afterwards
		levelInBetween int64
	}{
		{"all tokens were taken here", 0, 50, false, 0, 0},
		{"some were", 0, 30, false, 20, 20},
		{"Redis gave some before", 20, 10, false, 20, 20},
		{"and the rest was taken here", 20, 30, false, 0, 0},
		{"Redis made a call though its reply was late", 0, 1, true, 48, 49},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			redis := &lateStore{store: newStore(t, server.Addr()), arrives: row.arrives}
			l := newLimiter(redis)
			defer Close(l)
			cache := NewCache(l, limit, 5*time.Second, headers)
			for i := 0; i < row.before; i++ {
				require.True(t, askOrDecide(cache, "a"))
			}
			redis.lateFor(int64(row.late))
			for i := 0; i < row.late; i++ {
				require.True(t, askOrDecide(cache, "a"))
			}
			require.Equal(t, row.levelInBetween, lookupLocked(l, "header:a").bucket.level/limit.period)
			admitted := 0
			for i := 0; i < 100; i++ {
				if askOrDecide(cache, "a") {
					admitted++
				}
			}
			require.Equal(t, row.admitted, admitted)
			e := lookupLocked(l, "header:a")
			require.Equal(t, int64(0), owedLocked(e, l.Now()), "%d of %d are repaid", e.repaid, e.borrowed)
		})
	}
}

// A reply to any request subtracts the tokens that are still owed.
func TestDebt_isSubtractedFromTheLevelThatRedisReports(t *testing.T) {
	l := newLimiter(&lateStore{store: newStore(t, redistest.Start(t).Addr()), late: 20})
	defer Close(l)
	limit := NewLimit(50, 1, time.Hour)
	cache := NewCache(l, limit, 5*time.Second, headers)
	for i := 0; i < 20; i++ {
		require.True(t, askOrDecide(cache, "a"))
	}
	l.Mu.Lock()
	e := lookupLocked(l, "header:a")
	applyAnswerLocked(l, e, &batch{number: 1 << 40, limit: limit, answers: []string{"1:" + digits(49*limit.period) + ":0"}}, 0, l.Now())
	l.Mu.Unlock()
	require.Equal(t, int64(29), e.bucket.level/limit.period)
}

// A debt ends when the bucket would be full without it.
func TestDebt_endsWhenTheBucketIsFull(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	defer Close(l)
	limit := NewLimit(10, 1, time.Second)
	for _, row := range []struct {
		taken int
		at    int64
		owed  int64
	}{
		{10, 0, 10}, {0, second, 9}, {0, 5*second + second/2, 5}, {3, 6 * second, 7}, {0, 12 * second, 1}, {0, 13 * second, 0},
		{10, 3600 * second, 10}, {10, 7200 * second, 10},
	} {
		for i := 0; i < row.taken; i++ {
			require.True(t, allowedLocal(l, "ip:a", limit, row.at))
		}
		require.Equal(t, row.owed, owedLocked(lookupLocked(l, "ip:a"), row.at), "at %d", row.at)
	}
}

// A debt that an empty bucket cannot pay is forgiven: the debts of many gateways block a client no longer than an empty bucket does.
func TestDebt_whatCannotBePaidIsForgiven(t *testing.T) {
	server := redistest.Start(t)
	limit := NewLimit(50, 1, time.Hour)
	for i := 0; i < 3; i++ {
		l := newLimiter(&lateStore{store: newStore(t, server.Addr()), late: 50})
		defer Close(l)
		cache := NewCache(l, limit, 5*time.Second, headers)
		for i := 0; i < 50; i++ {
			require.True(t, askOrDecide(cache, "a"))
		}
		require.False(t, askOrDecide(cache, "a"))
		require.Zero(t, owedLocked(lookupLocked(l, "header:a"), l.Now()))
	}
}

// A batch may overtake the batch that pays a debt. It takes no token that is owed.
func TestDebt_overtakingBatchTakesNoOwedToken(t *testing.T) {
	server := redistest.Start(t)
	first := make(chan struct{})
	redis := &overtaken{lateStore: lateStore{store: newStore(t, server.Addr()), late: 40}, first: first}
	l := newLimiter(redis)
	defer Close(l)
	now := &clock{micros: 1}
	l.Now = now.now
	cache := NewCache(l, NewLimit(50, 1, time.Hour), 20*time.Second, headers)
	for i := 0; i < 40; i++ {
		require.True(t, askOrDecide(cache, "a"))
	}
	redis.hold.Store(true)
	var allowed, failed int64
	var done sync.WaitGroup
	done.Add(1)
	go askByID(cache, "a", &allowed, &failed, &done)
	require.Eventually(t, func() bool { return redis.held.Load() }, 5*time.Second, time.Millisecond)
	for i := 0; i < 20; i++ {
		now.advance(2 * sendInterval) // until another batch may be sent
		if request(cache, "a") > 0 {
			atomic.AddInt64(&allowed, 1)
		}
	}
	close(first)
	done.Wait()
	require.Zero(t, failed)
	require.LessOrEqual(t, allowed, int64(10))
	require.Greater(t, allowed, int64(0))
}

// overtaken holds one call back until later calls have been made.
type overtaken struct {
	lateStore
	first      chan struct{}
	hold, held atomic.Bool
}

func (o *overtaken) Run(calls []*store.Call, deadline time.Time) error {
	if o.hold.CompareAndSwap(true, false) {
		o.held.Store(true)
		<-o.first
	}
	return o.lateStore.Run(calls, deadline)
}

// Redis is occasionally late while many requests ask at the same time: no bucket is spent twice.
func TestDebt_lateRedisDoublesNoBucket(t *testing.T) {
	limit := NewLimit(50, 1, time.Hour)
	for _, arrives := range []bool{false, true} {
		for _, every := range []int64{2, 3, 5, 10} {
			server := redistest.Start(t)
			l := newLimiter(&lateStore{store: newStore(t, server.Addr()), every: every, arrives: arrives})
			cache := NewCache(l, limit, 20*time.Second, headers)
			var admitted int64
			var done sync.WaitGroup
			for client := 0; client < 16; client++ {
				done.Add(1)
				go func() {
					defer done.Done()
					for i := 0; i < 50; i++ {
						if askOrDecide(cache, "a") {
							atomic.AddInt64(&admitted, 1)
						}
					}
				}()
			}
			done.Wait()
			Close(l)
			require.LessOrEqual(t, admitted, int64(50), "one of %d calls is late", every)
			require.Greater(t, admitted, int64(10), "one of %d calls is late", every) // each late call that Redis made costs a token
		}
	}
}

// The tokens of a lease and of its bucket add up to at most the capacity, even if Redis is not asked.
func TestAllowLocal_bucketAndLeaseMakeTheCapacity(t *testing.T) {
	for _, row := range []struct {
		name string
		late int64 // calls; 0: Redis is known to be unavailable
	}{
		{"Redis is known to be unavailable", 0},
		{"the call that returns the lease is late", 1 << 40},
	} {
		redis := &lateStore{store: newStore(t, redistest.Start(t).Addr())}
		l, cache, ahead := leases(t, redis, 1)
		if row.late == 0 {
			l.Unavailable.Store(true)
		}
		redis.lateFor(row.late)
		atomic.StoreInt64(ahead, 50*second)
		stopped := l.Now()
		l.Now = func() int64 { return stopped }
		admitted := 0
		for askOrDecide(cache, idOf(0)) {
			admitted++
		}
		require.Equal(t, 10000, admitted, row.name)
	}
}
