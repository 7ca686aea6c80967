package ratelimit

import (
	"fmt"
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// standingGateways returns limiters of gateways that share a Redis, each with a route under the limit.
func standingGateways(t *testing.T, address string, limit *Limit, n int) []*Cache {
	var caches []*Cache
	for i := 0; i < n; i++ {
		caches = append(caches, standingGateway(t, newStore(t, address), limit, headers))
	}
	return caches
}

func standingGateway(t *testing.T, shared Store, limit *Limit, keyMaker KeyMaker) *Cache {
	l := New(Settings{
		Store: shared, Prefix: prefix, PlanPrefix: "test:{name}:", Gateways: "test:{name}:gateways",
		Name: func(key string) string { return key },
		Now:  func() int64 { return time.Since(begun).Microseconds() },
	})
	t.Cleanup(func() { Close(l) })
	return NewCache(l, limit, 5*time.Second, keyMaker)
}

// stands reports whether a gateway may use standing tokens now.
func stands(cache *Cache) bool {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	now := cache.limiter.Now()
	return now >= cache.stands.from && now < cache.stands.until
}

// used returns how many standing tokens are not whole.
func used(cache *Cache) int {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	return len(cache.stands.used)
}

// awaitReports waits until all reports so far are answered.
func awaitReports(t *testing.T, cache *Cache) {
	t.Helper()
	eventually(t, func() bool {
		cache.lock.Lock()
		defer cache.lock.Unlock()
		return len(cache.limiter.gateways.opened) == 0
	})
	eventually(t, func() bool { return isQuiet(cache.limiter) })
}

// startStanding lets gateways ask once, and waits until as many may use standing tokens.
func startStanding(t *testing.T, caches []*Cache, want int) {
	t.Helper()
	for i, cache := range caches {
		require.Greater(t, request(cache, fmt.Sprintf("first-%d", i)), int64(0))
	}
	eventually(t, func() bool {
		n := 0
		for _, cache := range caches {
			if stands(cache) {
				n++
			}
		}
		return n == want
	})
}

// admissions are when requests were admitted.
type admissions struct {
	mu sync.Mutex
	at []time.Time
}

func (a *admissions) add() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Now())
}

// most returns the most requests of a window, less what is refilled in it, for a rate a second.
func (a *admissions) most(rate float64) float64 {
	sort.Slice(a.at, func(i, j int) bool { return a.at[i].Before(a.at[j]) })
	worst, least := 0.0, 0.0
	for i, at := range a.at {
		refilled := rate * at.Sub(a.at[0]).Seconds()
		if x := float64(i) - refilled; x < least {
			least = x
		}
		if x := float64(i+1) - refilled - least; x > worst {
			worst = x
		}
	}
	return worst
}

// recent reports whether a request was admitted in the last while, or since the burst began.
func (a *admissions) recent(begun time.Time, while time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.at) > 0 && a.at[len(a.at)-1].After(begun) {
		begun = a.at[len(a.at)-1]
	}
	return time.Since(begun) < while
}

// burst sends requests of one client through gateways for a time.
func (a *admissions) burst(caches []*Cache, id string, last time.Duration) {
	a.send(caches, id, time.Now().Add(last), time.Time{}, 0)
}

// drain sends requests of one client through gateways until none is admitted any more.
func (a *admissions) drain(caches []*Cache, id string) {
	a.send(caches, id, time.Time{}, time.Now(), time.Second)
}

func (a *admissions) send(caches []*Cache, id string, end, begun time.Time, while time.Duration) {
	var done sync.WaitGroup
	for _, cache := range caches {
		for i := 0; i < 4; i++ {
			done.Add(1)
			go func(cache *Cache) {
				defer done.Done()
				for time.Now().Before(end) || a.recent(begun, while) {
					if request(cache, id) > 0 {
						a.add()
					} else {
						time.Sleep(time.Millisecond)
					}
				}
			}(cache)
		}
	}
	done.Wait()
}

