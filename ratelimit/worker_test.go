package ratelimit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

func idle(l *Limiter) int {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return l.idleWorkers
}

func TestWorker_oneServesSequentialRequests(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	defer Close(l)
	cache := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	for _, id := range []string{"a", "b", "c"} {
		require.Equal(t, int64(1), request(cache, id))
		require.Eventually(t, func() bool { return idle(l) == 1 }, 5*time.Second, time.Millisecond)
	}
}

// A worker that panics fails no other request.
func TestWorker_panicFailsOnlyItsRequest(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	defer Close(l)
	keyMaker := KeyMaker{MaxJoin: -1, Key: func(id string) string {
		if id == "bad" {
			panic("panicked")
		}
		return id
	}}
	cache := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, keyMaker)
	require.Equal(t, int64(1), request(cache, "good"))
	for i := 0; i < 3; i++ {
		require.Equal(t, int64(Undecided), request(cache, "bad"))
		require.ErrorContains(t, LastErr(cache), "panicked")
		require.Equal(t, int64(1), request(cache, "good"))
	}
	require.Zero(t, lookupLocked(l, "good").prefetchBatch, "it may ask for a lease again")
}

// panicking panics in its first call, when the gate opens.
type panicking struct {
	store *store.Store
	gate  chan struct{}
	calls int64
}

func (s *panicking) Run(calls []*store.Call, deadline time.Time) error {
	<-s.gate
	if atomic.AddInt64(&s.calls, 1) == 1 {
		panic("panicked")
	}
	return s.store.Run(calls, deadline)
}

func TestWorker_panicFailsOnlyItsBatch(t *testing.T) {
	server := redistest.Start(t)
	redis := &panicking{store: newStore(t, server.Addr()), gate: make(chan struct{})}
	l := newLimiter(redis)
	defer Close(l)
	l.Now = func() int64 { return 1 } // so that no batch is overdue
	cache := NewCache(l, NewLimit(10, 10, time.Second), 20*time.Second, headers)
	var allowed, failed int64
	var done sync.WaitGroup
	done.Add(2)
	go askByID(cache, "first", &allowed, &failed, &done)
	gathered := func(inFlight, waiting int) func() bool {
		return func() bool {
			l.Mu.Lock()
			defer l.Mu.Unlock()
			return l.inFlight == inFlight && l.claimed == 0 && len(l.pending) == waiting
		}
	}
	require.Eventually(t, gathered(1, 0), 5*time.Second, time.Millisecond)
	go askByID(cache, "second", &allowed, &failed, &done)
	require.Eventually(t, gathered(1, 1), 5*time.Second, time.Millisecond)
	close(redis.gate)
	done.Wait()
	require.Equal(t, int64(1), failed)
	require.Equal(t, int64(1), allowed)
	require.ErrorContains(t, LastErr(cache), "panicked")
	require.Eventually(t, gathered(0, 0), 5*time.Second, time.Millisecond)
}

// failing fails all calls at once.
type failing struct{}

func (failing) Run(calls []*store.Call, _ time.Time) error {
	for _, call := range calls {
		call.Err = store.ErrUnavailable
	}
	return store.ErrUnavailable
}

func TestWorker_noReplyIsNotAFastOne(t *testing.T) {
	l := newLimiter(failing{})
	defer Close(l)
	cache := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	require.Equal(t, int64(Undecided), request(cache, "a"))
	l.Mu.Lock()
	defer l.Mu.Unlock()
	require.Equal(t, int64(sendInterval), l.minRTT)
}

// fakeRefresher refreshes the breaker's view with its call, or when Extend is called.
type fakeRefresher struct {
	piggybacks, extends bool
	until               *int64
	asked               []string
}

func (a *fakeRefresher) PiggybackCall(now int64) *store.Call {
	a.asked = append(a.asked, "piggyback")
	if !a.piggybacks {
		return nil
	}
	call := &store.Call{Script: store.NewScript(`return '42'`), Keys: []string{"test:{name}:other"}}
	call.Then = func(c *store.Call) { *a.until = now + c.Reply[0]*1000000 }
	return call
}

func (a *fakeRefresher) Extend(now int64) {
	a.asked = append(a.asked, "extend")
	if a.extends {
		*a.until = now + 1
	}
}

// If the view is out of date when a trip is sent, the trip includes a call that refreshes it. If that does not help, the reply extends
// the view.
func TestWorker_refreshesTheBreakersView(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name      string
		until     int64 // HealthyUntil
		refresher *fakeRefresher
		passes    bool
		asked     []string
	}{
		{"it is healthy", 1 << 62, &fakeRefresher{}, true, nil},
		{"it is not, and nothing refreshes it", 0, nil, false, nil},
		{"it is not, and the call refreshes it", 0, &fakeRefresher{piggybacks: true}, true, []string{"piggyback"}},
		{"it is not, and it is extended with the reply", 0, &fakeRefresher{extends: true}, true, []string{"piggyback", "extend"}},
		{"it is not, and stays so", 0, &fakeRefresher{}, false, []string{"piggyback", "extend"}},
	} {
		until := row.until
		l := newLimiter(newStore(t, server.Addr()))
		l.HealthyUntil = &until
		cache := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
		if row.refresher != nil {
			row.refresher.until = &until
			cache.Refresher = row.refresher
		}
		require.Equal(t, row.passes, request(cache, "a") > 1, row.name)
		if row.refresher != nil {
			require.Equal(t, row.asked, row.refresher.asked, row.name)
		}
		Close(l)
	}
}

func TestClose_endsTheWorkers(t *testing.T) {
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	cache := NewCache(l, NewLimit(10, 10, time.Second), 5*time.Second, headers)
	require.Equal(t, int64(1), request(cache, "a"))
	require.Eventually(t, func() bool { return idle(l) == 1 }, 5*time.Second, time.Millisecond)
	Close(l)
	require.Equal(t, int64(1), request(cache, "b"), "requests that still arrive are served")
	replied := func() bool {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		return l.inFlight == 0
	}
	require.Eventually(t, replied, 5*time.Second, time.Millisecond)
	require.Zero(t, idle(l), "no worker waits any more")
}
