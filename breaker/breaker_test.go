package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

const key = "test:{name}:breaker"

// gateway is a breaker as one gateway has it, with a clock of its own and a record of what it said.
type gateway struct {
	*Breaker
	store *store.Store
	calls int64
	held  chan struct{} // where it is not nil, calls wait until it is closed

	mu      sync.Mutex // guards what follows
	now     int64
	changes []string
}

func (g *gateway) Run(calls []*store.Call, deadline time.Time) error {
	atomic.AddInt64(&g.calls, int64(len(calls)))
	if g.held != nil {
		<-g.held
	}
	return g.store.Run(calls, deadline)
}

func (g *gateway) IsUnavailable() bool { return g.store.IsUnavailable() }

func (g *gateway) Lost() int64 { return g.store.Lost() }

func (g *gateway) clock() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now++ // no two readings are the same
	return g.now
}

func (g *gateway) pass(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += d.Microseconds()
}

func (g *gateway) said() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string{}, g.changes...)
}

func newGateway(t *testing.T, address string) *gateway {
	g := &gateway{now: 1000 * second}
	g.store = store.New(store.Settings{
		Address: address, Timeout: 2 * time.Second, DialTimeout: time.Second, KeyPrefix: "test",
	}, func(error) {})
	t.Cleanup(g.store.Close)
	g.Breaker = New(Settings{
		Store: g, Key: key, Timeout: 2 * time.Second, Now: g.clock,
		Changed: func(from, to string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.changes = append(g.changes, from+" to "+to)
		},
	})
	return g
}

// allow is what the middleware does: the view first, then Redis.
func (g *gateway) allow(t *testing.T, policy *Policy) (Permit, time.Duration) {
	if wait, refused := g.MustRefuse(false, g.clock()); refused {
		return Permit{}, wait
	}
	permit, wait, err := g.Allow(policy, false, g.clock(), time.Now().Add(2*time.Second))
	require.NoError(t, err)
	return permit, wait
}

func (g *gateway) done(permit Permit, outcome Outcome, policy *Policy) {
	g.Done(permit, outcome, policy, 2*time.Second)
}

// open fails as often as it takes.
func (g *gateway) open(t *testing.T, policy *Policy) {
	for i := int64(0); i < policy.failureThreshold; i++ {
		permit, wait := g.allow(t, policy)
		require.Equal(t, time.Duration(0), wait)
		g.done(permit, Failure, policy)
	}
}

func TestBreaker_healthyCostsNothing(t *testing.T) {
	server := redistest.Start(t)
	g := newGateway(t, server.Addr())
	policy := NewPolicy(5, time.Minute, 2, 2, time.Minute)
	for i := 0; i < 1000; i++ {
		permit, wait := g.allow(t, policy)
		require.Equal(t, time.Duration(0), wait)
		g.done(permit, Success, policy)
	}
	require.Equal(t, int64(1), atomic.LoadInt64(&g.calls), "one look for a view that is fresh all the time")
}

func TestBreaker_aViewIsRefreshedInTime(t *testing.T) {
	server := redistest.Start(t)
	g := newGateway(t, server.Addr())
	policy := NewPolicy(5, time.Minute, 2, 2, time.Minute)
	g.allow(t, policy)

	g.pass(49 * time.Millisecond)
	g.allow(t, policy)
	require.Equal(t, int64(1), atomic.LoadInt64(&g.calls))
	require.Nil(t, g.PiggybackCall(g.clock(), policy))

	g.pass(2 * time.Millisecond)
	require.NotNil(t, g.PiggybackCall(g.clock(), policy), "what goes to Redis anyway takes it along")
	g.allow(t, policy)
	require.Eventually(t, func() bool { return atomic.LoadInt64(&g.calls) == 2 }, time.Second, time.Millisecond, "beside the request")

	require.Eventually(t, func() bool { return g.PiggybackCall(g.clock(), policy) == nil }, time.Second, time.Millisecond)
	g.pass(101 * time.Millisecond)
	g.allow(t, policy)
	require.Equal(t, int64(3), atomic.LoadInt64(&g.calls), "before the request goes on")
}

