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

// headers makes the keys of header values. Only short values join a batch by identity.
var headers = KeyMaker{Kind: "header:", MaxJoin: 3, Key: func(id string) string { return "odd:" + id }}

// request asks as the middleware does.
func request(cache *Cache, id string) int64 {
	return Allow(cache, id, cache.limiter.Now())
}

func TestCache_makesTheKeyOfAnIdentity(t *testing.T) {
	long := strings.Repeat("x", 200)
	rows := []struct {
		name, id, key string
		keyMaker      KeyMaker
	}{
		{"short", "abc", "header:abc", headers},
		{"longer", "abcd", "odd:abcd", headers},
		{"too long for the cache", long, "odd:" + long, headers},
		{"empty", "", "odd:", headers},
		{"with what may not be in a key", "a b", "named", headers},
		{"a key by itself", "host:a", "host:a", KeyMaker{}},
		{"one of many", "1.2.3.4:5", "ip:1.2.3.4", KeyMaker{MaxJoin: -1, Key: func(id string) string { return "ip:" + id[:7] }, ManyToOne: true}},
	}
	for _, row := range rows {
		server := redistest.Start(t)
		l := newLimiter(newStore(t, server.Addr()))
		l.Safe = "abcdefghijklmnopqrstuvwxyz0123456789.:"
		l.Name = func(key string) string { return "named" }
		cache := NewCache(l, NewLimit(2, 1, time.Hour), 5*time.Second, row.keyMaker)
		for i, allowed := range []bool{true, true, false, false} {
			require.Equal(t, allowed, request(cache, row.id) > 0, "%s, request %d", row.name, i)
		}
		require.Equal(t, int64(1), server.Int("EXISTS", prefix+row.key), row.name)
		require.Equal(t, int64(1), server.Int("DBSIZE"), row.name)
	}
}

// Two caches share a lane: a request that joins the other cache's batch joins by its key.
func TestAllow_eachVerdictBelongsToItsIdentity(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(1, 1, time.Hour)
	caches := []*Cache{NewCache(l, limit, 20*time.Second, headers), NewCache(l, limit, 20*time.Second, KeyMaker{})}
	allowed := make([]int64, 600)
	var failed int64
	var done sync.WaitGroup
	for i := range allowed {
		for n := 0; n < 3; n++ {
			done.Add(1)
			go askByID(caches[i%2], digits(int64(i)), &allowed[i], &failed, &done)
		}
	}
	done.Wait()
	require.Equal(t, int64(0), failed)
	for i, n := range allowed {
		require.Equal(t, int64(1), n, "id %d", i)
	}
	require.Equal(t, int64(600), server.Int("DBSIZE"))
}

func askByID(cache *Cache, id string, allowed, failed *int64, done *sync.WaitGroup) {
	defer done.Done()
	verdict := request(cache, id)
	if verdict == Undecided {
		atomic.AddInt64(failed, 1)
	} else if verdict > 0 {
		atomic.AddInt64(allowed, 1)
	}
}

// askByKey is askByID for a request whose key is known.
func askByKey(cache *Cache, key string, allowed, failed *int64, done *sync.WaitGroup) {
	defer done.Done()
	verdict, err := allowBy(cache, key, key, cache.limiter.Now())
	if err != nil {
		atomic.AddInt64(failed, 1)
	} else if verdict > 0 {
		atomic.AddInt64(allowed, 1)
	}
}

// A cache holds the grants that replies bring, so that the next request finds its grant. It holds no grant of a long identity. If many
// identities share a key, the request finds the lease by the key.
func TestAllow_leasesAreSpent(t *testing.T) {
	many := KeyMaker{MaxJoin: -1, Key: func(id string) string { return "one" }, ManyToOne: true}
	rows := []struct {
		name     string
		keyMaker KeyMaker
		id       func(i int) string
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
		cache := NewCache(l, NewLimit(10000, 10000, time.Second), 5*time.Second, row.keyMaker)
		for i := 0; i < 300; i++ {
			require.Equal(t, int64(1), request(cache, row.id(i)), row.name)
		}
		require.Less(t, counted.calls, int64(30), row.name)
	}
}

func TestAllow_anEmptyBucketIsCached(t *testing.T) {
	server := redistest.Start(t)
	counted := &counter{store: newStore(t, server.Addr())}
	l := newLimiter(counted)
	cache := NewCache(l, NewLimit(1, 1, time.Hour), 5*time.Second, headers)
	require.Equal(t, int64(1), request(cache, "abc"))
	for i := 0; i < 100; i++ {
		require.InDelta(t, -3600*second, request(cache, "abc"), float64(5*second))
	}
	require.Less(t, counted.calls, int64(10))
}

