package ratelimit

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// headers is a naming as that of a header's values, with short ones.
var headers = KeyMaker{Kind: "header:", MaxJoin: 3, Key: func(raw string) string { return "odd:" + raw }}

// request is what the middleware does with a request.
func request(hand *Cache, raw string) int64 {
	return Allow(hand, raw, hand.limiter.Now())
}

func TestAllow_makesTheKey(t *testing.T) {
	long := strings.Repeat("x", 200)
	rows := []struct {
		name, raw, key string
		naming         KeyMaker
	}{
		{"short", "abc", "header:abc", headers},
		{"longer", "abcd", "odd:abcd", headers},
		{"too long for the hand", long, "odd:" + long, headers},
		{"empty", "", "odd:", headers},
		{"with what may not be in a key", "a b", "named", headers},
		{"a key by itself", "host:a", "host:a", KeyMaker{}},
		{"one of many", "1.2.3.4:5", "ip:1.2.3.4", KeyMaker{MaxJoin: -1, Key: func(raw string) string { return "ip:" + raw[:7] }, ManyToOne: true}},
	}
	for _, row := range rows {
		server := redistest.Start(t)
		l := newLimiter(newStore(t, server.Addr()))
		l.Safe = "abcdefghijklmnopqrstuvwxyz0123456789.:"
		l.Name = func(key string) string { return "named" }
		hand := NewCache(l, NewLimit(2, 1, time.Hour), 5*time.Second, row.naming)
		for i, allowed := range []bool{true, true, false, false} {
			require.Equal(t, allowed, request(hand, row.raw) > 0, "%s, request %d", row.name, i)
		}
		require.Equal(t, int64(1), server.Int("EXISTS", prefix+row.key), row.name)
		require.Equal(t, int64(1), server.Int("DBSIZE"), row.name)
	}
}

// Two hands meet in one line: who joins a batch of the other's brings a key of its own.
func TestAllow_eachVerdictBelongsToItsRaw(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(1, 1, time.Hour)
	hands := []*Cache{NewCache(l, limit, 20*time.Second, headers), NewCache(l, limit, 20*time.Second, KeyMaker{})}
	allowed := make([]int64, 600)
	var failed int64
	var done sync.WaitGroup
	for i := range allowed {
		for n := 0; n < 3; n++ {
			done.Add(1)
			go askByRaw(hands[i%2], digits(int64(i)), &allowed[i], &failed, &done)
		}
	}
	done.Wait()
	require.Equal(t, int64(0), failed)
	for i, n := range allowed {
		require.Equal(t, int64(1), n, "raw %d", i)
	}
	require.Equal(t, int64(600), server.Int("DBSIZE"))
}

func askByRaw(hand *Cache, raw string, allowed, failed *int64, done *sync.WaitGroup) {
	defer done.Done()
	verdict := request(hand, raw)
	if verdict == Undecided {
		atomic.AddInt64(failed, 1)
	} else if verdict > 0 {
		atomic.AddInt64(allowed, 1)
	}
}

// askByKey is askByRaw for a request that has its key.
func askByKey(hand *Cache, key string, allowed, failed *int64, done *sync.WaitGroup) {
	defer done.Done()
	verdict, err := allowBy(hand, key, key, hand.limiter.Now())
	if err != nil {
		atomic.AddInt64(failed, 1)
	} else if verdict > 0 {
		atomic.AddInt64(allowed, 1)
	}
}

// A hand takes up what it hears, so that a request that finds nothing there need not look elsewhere; by a long raw it may hold nothing,
// and by many raws for one key it would find each only once.
func TestAllow_leasesAreSpent(t *testing.T) {
	many := KeyMaker{MaxJoin: -1, Key: func(raw string) string { return "one" }, ManyToOne: true}
	rows := []struct {
		name   string
		naming KeyMaker
		raw    func(i int) string
	}{
		{"a header", headers, func(i int) string { return "abc" }},
		{"a key", KeyMaker{}, func(i int) string { return "host:a" }},
		{"a long header", headers, func(i int) string { return strings.Repeat("x", maxIDLen+1) }},
		{"many connections", many, func(i int) string { return digits(int64(i)) }},
	}
	for _, row := range rows {
		server := redistest.Start(t)
		counted := &counter{store: newStore(t, server.Addr())}
		l := newLimiter(counted)
		hand := NewCache(l, NewLimit(10000, 10000, time.Second), 5*time.Second, row.naming)
		for i := 0; i < 300; i++ {
			require.Equal(t, int64(1), request(hand, row.raw(i)), row.name)
		}
		require.Less(t, counted.calls, int64(30), row.name)
	}
}

func TestAllow_whatIsEmptyIsHeld(t *testing.T) {
	server := redistest.Start(t)
	counted := &counter{store: newStore(t, server.Addr())}
	l := newLimiter(counted)
	hand := NewCache(l, NewLimit(1, 1, time.Hour), 5*time.Second, headers)
	require.Equal(t, int64(1), request(hand, "abc"))
	for i := 0; i < 100; i++ {
		require.InDelta(t, -3600*second, request(hand, "abc"), float64(5*second))
	}
	require.Less(t, counted.calls, int64(10))
}

