package breaker

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// recheck is what a second of refused requests does.
func (g *gateway) recheck(policy *Policy) {
	g.pass(time.Second)
	g.RecheckOpen(g.clock(), policy)
}

// refuses tells for how long requests are refused without asking Redis.
func (g *gateway) refuses() time.Duration {
	wait, _ := g.MustRefuse(false, g.clock())
	return wait
}

func TestBreaker_aDeletedKeyClosesTheCircuit(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	one, two := newGateway(t, server.Addr()), newGateway(t, server.Addr())
	one.open(t, policy)
	two.allow(t, policy)
	server.Do("DEL", key)
	for _, g := range []*gateway{one, two} {
		g := g
		g.recheck(policy)
		require.Eventually(t, func() bool { return g.refuses() == 0 }, 5*time.Second, time.Millisecond)
		permit, wait := g.allow(t, policy)
		require.Equal(t, time.Duration(0), wait)
		require.False(t, permit.Probe())
	}
	require.Equal(t, "closed", server.Hash(key)["state"])
	require.Equal(t, []string{"closed to open", "open to closed"}, two.said())
}

func TestBreaker_anOpenCircuitIsLookedAtOnceASecond(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server.Addr())
	g.open(t, policy)
	before := atomic.LoadInt64(&g.calls)
	g.pass(900 * time.Millisecond)
	for i := 0; i < 100; i++ {
		g.RecheckOpen(g.clock(), policy)
	}
	require.Equal(t, before, atomic.LoadInt64(&g.calls))
	g.pass(100 * time.Millisecond)
	for i := 0; i < 100; i++ {
		g.RecheckOpen(g.clock(), policy)
	}
	require.Eventually(t, func() bool { return atomic.LoadInt64(&g.calls) == before+1 }, 5*time.Second, time.Millisecond)
	require.InDelta(t, 3600, g.refuses().Seconds(), 5)
}

// A Redis that comes back empty has lost the circuit: who knows of it writes it back.
func TestBreaker_aLostCircuitIsWrittenBack(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	one, two, idle := newGateway(t, server.Addr()), newGateway(t, server.Addr()), newGateway(t, server.Addr())
	one.open(t, policy)
	two.allow(t, policy)
	server.Kill()
	server.Run()
	_, wait := idle.allow(t, policy)
	require.Zero(t, wait, "who does not know of it passes")
	require.Equal(t, "1", server.Hash(key)["born"])

	one.pass(30 * time.Minute)
	one.recheck(policy)
	isOpen := func() bool { return server.Hash(key)["state"] == "open" }
	require.Eventually(t, isOpen, 5*time.Second, time.Millisecond)
	require.InDelta(t, 1800, one.refuses().Seconds(), 10)
	generation := server.Hash(key)["generation"]
	two.recheck(policy)
	idle.pass(time.Second)
	require.Eventually(t, func() bool {
		_, wait := idle.allow(t, policy)
		return wait > 0
	}, 5*time.Second, time.Millisecond)
	require.InDelta(t, 1800, idle.refuses().Seconds(), 10, "the rest of its time")
	require.Eventually(t, func() bool { return two.refuses() < 1900*time.Second }, 5*time.Second, time.Millisecond, "Redis rules")
	require.Equal(t, generation, server.Hash(key)["generation"], "it was written back once")
	require.Equal(t, []string{"closed to open"}, one.said())

	server.Do("DEL", key)
	one.recheck(policy)
	require.Eventually(t, func() bool { return one.refuses() == 0 }, 5*time.Second, time.Millisecond, "and can be deleted still")
}

