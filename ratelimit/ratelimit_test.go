package ratelimit

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

const prefix = "test:{name}:bucket:"

func newLimiter(shared Store) *Limiter {
	return New(Settings{
		Store: shared, Prefix: prefix,
		Name: func(key string) string { return key },
		Now:  func() int64 { return time.Since(begun).Microseconds() },
	})
}

var begun = time.Now()

func newStore(t *testing.T, address string) *store.Store {
	s := store.New(store.Settings{
		Address: address, Timeout: 5 * time.Second, DialTimeout: time.Second, KeyPrefix: "test",
	}, func(error) {})
	t.Cleanup(s.Close)
	return s
}

func allow(t *testing.T, l *Limiter, key string, limit *Limit) int64 {
	verdict, err := allowBy(NewCache(l, limit, 5*time.Second, KeyMaker{}), key, key, l.Now())
	require.NoError(t, err)
	return verdict
}

// allowBy is Allow, lock and all.
func allowBy(hand *Cache, raw, key string, now int64) (int64, error) {
	hand.limiter.Mu.Lock()
	return AllowKey(hand, raw, key, now)
}

func allowed(t *testing.T, l *Limiter, key string, limit *Limit) bool {
	return allow(t, l, key, limit) > 0
}

func allowedLocal(l *Limiter, key string, limit *Limit, now int64) bool {
	return AllowLocal(l, key, limit, now) > 0
}

func TestLimiter_burstThenRefill(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(3, 1, time.Hour)

	for i := 0; i < 3; i++ {
		require.Equal(t, int64(1), allow(t, l, "ip:a", limit))
	}
	require.InDelta(t, -3600*second, allow(t, l, "ip:a", limit), float64(5*second))
	require.True(t, allowed(t, l, "ip:b", limit), "another client has a bucket of its own")
	require.Equal(t, int64(2), server.Int("EXISTS", prefix+"ip:a", prefix+"ip:b"))
}

// counter lets calls through to a store and counts them.
type counter struct {
	store *store.Store
	calls int64
}

func (c *counter) Run(calls []*store.Call, deadline time.Time) error {
	atomic.AddInt64(&c.calls, int64(len(calls)))
	return c.store.Run(calls, deadline)
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
	require.Less(t, counted.calls, int64(300), "requests that wait share a call")
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
	require.False(t, allowed(t, l, "ip:a", wide), "the narrow one has cut the bucket")
}