// A crowd that finds the view too old takes one look at Redis. Who has less time than whoever takes it does not wait for that one.
func TestBreaker_aCrowdTakesOneLook(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(5, time.Minute, 2, 2, time.Minute)
	for _, row := range []struct {
		name     string
		patience time.Duration // of all but the first, who has 3 s
		looks    int64
	}{
		{"as much time", 4 * time.Second, 1},
		{"less", 2 * time.Second, 2},
	} {
		g := newGateway(t, server.Addr())
		g.allow(t, policy)
		g.pass(101 * time.Millisecond)
		before := atomic.LoadInt64(&g.calls)
		g.held = make(chan struct{})
		late := time.Now()
		var failed int64
		var under, done sync.WaitGroup
		ask := func(patience time.Duration) {
			defer done.Done()
			under.Done()
			if _, wait, err := g.Allow(policy, false, g.clock(), late.Add(patience)); err != nil || wait != 0 {
				atomic.AddInt64(&failed, 1)
			}
		}
		under.Add(1)
		done.Add(1)
		go ask(3 * time.Second)
		require.Eventually(t, func() bool { return atomic.LoadInt64(&g.calls) == before+1 }, time.Second, time.Millisecond, row.name)
		under.Add(20)
		done.Add(20)
		for i := 0; i < 20; i++ {
			go ask(row.patience)
		}
		under.Wait()
		time.Sleep(20 * time.Millisecond) // and they have come as far as they come
		close(g.held)
		done.Wait()
		require.Zero(t, failed, row.name)
		require.Equal(t, row.looks, atomic.LoadInt64(&g.calls)-before, row.name)
	}
}

// A request may have been slower on its way than the refresh that another has made since.
func TestBreaker_theViewIsOpenOnlyWhileTheCircuitIs(t *testing.T) {
	server := redistest.Start(t)
	g := newGateway(t, server.Addr())
	policy := NewPolicy(2, time.Minute, 1, 1, time.Hour)
	early := g.clock()
	step := func(state string) {
		t.Helper()
		g.Mu.Lock()
		defer g.Mu.Unlock()
		require.Equal(t, state == "open", g.View.Open > early, state)
	}
	permit, _ := g.allow(t, policy)
	step("closed")
	g.done(permit, Failure, policy)
	step("closed, with a failure")
	g.done(permit, Failure, policy)
	step("open")
	g.pass(time.Minute)
	server.Do("HSET", key, "deadline", 1)
	early = g.clock()
	permit, _ = g.allow(t, policy)
	step("half-open")
	g.done(permit, Success, policy)
	step("closed again")
}

func TestBreaker_openForOneIsOpenForAll(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, time.Hour, 2, 2, time.Minute)
	one, idle, busy := newGateway(t, server.Addr()), newGateway(t, server.Addr()), newGateway(t, server.Addr())
	busy.allow(t, policy)
	one.open(t, policy)

	_, wait := one.allow(t, policy)
	require.InDelta(t, time.Hour.Seconds(), wait.Seconds(), 5, "at once for the one that opened it")
	_, wait = idle.allow(t, policy)
	require.InDelta(t, time.Hour.Seconds(), wait.Seconds(), 5, "at its first request for one that was idle")
	busy.pass(101 * time.Millisecond)
	_, wait = busy.allow(t, policy)
	require.InDelta(t, time.Hour.Seconds(), wait.Seconds(), 5, "within 100 ms for one that was busy")

	calls := atomic.LoadInt64(&idle.calls)
	for i := 0; i < 100; i++ {
		idle.allow(t, policy)
	}
	require.Equal(t, calls, atomic.LoadInt64(&idle.calls), "an open circuit asks nobody")
	require.Equal(t, []string{"closed to open"}, one.said())
	require.Equal(t, []string{"closed to open"}, idle.said())
}

