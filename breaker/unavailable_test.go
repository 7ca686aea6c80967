package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

func TestUnavailable_theMachineGoesOnFromTheLastView(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	g.openCircuit(t, policy)
	server.Kill()

	require.InDelta(t, 60, g.refusedFor().Seconds(), 1, "still open")
	g.advance(60 * time.Second)
	g.noteUnavailable(t, policy)
	probe, retryAfter := g.AllowLocal(policy, false, g.clock())
	require.Zero(t, retryAfter)
	require.True(t, probe.Probe())
	_, retryAfter = g.AllowLocal(policy, false, g.clock())
	require.Equal(t, time.Second, retryAfter, "there is one place")
	g.report(probe, Success, policy)
	permit, retryAfter := g.AllowLocal(policy, false, g.clock())
	require.Zero(t, retryAfter)
	require.False(t, permit.Probe())
	require.Equal(t, []string{"closed to open", "open to half-open", "half-open to closed"}, g.changesSeen())
}

func TestUnavailable_redisReplacesWhatTheMachineDecided(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	g.admit(t, policy)
	server.Kill()
	g.noteUnavailable(t, policy)

	for i := 0; i < 2; i++ {
		permit, retryAfter := g.AllowLocal(policy, false, g.clock())
		require.Zero(t, retryAfter)
		g.report(permit, Failure, policy)
	}
	local := Permit{generation: g.machine.generation, local: true, counts: true}
	require.NotZero(t, g.refusedFor(), "the failures seen here have opened the circuit here")

	server.Run()
	g.awaitAvailable(t)
	require.Zero(t, g.refusedFor())
	g.admit(t, policy)
	calls := g.callCount()
	g.report(local, Failure, policy)
	require.Equal(t, calls, g.callCount(), "outcomes of local permits are not reported")
	require.Equal(t, []string{"closed to open", "open to closed"}, g.changesSeen())
}

func TestAllow_leavesAForeignKeyAlone(t *testing.T) {
	server := redistest.Start(t)
	server.Do("SET", key, "x")
	g := newGateway(t, server)
	_, _, err := g.Allow(NewPolicy(2, time.Minute, 1, 1, time.Minute), false, g.clock(), time.Now().Add(time.Second))
	require.ErrorContains(t, err, "WRONGTYPE")
	require.False(t, g.IsUnavailable(), "one key is wrong, not Redis")
	require.Equal(t, "x", server.Text("GET", key))
}

func TestLastKnown_decidesForARequestThatRedisDidNotAnswer(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	_, _, known := g.LastKnown(g.clock())
	require.False(t, known, "Redis has said nothing yet")
	for _, step := range []struct {
		name       string
		do         func()
		passes     bool
		retryAfter time.Duration
	}{
		{"closed", func() { g.admit(t, policy) }, true, 0},
		{"open", func() { g.openCircuit(t, policy) }, false, time.Minute},
		{"open, past its deadline", func() { g.advance(time.Hour) }, false, time.Second},
	} {
		step.do()
		permit, retryAfter, known := g.LastKnown(g.clock())
		require.True(t, known, step.name)
		require.Equal(t, step.passes, permit.counts, step.name)
		require.InDelta(t, step.retryAfter.Seconds(), retryAfter.Seconds(), 0.1, step.name)
	}
	server.Kill()
	_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(time.Second))
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.Eventually(t, g.IsUnavailable, patience, time.Millisecond)
	_, _, known = g.LastKnown(g.clock())
	require.False(t, known, "Redis is unavailable")
}

func TestBreaker_withoutRedis(t *testing.T) {
	now := int64(0)
	b := New(Settings{Now: func() int64 { return now }})
	policy := NewPolicy(2, 30*time.Second, 1, 1, 10*time.Second)
	var permits []Permit
	for i, step := range []struct {
		after      time.Duration
		retryAfter time.Duration
		probe      bool
		outcome    Outcome // reported at once, unless keep
		keep       bool
		endsKept   bool // a success of the kept permit is reported first
	}{
		{outcome: Failure},
		{outcome: Failure},
		{retryAfter: 30 * time.Second},
		{after: 29 * time.Second, retryAfter: time.Second},
		{after: time.Second, probe: true, keep: true},
		{retryAfter: time.Second},
		{endsKept: true, outcome: Success},
	} {
		now += step.after.Microseconds()
		if step.endsKept {
			b.Done(permits[0], Success, policy, 0)
		}
		permit, retryAfter, err := b.Allow(policy, false, now, time.Time{})
		require.NoError(t, err, i)
		require.Equal(t, step.retryAfter, retryAfter, i)
		require.Equal(t, step.probe, permit.Probe(), i)
		if step.keep {
			permits = append(permits, permit)
		} else {
			b.Done(permit, step.outcome, policy, 0)
		}
	}
}