func TestStanding_requestsOfNewClientsAreReportedTogether(t *testing.T) {
	server := redistest.Start(t)
	counting := &counter{store: newStore(t, server.Addr())}
	cache := standingGateway(t, counting, WithStanding(NewLimit(1000, 10, time.Second)), headers)
	startStanding(t, []*Cache{cache}, 1)
	before := atomic.LoadInt64(&counting.calls)
	for i := 0; i < 1000; i++ {
		require.Greater(t, request(cache, fmt.Sprintf("client-%d", i)), int64(0))
	}
	eventually(t, func() bool { return used(cache) == 0 }, "each report makes a token whole")
	require.LessOrEqual(t, atomic.LoadInt64(&counting.calls)-before, int64(50))
	require.Len(t, server.Do("KEYS", "*client-*"), 1000, "each bucket has lost a token")
}

// A client that sends its requests through one gateway gets as many as without standing leases.
func TestStanding_oneGatewayHasTheCapacity(t *testing.T) {
	for _, row := range []struct {
		name     string
		keyMaker KeyMaker
		allow    func(cache *Cache, id string) int64
	}{
		{"by a header", headers, request},
		{"by a key that is made", KeyMaker{MaxJoin: -1, Key: func(id string) string { return "made:" + id }, ManyToOne: true}, request},
		{"and is told what is left", headers, func(cache *Cache, id string) int64 {
			return AllowCounted(cache, id, cache.limiter.Now(), &Left{})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			// A token is refilled in an hour. No more than one is kept back, and so the gateway would wait for an hour.
			limit := withStanding(NewLimit(100, 1, time.Hour), 1)
			cache := standingGateway(t, newStore(t, server.Addr()), limit, row.keyMaker)
			permit(t, cache)
			admitted := 0
			for i := 0; i < 300; i++ {
				if row.allow(cache, "client") > 0 {
					admitted++
				}
				if i%20 == 0 {
					awaitReports(t, cache)
				}
			}
			require.Equal(t, 100, admitted)
		})
	}
}

// permit registers a gateway that has asked, and ends its wait.
func permit(t *testing.T, cache *Cache) {
	t.Helper()
	require.Greater(t, request(cache, "first"), int64(0))
	g := &cache.limiter.gateways
	eventually(t, func() bool {
		cache.lock.Lock()
		defer cache.lock.Unlock()
		return permits(&g.own, cache.limit)
	})
	cache.lock.Lock()
	g.own.joinedAt = math.MinInt64 / 2
	g.own.due = cache.limiter.Now()
	cache.lock.Unlock()
	eventually(t, func() bool { return stands(cache) })
}

func TestStanding_aReportThatTheLevelDoesNotHoldIsRepeated(t *testing.T) {
	server := redistest.Start(t)
	limit := WithStanding(NewLimit(101, 2, time.Second))
	cache := standingGateway(t, newStore(t, server.Addr()), limit, headers)
	startStanding(t, []*Cache{cache}, 1)
	other := standingGateway(t, newStore(t, server.Addr()), limit, headers)
	for request(other, "client") > 0 {
	}
	require.Greater(t, request(cache, "client"), int64(0), "its token is whole")
	awaitReports(t, cache)
	require.Equal(t, 1, used(cache))
	eventually(t, func() bool { return used(cache) == 0 }, "when a token was refilled")
}

func TestStanding_withoutRightsThereIsNone(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "default", "-zadd")
	reasons := make(chan error, 10)
	shared := newStore(t, server.Addr())
	l := New(Settings{Store: shared, Unavailable: &shared.Unavailable, Prefix: prefix, Gateways: "test:{name}:gateways", NotStanding: func(err error) { reasons <- err },
		Name: func(key string) string { return key }, Now: func() int64 { return time.Since(begun).Microseconds() }})
	t.Cleanup(func() { Close(l) })
	cache := NewCache(l, WithStanding(NewLimit(101, 100, time.Second)), 5*time.Second, headers)
	require.Greater(t, request(cache, "a"), int64(0))
	require.ErrorIs(t, <-reasons, errDenied)
	require.False(t, l.Unavailable.Load())
	require.Greater(t, request(cache, "a"), int64(0))
	require.False(t, stands(cache))
}

