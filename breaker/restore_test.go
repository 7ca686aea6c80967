package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRecheck_aDeletedKeyClosesTheCircuit(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	gateways := newGateways(t, server, 2)
	gateways[0].openCircuit(t, policy)
	gateways[1].request(t, policy)
	server.Do("DEL", key)
	for _, g := range gateways {
		g := g
		g.recheck(policy)
		require.Eventually(t, func() bool { return g.refusedFor() == 0 }, patience, time.Millisecond)
		require.False(t, g.admit(t, policy).Probe())
	}
	require.Equal(t, "closed", field(server, "state"))
	require.Equal(t, []string{"closed to open", "open to closed"}, gateways[1].changesSeen())
}

// requestedLast returns when the state was last asked for.
func (g *gateway) requestedLast() int64 {
	g.Mu.Lock()
	defer g.Mu.Unlock()
	return g.requestedAt
}

func TestRecheck_asksEverySeventyFiveMilliseconds(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server)
	g.openCircuit(t, policy)
	before := g.callCount()
	begun := g.requestedLast()
	for _, step := range []struct {
		after time.Duration
		calls int64
	}{
		{recheckEvery * time.Microsecond / 2, 0},
		{recheckEvery * time.Microsecond / 2, 1},
	} {
		begun += step.after.Microseconds()
		for i := 0; i < 100; i++ {
			g.RecheckOpen(begun, policy)
		}
		require.Eventually(t, func() bool { return g.callCount() == before+step.calls }, patience, time.Millisecond)
	}
	require.InDelta(t, 3600, g.refusedFor().Seconds(), 5)
}

func TestRecheck_aShorterResetTimeoutHoldsForAnOpenCircuit(t *testing.T) {
	server := redistest.Start(t)
	long, short := NewPolicy(1, time.Hour, 2, 2, time.Minute), NewPolicy(1, 10*time.Second, 2, 2, time.Minute)
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	one.openCircuit(t, long)
	two.request(t, long)
	before := field(server, "deadline")
	one.recheck(short)
	require.LessOrEqual(t, one.refusedFor(), 10*time.Second, "at once here")
	require.Eventually(t, func() bool { return field(server, "deadline") != before }, patience, time.Millisecond, "in Redis")
	two.recheck(long)
	require.Eventually(t, func() bool { return two.refusedFor() <= 10*time.Second }, patience, time.Millisecond, "and elsewhere")
}

func TestRecheck_aShorterResetTimeoutHoldsWithoutRedis(t *testing.T) {
	now := int64(0)
	b := New(Settings{Now: func() int64 { return now }})
	long, short := NewPolicy(1, time.Hour, 2, 2, time.Minute), NewPolicy(1, 10*time.Second, 2, 2, time.Minute)
	permit, _ := b.AllowLocal(long, false, now)
	b.Done(permit, Failure, long, 0)
	notice := b.OpenNotice(now)
	require.Equal(t, int64(3600), notice.Seconds)
	b.RecheckOpen(now, short)
	require.Empty(t, notice.Holds, "it does not hold any more")
	require.Equal(t, int64(10), b.OpenNotice(now).Seconds)
}

// A Redis that comes back empty has lost the circuit: a gateway that knows of it writes it back.
func TestRestore_writesALostCircuitBack(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	gateways := newGateways(t, server, 3)
	one, two, unaware := gateways[0], gateways[1], gateways[2]
	one.openCircuit(t, policy)
	two.request(t, policy)
	server.Kill()
	server.Run()
	unaware.admit(t, policy)
	require.Equal(t, "1", field(server, "born"))

	one.advance(30 * time.Minute)
	one.recheck(policy)
	awaitField(t, server, "state", "open")
	require.InDelta(t, 1800, one.refusedFor().Seconds(), 10, "the rest of its time")
	generation := field(server, "generation")
	two.recheck(policy)
	unaware.advance(time.Second)
	require.Eventually(t, func() bool {
		_, retryAfter := unaware.request(t, policy)
		return retryAfter > 0
	}, patience, time.Millisecond)
	require.InDelta(t, 1800, unaware.refusedFor().Seconds(), 10)
	require.Eventually(t, func() bool { return two.refusedFor() < 1900*time.Second }, patience, time.Millisecond, "Redis's state counts")
	require.Equal(t, generation, field(server, "generation"), "it was written back once")
	require.Equal(t, []string{"closed to open"}, one.changesSeen())

	server.Do("DEL", key)
	one.recheck(policy)
	require.Eventually(t, func() bool { return one.refusedFor() == 0 }, patience, time.Millisecond, "it can still be deleted")
}

// A replica that lagged has become the master: it holds the circuit as it was before it opened.
func TestRestore_overACircuitFromBeforeTheOpening(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	gateways := newGateways(t, server, 2)
	one, unaware := gateways[0], gateways[1]
	one.request(t, policy)
	earlier := server.Do("DUMP", key)
	one.openCircuit(t, policy)
	server.Kill()
	server.Run()
	server.Do("RESTORE", key, 0, earlier)
	require.Equal(t, "closed", field(server, "state"))
	unaware.request(t, policy)

	one.advance(30 * time.Minute)
	one.recheck(policy)
	awaitField(t, server, "state", "open")
	require.InDelta(t, 1800, one.refusedFor().Seconds(), 10, "the rest of its time")
	require.Equal(t, []string{"closed to open"}, one.changesSeen())
	unaware.advance(time.Second)
	require.Eventually(t, func() bool {
		_, retryAfter := unaware.request(t, policy)
		return retryAfter > 0
	}, patience, time.Millisecond)
}

// What others did after the opening counts: they have closed the circuit.
func TestRestore_notOverALaterCircuit(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	policy := NewPolicy(1, time.Hour, 1, 1, time.Minute)
	g := newGateway(t, server)
	g.openCircuit(t, policy)
	server.Restart()
	server.Do("HINCRBY", key, "generation", 1)
	server.Do("HSET", key, "state", "closed")
	g.recheck(policy)
	require.Eventually(t, func() bool { return g.refusedFor() == 0 }, patience, time.Millisecond)
	require.Equal(t, "closed", field(server, "state"))
}

// A later connection alone says nothing: the key can be lost only if a connection was.
func TestRestore_notOnALaterConnectionAlone(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server)
	g.openCircuit(t, policy)
	before := g.latestConn
	g.store = newGateway(t, server).store // its connections are later ones
	server.Do("DEL", key)
	g.recheck(policy)
	require.Eventually(t, func() bool { return g.refusedFor() == 0 }, patience, time.Millisecond)
	g.Mu.Lock()
	defer g.Mu.Unlock()
	require.Greater(t, g.latestConn, before)
	require.Equal(t, "closed", field(server, "state"))
}