func TestLimiter_aKeyThatIsNotABucketIsAnErrorOfItsOwn(t *testing.T) {
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

func TestLimiter_withoutRedisAnErrorComesInTime(t *testing.T) {
	l := newLimiter(newStore(t, "127.0.0.1:"+redistest.FreePort(t)))
	_, err := allowBy(NewCache(l, NewLimit(1, 1, time.Hour), time.Second, KeyMaker{}), "ip:a", "ip:a", l.Now())
	require.ErrorIs(t, err, store.ErrUnavailable)
}

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

func TestAllowLocal_goesOnFromWhatRedisSaidLast(t *testing.T) {
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
	require.False(t, allowedLocal(l, "ip:a", limit, 0), "no fresh bucket at each flap")
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
	require.True(t, allowedLocal(l, numbered(0), limit, 0), "who was known before is not hurt")
	require.False(t, allowedLocal(l, numbered(0), limit, 0))
	require.Equal(t, maxKeys, len(l.recent)+len(l.previous))

	require.True(t, allowedLocal(l, numbered(maxKeys+3), limit, 10*second), "full buckets make room")
	require.Less(t, len(l.recent)+len(l.previous), maxKeys)
}

func numbered(i int) string {
	return string([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
}

func TestKnown_withARedisTheOldOnesGo(t *testing.T) {
	l := New(Settings{})
	hot := &Lease{}
	insert(l, "hot", hot)
	for i := 0; i < 3*maxKeys; i++ {
		insert(l, numbered(i), &Lease{})
		if i%1000 == 0 {
			require.Same(t, hot, lookup(l, "hot"), "what is asked for stays")
		}
	}
	require.LessOrEqual(t, len(l.recent)+len(l.previous), maxKeys)
	require.Nil(t, lookup(l, numbered(0)))
	require.NotNil(t, lookup(l, numbered(3*maxKeys-1)))
}

func TestHand_isBounded(t *testing.T) {
	hand := NewCache(New(Settings{}), nil, 0, KeyMaker{})
	for i := 0; i < 3*maxGrants; i++ {
		put(hand, numbered(i), &Grant{})
		require.LessOrEqual(t, len(hand.Grants), maxGrants)
	}
	require.Contains(t, hand.Grants, numbered(3*maxGrants-1))
	long := strings.Repeat("x", maxIDLen)
	put(hand, long+"x", &Grant{})
	require.NotContains(t, hand.Grants, long+"x", "a client may send 64 KB")
	put(hand, long, &Grant{})
	require.Contains(t, hand.Grants, long)
}

func TestHand_holdsNothingOfAnotherLimit(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	wide, narrow := NewLimit(1000, 1, time.Hour), NewLimit(2, 1, time.Hour)
	hand := NewCache(l, wide, 5*time.Second, KeyMaker{})
	ask := func() int64 {
		if verdict := AllowCached(hand, "raw", l.Now()); verdict != 0 {
			return verdict
		}
		verdict, err := allowBy(hand, "raw", "ip:a", l.Now())
		require.NoError(t, err)
		return verdict
	}
	for i := 0; i < 100 && (hand.Grants["raw"] == nil || hand.Grants["raw"].Tokens == 0); i++ {
		require.Equal(t, int64(1), ask())
	}
	held := hand.Grants["raw"]
	require.NotNil(t, held)
	require.Greater(t, held.Tokens, int64(0), "a lease")
	verdict, err := allowBy(NewCache(l, narrow, 5*time.Second, KeyMaker{}), "raw", "ip:a", l.Now())
	require.NoError(t, err)
	require.Equal(t, int64(1), verdict)
	require.Zero(t, held.Tokens, "the other limit has taken the key over, lease and all")
}

// A clock that is 2,000 ppm slow counts 499 ms while Redis counts half a second, and 119.76 s while it counts two minutes.
func TestHand_leaseEndsEarlyForASlowClock(t *testing.T) {
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
			if e := lookup(l, row.name); e.Tokens > 0 {
				require.GreaterOrEqual(t, e.ends, before+row.ends, row.name)
				require.LessOrEqual(t, e.ends, l.Now()+row.ends, row.name)
				e.Until = e.ends // as it is when it is to be renewed
				require.Equal(t, int64(0), spendLocked(&e.Grant, e.ends), "%s: its last microseconds are not for it", row.name)
				found = true
			}
		}
		require.True(t, found, "%s: no lease", row.name)
	}
}

func TestAskFor_asksAheadForWhatIsLikelyToBeUsed(t *testing.T) {
	slow, fast := NewLimit(10000, 1, time.Minute), NewLimit(10000, 10000, time.Second)
	middle := NewLimit(1000, 64, time.Second)
	rows := []struct {
		name              string
		limit             *Limit
		passed            int64 // since it asked
		asks, usage, used int64
		leased, left      int64
		words             string
	}{
		{"the second time", fast, 140 * second, 1, 0, 0, 0, 0, "1 0 2"},
		{"the second time, soon", fast, second, 1, 0, 0, 0, 0, "1 0 4"},
		{"the second time, late", fast, 310 * second, 1, 0, 0, 0, 0, "1 0"},
		{"the second time, little comes back", slow, second, 1, 0, 0, 0, 0, "1 0"},
		{"the second time, little comes back, soon", slow, second / 4, 1, 0, 0, 0, 0, "1 1 0"},
		{"a lease in use", fast, 60 * second, 1, 0, 4, 10, 3, "1 0 22 7 3"},
		{"a lease that is over", fast, 240 * second, 1, 0, 4, 10, 3, "1 0 10"},
		{"one that is long over", fast, 3600 * second, 1, 0, 4, 10, 3, "1 0"},
		{"as many as may be leased for long", fast, second, 1, 400, 1000, 999, 0, "1 137 625 7 0"},
		{"more than that", fast, second / 4, 1, 5000, 9999, 2000, 0, "1 1137 625 7 0"},
		{"few may be leased for long", middle, second, 1, 0, 2, 4, 0, "1 2 4 7 0"},
		{"fewer than for a short time", middle, second, 1, 0, 20, 19, 0, "1 10 4 7 0"},
		{"little comes back", slow, second / 4, 1, 100, 0, 100, 0, "1 49 0 7 0"},
		{"little comes back, and it is over", slow, second, 1, 100, 0, 100, 50, "1 18 0"},
	}
	for _, row := range rows {
		const now = 5000 * second
		e := &Lease{limit: row.limit, usage: usage{requests: row.asks, shortUse: row.usage, longUse: row.used, prefetchedAt: now - row.passed}}
		if row.leased > 0 {
			e.number, e.size, e.Tokens, e.ends = 7, row.leased, row.left, e.prefetchedAt+lasts(longMicros)
			if row.limit == slow {
				e.ends = e.prefetchedAt + lasts(leaseMicros)
			}
		}
		word, ends := argFor(e, &batch{number: 3, limit: row.limit}, 0, now)
		require.Equal(t, store.Word(row.words), word, row.name)
		require.Equal(t, strings.Count(row.words, " ") == 4, ends, row.name)
	}
}

func TestNewLimit_fewMayBeLeasedForLong(t *testing.T) {
	rows := []struct {
		refill int64
		period time.Duration
		few    int64
	}{
		{1, time.Minute, 0}, {63, time.Second, 0}, {64, time.Second, 4}, {3840, time.Minute, 4}, {1000, time.Second, 62},
		{10000, time.Second, 625}, {1000000000, time.Microsecond, 62500000000000},
	}
	for _, row := range rows {
		require.Equal(t, row.few, NewLimit(10, row.refill, row.period).longLeaseMax, "%d in %s", row.refill, row.period)
	}
}

// held answers when it is let go, so that requests gather behind the first call.
type held struct {
	store Store
	gate  chan struct{}
}

func (h *held) Run(calls []*store.Call, deadline time.Time) error {
	<-h.gate
	return h.store.Run(calls, deadline)
}

// One batch may ask for a key several times, and once ahead: the lease is that of the ask that was for it.
func TestAllow_aKeyTwiceInABatch(t *testing.T) {
	server := redistest.Start(t)
	gate := make(chan struct{})
	redis := newStore(t, server.Addr())
	l := newLimiter(&held{redis, gate})
	limit := NewLimit(1000, 1, time.Hour)
	drain := &store.Call{Script: script, Number: 1, Words: []string{store.Word(l.Prefix + "ip:a"), limit.wire, leaseWire, store.Word("300 0")}}
	require.NoError(t, redis.Run([]*store.Call{drain}, time.Now().Add(5*time.Second)))
	hand := NewCache(l, limit, 5*time.Second, KeyMaker{})
	now := l.Now() // it stands still: none leaves because Redis is far away
	var done sync.WaitGroup
	ask := func(key string) {
		done.Add(1)
		go func() {
			defer done.Done()
			verdict, err := allowBy(hand, key, key, now)
			if verdict != 1 || err != nil {
				panic(fmt.Sprint(key, ": ", verdict, ", ", err))
			}
		}()
	}
	gathered := func() (n int) {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		if b := hand.lane.open; b != nil {
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
	e := lookup(l, "ip:a")
	require.Greater(t, e.Tokens, int64(0), "a lease")
	require.Equal(t, e.size, e.Tokens)
	require.Zero(t, e.prefetchBatch)
}