// A fleet that has more gateways than may have standing tokens does not join again and again: each join would cost every bucket a token.
func TestStanding_aFleetThatIsTooLargeDoesNotJoin(t *testing.T) {
	server := redistest.Start(t)
	caches := standingGateways(t, server.Addr(), WithStanding(NewLimit(101, 100, time.Second)), 4)
	for i, cache := range caches {
		startStanding(t, []*Cache{cache}, 1-min1(i))
	}
	for _, cache := range caches[1:] {
		eventually(t, func() bool {
			cache.lock.Lock()
			defer cache.lock.Unlock()
			return cache.limiter.gateways.own.due > 0 // it has asked for room
		})
	}
	require.Len(t, server.Do("ZRANGE", "test:{name}:gateways", "0", "-1"), 1)
}

func min1(n int) int {
	if n > 0 {
		return 1
	}
	return 0
}

// While Redis is unavailable, the bucket in this process pays for a standing token that was used.
func TestStanding_withoutRedisAProcessHasTheCapacity(t *testing.T) {
	server := redistest.Start(t)
	shared := newStore(t, server.Addr())
	cache := standingGateway(t, shared, withStanding(NewLimit(100, 1, time.Hour), 1), headers)
	permit(t, cache)
	server.Kill()
	admitted := 0
	for i := 0; i < 200; i++ {
		verdict := request(cache, "client")
		if verdict == Undecided {
			verdict = AllowLocal(cache.limiter, bucketKey(cache, "client"), cache.limit, cache.limiter.Now())
		}
		if verdict > 0 {
			admitted++
		}
	}
	require.Equal(t, 100, admitted)
}

// A flush costs at most one fresh bucket.
func TestStanding_flushed(t *testing.T) {
	server := redistest.Start(t)
	limit := WithStanding(NewLimit(1000, 10, time.Second))
	caches := standingGateways(t, server.Addr(), limit, 4)
	startStanding(t, caches, 4)
	var found admissions
	found.burst(caches, "client", time.Second)
	server.Do("FLUSHALL")
	found.burst(caches, "client", time.Second)
	require.LessOrEqual(t, found.most(10), 2*1000+1.5)
}

// However many gateways a client uses, it never gets more than the capacity in a time in which nothing is refilled, and little less.
func TestStanding_aBurstHasTheCapacity(t *testing.T) {
	for _, row := range []struct {
		gateways, use, capacity, least int64
	}{
		{gateways: 1, use: 1, capacity: 100, least: 100},
		{gateways: 2, use: 2, capacity: 400, least: 400},
		{gateways: 4, use: 1, capacity: 400, least: 397},
		{gateways: 4, use: 4, capacity: 400, least: 400},
		{gateways: 4, use: 4, capacity: 10000, least: 9000}, // a lease may end before it is spent
		{gateways: 4, use: 4, capacity: largestBurst, least: largestBurst / 10 * 9},
	} {
		t.Run(fmt.Sprintf("%d tokens, through %d of %d", row.capacity, row.use, row.gateways), func(t *testing.T) {
			server := redistest.Start(t)
			limit := withStanding(NewLimit(row.capacity, 1, time.Hour), row.capacity/100)
			caches := standingGateways(t, server.Addr(), limit, int(row.gateways))
			for _, cache := range caches {
				permit(t, cache)
			}
			var found admissions
			found.drain(caches[:row.use], "client")
			require.LessOrEqual(t, len(found.at), int(row.capacity))
			require.GreaterOrEqual(t, len(found.at), int(row.least))
			t.Logf("%d requests", len(found.at))
		})
	}
}

// However many gateways a client uses, no window has more requests than its limit allows.
func TestStanding_never(t *testing.T) {
	for _, row := range []struct {
		gateways, stand, capacity, rate int64
	}{
		{2, 1, 101, 10},
		{4, 4, 10000, 50},
	} {
		t.Run(fmt.Sprintf("%d gateways, %d tokens", row.gateways, row.capacity), func(t *testing.T) {
			server := redistest.Start(t)
			limit := WithStanding(NewLimit(row.capacity, row.rate, time.Second))
			caches := standingGateways(t, server.Addr(), limit, int(row.gateways))
			startStanding(t, caches, int(row.stand))
			var found admissions
			found.burst(caches, "client", 1500*time.Millisecond)
			require.LessOrEqual(t, found.most(float64(row.rate)), float64(row.capacity)+float64(row.rate)/10+0.5)
			require.GreaterOrEqual(t, len(found.at), int(row.capacity*99/100))
			t.Logf("%d requests; worst window %.1f", len(found.at), found.most(float64(row.rate)))
		})
	}
}