func TestAllow_troubleTellsWhyThereIsNoVerdict(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", prefix+"header:bad", "x")
	hand := NewCache(newLimiter(newStore(t, server.Addr())), NewLimit(1, 1, time.Hour), 5*time.Second, headers)
	require.Equal(t, int64(Undecided), request(hand, "bad"))
	require.ErrorIs(t, LastErr(hand), ErrNotABucket)
	require.Equal(t, int64(1), request(hand, "ok"), "an error of its own")

	hand = NewCache(newLimiter(newStore(t, "127.0.0.1:"+redistest.FreePort(t))), NewLimit(1, 1, time.Hour), time.Second, headers)
	require.Equal(t, int64(Undecided), request(hand, "abc"))
	require.ErrorIs(t, LastErr(hand), store.ErrUnavailable)
	hand = NewCache(New(Settings{Now: func() int64 { return 0 }}), NewLimit(1, 1, time.Hour), time.Second, headers)
	require.Equal(t, int64(Undecided), request(hand, "abc"), "without a Redis")
	require.ErrorIs(t, LastErr(hand), store.ErrUnavailable)
}

// More than a batch holds join at once.
func TestAllow_aBatchIsBounded(t *testing.T) {
	server := redistest.Start(t)
	held := make(chan struct{})
	blocked := &gate{store: newStore(t, server.Addr()), open: held}
	l := newLimiter(blocked)
	l.Now = func() int64 { return 1 } // so that none is in a hurry
	hand := NewCache(l, NewLimit(1000, 1000, time.Second), 20*time.Second, KeyMaker{})
	var allowed, failed int64
	var done sync.WaitGroup
	for i := 0; i < 4*maxBatch; i++ {
		done.Add(1)
		go askByRaw(hand, digits(int64(i)), &allowed, &failed, &done)
	}
	waiting := func() bool {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		return len(l.pending) > 2
	}
	require.Eventually(t, waiting, 10*time.Second, time.Millisecond)
	close(held)
	done.Wait()
	require.Equal(t, int64(0), failed)
	require.Equal(t, int64(4*maxBatch), allowed)
	require.LessOrEqual(t, atomic.LoadInt64(&blocked.most), int64(maxBatch))
}

// gate lets calls through to a store when it is open, and notes the most keys in one.
type gate struct {
	store *store.Store
	open  chan struct{}
	most  int64
}

func (g *gate) Run(calls []*store.Call, deadline time.Time) error {
	<-g.open
	if n := int64(calls[0].Number); n > atomic.LoadInt64(&g.most) {
		atomic.StoreInt64(&g.most, n)
	}
	return g.store.Run(calls, deadline)
}

// A key that was asked for once, and long ago, is one of those that are new in a batch: nothing is known of it but that.
func TestAllow_whoIsSeldomSeenIsNew(t *testing.T) {
	slow, fast := NewLimit(10000, 1, time.Minute), NewLimit(10000, 10000, time.Second)
	rows := []struct {
		name   string
		limit  *Limit
		passed int64
		isNew  bool
	}{
		{"soon, under a limit of short leases", slow, leaseMicros, false},
		{"later", slow, leaseMicros + 1, true},
		{"soon, under a limit of long leases", fast, quiet, false},
		{"later", fast, quiet + 1, true},
	}
	for _, row := range rows {
		server := redistest.Start(t)
		l := newLimiter(newStore(t, server.Addr()))
		now := int64(1)
		l.Now = func() int64 { return now }
		hand := NewCache(l, row.limit, 5*time.Second, headers)
		require.Equal(t, int64(1), request(hand, "abc"), row.name)
		require.True(t, lookup(l, "header:abc").common, row.name)
		now += row.passed
		require.Equal(t, int64(1), request(hand, "abc"), row.name)
		e := lookup(l, "header:abc")
		require.Equal(t, row.isNew, e.common, row.name)
		require.Equal(t, now, e.prefetchedAt, row.name)
		require.Equal(t, int64(1), e.requests, row.name)
		require.Equal(t, row.isNew, e.Tokens == 0, "%s: a lease is for who comes again", row.name)
	}
}

func TestAllow_aLeaseOfAnotherHandIsSpentWhileRedisIsAway(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(10000, 10000, time.Second)
	one, other := NewCache(l, limit, 5*time.Second, headers), NewCache(l, limit, 5*time.Second, headers)
	for i := 0; i < 100 && (one.Grants["abc"] == nil || one.Grants["abc"].Tokens == 0); i++ {
		require.Equal(t, int64(1), request(one, "abc"))
	}
	require.Greater(t, one.Grants["abc"].Tokens, int64(0), "a lease")
	l.Unavailable.Store(true)
	require.Equal(t, int64(1), request(other, "abc"))
	require.Equal(t, int64(Undecided), request(other, "new"))
}