func TestBreaker_failuresOfAllGatewaysCountTogether(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(4, time.Hour, 2, 2, time.Minute)
	one, two := newGateway(t, server.Addr()), newGateway(t, server.Addr())
	for i := 0; i < 2; i++ {
		for _, g := range []*gateway{one, two} {
			permit, wait := g.allow(t, policy)
			require.Equal(t, time.Duration(0), wait)
			g.done(permit, Failure, policy)
		}
	}
	require.Equal(t, "open", server.Hash(key)["state"])
}

func TestBreaker_aSuccessIsSentOnlyWhereThereAreFailures(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server.Addr())
	for i := 0; i < 2; i++ {
		permit, _ := g.allow(t, policy)
		g.done(permit, Failure, policy)
	}
	require.Equal(t, "2", server.Hash(key)["failures"])
	permit, _ := g.allow(t, policy)
	g.done(permit, Success, policy)
	require.Equal(t, "0", server.Hash(key)["failures"])
	calls := atomic.LoadInt64(&g.calls)
	permit, _ = g.allow(t, policy)
	g.done(permit, Success, policy)
	require.Equal(t, calls, atomic.LoadInt64(&g.calls))
}

func TestBreaker_probesOfAllGatewaysCountTogether(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 10*time.Millisecond, 3, 2, time.Minute)
	gateways := []*gateway{newGateway(t, server.Addr()), newGateway(t, server.Addr()), newGateway(t, server.Addr())}
	gateways[0].open(t, policy)
	time.Sleep(20 * time.Millisecond)
	for _, g := range gateways {
		g.pass(time.Second)
	}

	var probes []Permit
	for _, g := range gateways {
		permit, wait := g.allow(t, policy)
		if wait > 0 {
			require.Equal(t, time.Second, wait)
			continue
		}
		require.True(t, permit.Probe())
		probes = append(probes, permit)
	}
	require.Len(t, probes, 2)

	calls := atomic.LoadInt64(&gateways[2].calls)
	_, wait := gateways[2].allow(t, policy)
	require.Equal(t, time.Second, wait)
	require.Equal(t, calls, atomic.LoadInt64(&gateways[2].calls), "that there is no place is remembered")

	gateways[0].done(probes[0], Success, policy)
	gateways[1].done(probes[1], Success, policy)
	gateways[2].pass(51 * time.Millisecond)
	third, wait := gateways[2].allow(t, policy)
	require.Equal(t, time.Duration(0), wait)
	gateways[2].done(third, Success, policy)
	require.Equal(t, "closed", server.Hash(key)["state"])
	require.Equal(t, []string{"closed to open", "open to half-open", "half-open to closed"}, append(gateways[0].said(), "half-open to closed"))
}

func TestBreaker_theFirstRequestOfAnIdleGatewayMayBeAProbe(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 10*time.Millisecond, 1, 1, time.Minute)
	one, idle := newGateway(t, server.Addr()), newGateway(t, server.Addr())
	one.open(t, policy)
	time.Sleep(20 * time.Millisecond)
	probe, wait := idle.allow(t, policy)
	require.Equal(t, time.Duration(0), wait)
	require.True(t, probe.Probe())
}

func TestBreaker_aLateAnswerCountsForNothing(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 10*time.Millisecond, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	late, _ := g.allow(t, policy)
	g.open(t, policy)
	time.Sleep(20 * time.Millisecond)
	g.pass(time.Second)
	probe, _ := g.allow(t, policy)
	require.True(t, probe.Probe())
	g.done(probe, Success, policy)
	require.Equal(t, "closed", server.Hash(key)["state"])

	g.done(late, Failure, policy)
	require.Equal(t, "closed", server.Hash(key)["state"])
}

