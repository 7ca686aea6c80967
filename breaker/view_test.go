package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestView_freshViewMakesNoCalls(t *testing.T) {
	g := newGateway(t, redistest.Start(t))
	policy := NewPolicy(5, time.Minute, 2, 2, time.Minute)
	for i := 0; i < 1000; i++ {
		g.report(g.admit(t, policy), Success, policy)
	}
	require.Equal(t, int64(1), g.callCount(), "only the first request asks")
}

func TestView_isRefreshedByItsAge(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(5, time.Minute, 2, 2, time.Minute)
	for _, row := range []struct {
		name                 string
		age                  time.Duration
		piggybacked          bool
		callsBefore, callsIn int64 // made before the request passes; made in the background too
	}{
		{"fresh", 49 * time.Millisecond, false, 0, 0},
		{"no longer fresh", 51 * time.Millisecond, true, 0, 1},
		{"too old", 101 * time.Millisecond, true, 1, 1},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			g := newGateway(t, server)
			g.admit(t, policy)
			g.advance(row.age)
			require.Equal(t, row.piggybacked, g.PiggybackCall(g.clock(), policy) != nil, "another call takes the refresh along")
			g.admit(t, policy)
			require.GreaterOrEqual(t, g.callCount(), 1+row.callsBefore)
			require.Eventually(t, func() bool { return g.callCount() == 1+row.callsIn }, patience, time.Millisecond)
			require.Eventually(t, func() bool { return g.PiggybackCall(g.clock(), policy) == nil }, patience, time.Millisecond, "fresh again")
		})
	}
}

// Concurrent requests that find the view too old share one refresh. A request with less time than the refresh may take runs
// its own.
func TestRefresh_isSharedByConcurrentRequests(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(5, time.Minute, 2, 2, time.Minute)
	for _, row := range []struct {
		name   string
		budget time.Duration // of all requests but the first, which has 3 s
		calls  int64
	}{
		{"others have as much time", 4 * time.Second, 1},
		{"others have less time", 2 * time.Second, 2},
	} {
		g := newGateway(t, server)
		g.admit(t, policy)
		g.advance(101 * time.Millisecond)
		before := g.callCount()
		g.block = make(chan struct{})
		begun := time.Now()
		var failed int64
		var started, done sync.WaitGroup
		request := func(budget time.Duration) {
			defer done.Done()
			started.Done()
			if _, retryAfter, err := g.Allow(policy, false, g.clock(), begun.Add(budget)); err != nil || retryAfter != 0 {
				atomic.AddInt64(&failed, 1)
			}
		}
		started.Add(21)
		done.Add(21)
		go request(3 * time.Second)
		require.Eventually(t, func() bool { return g.callCount() == before+1 }, time.Second, time.Millisecond, row.name)
		for i := 0; i < 20; i++ {
			go request(row.budget)
		}
		started.Wait()
		require.Eventually(t, func() bool { return g.callCount() == before+row.calls }, time.Second, time.Millisecond, row.name)
		time.Sleep(20 * time.Millisecond) // nothing shows that a request waits
		close(g.block)
		done.Wait()
		require.Zero(t, failed, row.name)
		require.Equal(t, before+row.calls, g.callCount(), row.name)
	}
}

func TestView_isOpenOnlyWhileTheCircuitIs(t *testing.T) {
	server := redistest.Start(t)
	g := newGateway(t, server)
	policy := NewPolicy(2, time.Minute, 1, 1, time.Hour)
	var permit Permit
	for _, step := range []struct {
		name string
		do   func()
		open bool
	}{
		{"closed", func() { permit = g.admit(t, policy) }, false},
		{"closed, with a failure", func() { g.report(permit, Failure, policy) }, false},
		{"open", func() { g.report(permit, Failure, policy) }, true},
		{"half-open", func() {
			endResetTimeout(server, g)
			permit = g.admit(t, policy)
		}, false},
		{"closed again", func() { g.report(permit, Success, policy) }, false},
	} {
		now := g.clock()
		step.do()
		g.Mu.Lock()
		isOpen := g.View.Open > now
		g.Mu.Unlock()
		require.Equal(t, step.open, isOpen, step.name)
	}
}
