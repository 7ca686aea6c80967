package resilience

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// manyGrants is how many grants a large gateway has: four routes with as many as a route may have.
const manyGrants = 65536

// addGrants has a route hold grants of n clients.
func addGrants(m *Middleware, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.cache.Grants); i < n; i++ {
		m.cache.Grants[fmt.Sprintf("client-%d", i)] = &ratelimit.Grant{Tokens: 1, Until: math.MaxInt64}
	}
}

// objectsOf returns how many objects a function allocates, without those of what runs in the background.
func objectsOf(act func()) float64 {
	least := math.Inf(1)
	for i := 0; i < 10; i++ {
		if n := testing.AllocsPerRun(3, act); n < least {
			least = n
		}
	}
	return least
}

// A scrape does not visit grants: it allocates as many objects for many as for few. In the interpreter each visit would cost objects, so this
// test counts them when it runs interpreted.
func TestScrape_visitsNoGrants(t *testing.T) {
	registry := newProcess(t, 0)
	m, _ := newInstance(t, &Config{Name: "shop", RateLimit: tokens("100"), CircuitBreaker: failures("5")})
	console(t)
	require.Equal(t, 200, get(m.handler))
	for _, row := range []struct {
		name string
		act  func()
	}{
		{"the metrics", func() { registry.metrics() }},
		{"the status", func() {
			one := registry.shown()[0]
			statusOf(one, one.breaker.Snapshot(one.now()), nil)
		}},
	} {
		m.mu.Lock()
		for id := range m.cache.Grants {
			delete(m.cache.Grants, id)
		}
		m.mu.Unlock()
		addGrants(m, 100)
		least := objectsOf(row.act)
		addGrants(m, manyGrants)
		many := objectsOf(row.act)
		require.InDelta(t, least, many, 2, row.name)
		require.Greater(t, least, 10.0, row.name)
	}
	require.Equal(t, int64(manyGrants), sampleOf(registry.shown()[0]).grants)
}

// timedLock notes for how long it was held at most.
type timedLock struct {
	inner   sync.Locker
	begun   time.Time
	longest time.Duration
	holds   int
}

func (l *timedLock) Lock() {
	l.inner.Lock()
	l.begun = time.Now()
}

func (l *timedLock) Unlock() {
	took := time.Since(l.begun)
	if took > l.longest {
		l.longest = took
	}
	l.holds++
	l.inner.Unlock()
}

// longestOf returns for how long a function holds the lock at most: the least of several runs, as other work of the machine lengthens some.
func (l *timedLock) longestOf(act func()) time.Duration {
	least := time.Hour
	for i := 0; i < 5; i++ {
		l.inner.Lock()
		l.longest = 0
		l.inner.Unlock()
		act()
		l.inner.Lock()
		if l.longest < least {
			least = l.longest
		}
		l.inner.Unlock()
	}
	return least
}

// Neither the lock of all requests nor that of the counts is held for longer than a millisecond, with as many grants, circuits of scopes and
// refused clients as there may be.
func TestScrape_holdsNoLockForLong(t *testing.T) {
	registry := newProcess(t, 0)
	m, _ := newInstance(t, &Config{Name: "shop", RateLimit: tokens("1000"), CircuitBreaker: scopedBreaker("host")})
	console(t)
	for i := 0; i < maxCircuits; i++ {
		require.Equal(t, 200, getFrom(m.handler, fmt.Sprintf("h%d.example", i), "/"))
	}
	addGrants(m, manyGrants)
	one := registry.shown()[0]
	require.Len(t, one.knownCircuits(), maxCircuits)
	for i := 0; i < 4*maxTopClients; i++ {
		m.countRefused("default", fmt.Sprintf("ip:192.0.2.%d", i), 1, 1)
		m.countRefused("default", fmt.Sprintf("ip:192.0.3.%d", i), 1, topPeriod+1)
	}

	lock := &timedLock{inner: m.tally.lock}
	m.tally.lock = lock
	defer func() { m.tally.lock = lock.inner }()
	scrape := func() {
		registry.metrics()
		statusOf(one, one.breaker.Snapshot(one.now()), nil)
	}
	took := lock.longestOf(scrape)
	t.Logf("the lock of all requests: %s", took)
	require.Less(t, took, time.Millisecond)
	require.Greater(t, lock.holds, 20)

	counts := &timedLock{inner: &m.tally.mu}
	took = counts.longestOf(func() {
		counts.Lock()
		m.tally.refused.copies(topPeriod + 2)
		counts.Unlock()
	})
	t.Logf("the lock of the counts: %s", took)
	require.Less(t, took, time.Millisecond)
}