func TestLastErr_saysWhyThereIsNoVerdict(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", prefix+"header:bad", "x")
	cache := NewCache(newLimiter(newStore(t, server.Addr())), NewLimit(1, 1, time.Hour), 5*time.Second, headers)
	require.Equal(t, int64(Undecided), request(cache, "bad"))
	require.ErrorIs(t, LastErr(cache), ErrNotABucket)
	require.Equal(t, int64(1), request(cache, "ok"), "an error of that key only")

	cache = NewCache(newLimiter(newStore(t, "127.0.0.1:"+redistest.FreePort(t))), NewLimit(1, 1, time.Hour), time.Second, headers)
	require.Equal(t, int64(Undecided), request(cache, "abc"))
	require.ErrorIs(t, LastErr(cache), store.ErrUnavailable)
	cache = NewCache(New(Settings{Now: func() int64 { return 0 }}), NewLimit(1, 1, time.Hour), time.Second, headers)
	require.Equal(t, int64(Undecided), request(cache, "abc"), "without a Redis")
	require.ErrorIs(t, LastErr(cache), store.ErrUnavailable)
}

// More requests than fit into a batch join at the same time.
func TestAllow_aBatchIsBounded(t *testing.T) {
	server := redistest.Start(t)
	held := make(chan struct{})
	blocked := &gate{store: newStore(t, server.Addr()), open: held}
	l := newLimiter(blocked)
	l.Now = func() int64 { return 1 } // so that no batch is overdue
	cache := NewCache(l, NewLimit(1000, 1000, time.Second), 20*time.Second, KeyMaker{})
	var allowed, failed int64
	var done sync.WaitGroup
	for i := 0; i < 4*maxBatch; i++ {
		done.Add(1)
		go askByID(cache, digits(int64(i)), &allowed, &failed, &done)
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

// gate passes calls to a store while it is open, and records the largest number of keys in a call.
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

// A key that was asked for only once, long ago, shares the lease of the new keys of its batch.
func TestAllow_coldKeyIsTreatedAsNew(t *testing.T) {
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
		cache := NewCache(l, row.limit, 5*time.Second, headers)
		require.Equal(t, int64(1), request(cache, "abc"), row.name)
		require.True(t, lookupLocked(l, "header:abc").common, row.name)
		now += row.passed
		require.Equal(t, int64(1), request(cache, "abc"), row.name)
		e := lookupLocked(l, "header:abc")
		require.Equal(t, row.isNew, e.common, row.name)
		require.Equal(t, now, e.prefetchedAt, row.name)
		l.Mu.Lock()
		e = unshareLocked(l, "header:abc", e)
		l.Mu.Unlock()
		require.Equal(t, int64(1), e.requests, row.name)
		require.Equal(t, row.isNew, e.Tokens == 0, "%s: only a client that comes again gets a lease", row.name)
	}
}

func TestAllow_leaseOfAnotherCacheIsSpentWhileRedisIsUnavailable(t *testing.T) {
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

func TestCache_isBounded(t *testing.T) {
	cache := NewCache(New(Settings{}), nil, 0, KeyMaker{})
	for i := 0; i < 3*maxGrants; i++ {
		putLocked(cache, numbered(i), &Grant{})
		require.LessOrEqual(t, len(cache.Grants), maxGrants)
	}
	require.Contains(t, cache.Grants, numbered(3*maxGrants-1))
	long := strings.Repeat("x", maxIDLen)
	putLocked(cache, long+"x", &Grant{})
	require.NotContains(t, cache.Grants, long+"x", "a client may send 64 KB")
	putLocked(cache, long, &Grant{})
	require.Contains(t, cache.Grants, long)
}

func TestCache_holdsNoGrantOfAnotherLimit(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	wide, narrow := NewLimit(1000, 1, time.Hour), NewLimit(2, 1, time.Hour)
	cache := NewCache(l, wide, 5*time.Second, KeyMaker{})
	ask := func() int64 {
		if verdict := AllowCached(cache, "id", l.Now()); verdict != 0 {
			return verdict
		}
		verdict, err := allowBy(cache, "id", "ip:a", l.Now())
		require.NoError(t, err)
		return verdict
	}
	for i := 0; i < 100 && (cache.Grants["id"] == nil || cache.Grants["id"].Tokens == 0); i++ {
		require.Equal(t, int64(1), ask())
	}
	held := cache.Grants["id"]
	require.NotNil(t, held)
	require.Greater(t, held.Tokens, int64(0), "a lease")
	verdict, err := allowBy(NewCache(l, narrow, 5*time.Second, KeyMaker{}), "id", "ip:a", l.Now())
	require.NoError(t, err)
	require.Equal(t, int64(1), verdict)
	require.Zero(t, held.Tokens, "the key is under the other limit now, and so is its lease")
}