// What has happened since the key was lost stands.
func TestScripts_aLostCircuitIsWrittenBackOverNothing(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, 30*time.Second, 1, 1, 10*time.Second)
	all := append(append([]string{}, scripts...), restoreLua)
	restoreStep := len(scripts)
	call := func(do int, at int64, args ...string) answer {
		t.Helper()
		steps := []redistest.Step{{Script: do, At: epoch + at, Keys: []string{"one"}, Args: withArgs(policy, args...)}}
		return answerOf(server.Walk(all, steps)[0])
	}
	born := call(viewStep, 0)
	require.Equal(t, int64(1), born.born)
	require.Equal(t, "closed", stateNames[call(restoreStep, 0, intArg(born.generation-1), intArg(second)).state], "another generation")

	written := call(restoreStep, 1, intArg(born.generation), intArg(20*second))
	require.Equal(t, answer{state: stateOpen, generation: born.generation + 1, wait: 20 * second}, written)
	require.Equal(t, written, call(restoreStep, 1, intArg(born.generation), intArg(29*second)), "once")

	half := call(permitStep, 21*second, "a", "0")
	require.Equal(t, int64(1), half.probe)
	closed := call(reportStep, 22*second, intArg(half.generation), "1", "1", "0", "b")
	require.Equal(t, "closed", stateNames[closed.state])
	require.Zero(t, closed.born)
	require.Equal(t, closed, call(restoreStep, 22*second, intArg(closed.generation), intArg(second)), "it was closed by a probe")

	server.Do("FLUSHALL")
	born = call(viewStep, 0)
	require.Equal(t, 30*second, call(restoreStep, 0, intArg(born.generation), intArg(3600*second)).wait, "no longer than the policy says")
}

func TestBreaker_aShorterResetTimeoutHoldsForAnOpenCircuit(t *testing.T) {
	server := redistest.Start(t)
	long, short := NewPolicy(1, time.Hour, 2, 2, time.Minute), NewPolicy(1, 10*time.Second, 2, 2, time.Minute)
	one, two := newGateway(t, server.Addr()), newGateway(t, server.Addr())
	one.open(t, long)
	two.allow(t, long)
	deadline := func() string { return server.Hash(key)["deadline"] }
	before := deadline()
	one.recheck(short)
	require.LessOrEqual(t, one.refuses(), 10*time.Second, "here at once")
	require.Eventually(t, func() bool { return deadline() != before }, 5*time.Second, time.Millisecond, "in Redis")
	two.recheck(long)
	require.Eventually(t, func() bool { return two.refuses() <= 10*time.Second }, 5*time.Second, time.Millisecond, "and elsewhere")

	now := int64(0)
	b := New(Settings{Now: func() int64 { return now }})
	permit, _ := b.AllowLocal(long, false, now)
	b.Done(permit, Failure, long, 0)
	refusal := b.OpenNotice(now)
	require.Equal(t, int64(3600), refusal.Seconds)
	b.RecheckOpen(now, short)
	require.Empty(t, refusal.Holds, "what it said is true no more")
	require.Equal(t, int64(10), b.OpenNotice(now).Seconds, "without Redis, too")
}

// A connection that died while nobody used it loses nothing, and does not mean that Redis is away.
func TestBreaker_aReportOnADeadConnectionIsNotLost(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server.Addr())
	for i := 0; i < 3; i++ {
		permit, wait := g.allow(t, policy)
		require.Equal(t, time.Duration(0), wait, i)
		server.Do("CLIENT", "KILL", "TYPE", "normal")
		g.done(permit, Failure, policy)
		require.False(t, g.IsUnavailable())
	}
	require.Equal(t, "open", server.Hash(key)["state"])
	require.NotZero(t, g.refuses())

	server.Do("HSET", key, "deadline", "1")
	g.pass(time.Hour)
	server.Do("CLIENT", "KILL", "TYPE", "normal")
	permit, wait := g.allow(t, policy)
	require.Equal(t, time.Duration(0), wait)
	require.True(t, permit.Probe())
	require.False(t, g.IsUnavailable())
	require.Equal(t, "1", server.Hash(key)["issued"])
}

// A connection more says nothing: only where one was lost may the key be.
func TestBreaker_aKeyThatIsMissingOnAnotherConnectionWasDeleted(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server.Addr())
	g.open(t, policy)
	before := g.Breaker.latestConn
	g.store = newGateway(t, server.Addr()).store // whose connections are later ones
	server.Do("DEL", key)
	g.recheck(policy)
	require.Eventually(t, func() bool { return g.refuses() == 0 }, 5*time.Second, time.Millisecond)
	g.Mu.Lock()
	require.Greater(t, g.Breaker.latestConn, before)
	g.Mu.Unlock()
	require.Equal(t, "closed", server.Hash(key)["state"])
}