func TestBreaker_anOpenCircuitStaysOpenThroughTheLossOfRedis(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	g.open(t, policy)
	server.Kill()

	_, wait := g.allow(t, policy)
	require.InDelta(t, 60, wait.Seconds(), 1)
	g.pass(61 * time.Second)
	_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(time.Second))
	require.ErrorIs(t, err, store.ErrUnavailable)
	probe, wait := g.AllowLocal(policy, false, g.clock())
	require.Equal(t, time.Duration(0), wait)
	require.True(t, probe.Probe(), "this process goes on from there")
	_, wait = g.AllowLocal(policy, false, g.clock())
	require.Equal(t, time.Second, wait)
	g.done(probe, Success, policy)
	permit, wait := g.AllowLocal(policy, false, g.clock())
	require.Equal(t, time.Duration(0), wait)
	require.False(t, permit.Probe())
	require.Equal(t, []string{"closed to open", "open to half-open", "half-open to closed"}, g.said())
}

func TestBreaker_whenRedisIsBackItRules(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	g.allow(t, policy)
	server.Kill()
	g.pass(time.Second)
	_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(time.Second))
	require.ErrorIs(t, err, store.ErrUnavailable)

	for i := 0; i < 2; i++ {
		permit, wait := g.AllowLocal(policy, false, g.clock())
		require.Equal(t, time.Duration(0), wait)
		g.done(permit, Failure, policy)
	}
	inFlight := Permit{generation: g.machine.generation, local: true, counts: true}
	_, refused := g.MustRefuse(false, g.clock())
	require.True(t, refused, "the failures seen here have opened it here")

	server.Run()
	require.Eventually(t, func() bool { return !g.IsUnavailable() }, 2*time.Second, 5*time.Millisecond)
	_, refused = g.MustRefuse(false, g.clock())
	require.False(t, refused)
	_, wait := g.allow(t, policy)
	require.Equal(t, time.Duration(0), wait)
	calls := atomic.LoadInt64(&g.calls)
	g.done(inFlight, Failure, policy)
	require.Equal(t, calls, atomic.LoadInt64(&g.calls), "local outcomes are not reported")
	require.Equal(t, []string{"closed to open", "open to closed"}, g.said())
}

func TestBreaker_aKeyOfSomebodyElsesIsLeftAlone(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", key, "x")
	policy := NewPolicy(2, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(time.Second))
	require.ErrorContains(t, err, "WRONGTYPE")
	require.False(t, g.IsUnavailable(), "it is one key, not Redis")
	require.Equal(t, "x", server.Text("GET", key))
}

func TestBreaker_withoutPatienceTheReportGoesBeside(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	permit, _ := g.allow(t, policy)
	g.Done(permit, Failure, policy, time.Millisecond)
	require.Eventually(t, func() bool { return server.Hash(key)["state"] == "open" }, 2*time.Second, 5*time.Millisecond)
}

func TestBreaker_inThisProcessAlone(t *testing.T) {
	now := int64(0)
	b := New(Settings{Now: func() int64 { return now }})
	policy := NewPolicy(2, 30*time.Second, 1, 1, 10*time.Second)
	for i := 0; i < 2; i++ {
		permit, wait, err := b.Allow(policy, false, now, time.Time{})
		require.NoError(t, err)
		require.Equal(t, time.Duration(0), wait)
		b.Done(permit, Failure, policy, 0)
	}
	wait, refused := b.MustRefuse(false, now)
	require.True(t, refused)
	require.Equal(t, 30*time.Second, wait)
	now += 30 * second
	_, refused = b.MustRefuse(false, now)
	require.False(t, refused)
	probe, wait, err := b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Equal(t, time.Duration(0), wait)
	require.True(t, probe.Probe())
	_, wait, err = b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Equal(t, time.Second, wait)
	b.Done(probe, Success, policy, 0)
	permit, wait, err := b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Equal(t, time.Duration(0), wait)
	require.False(t, permit.Probe())
}
