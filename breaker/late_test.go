package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// halfOpen opens a circuit, and lets its time pass.
func (g *gateway) halfOpen(t *testing.T, server *redistest.Server, policy *Policy) {
	g.open(t, policy)
	server.Do("HSET", key, "deadline", "1")
	g.pass(time.Hour)
}

// A permit that comes too late for its request gives its place back, and so does one whose request does not pass.
func TestAsk_whatIsNotUsedGivesItsPlaceBack(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	isFree := func() bool {
		h := server.Hash(key)
		return h["state"] == "half-open" && h["issued"] != "" && h["probe:"+h["issued"]] == ""
	}
	t.Run("too late", func(t *testing.T) {
		server.Do("FLUSHALL")
		g := newGateway(t, server.Addr())
		g.halfOpen(t, server, policy)
		g.held = make(chan struct{})
		_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(50*time.Millisecond))
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.False(t, g.IsUnavailable())
		_, wait, known := g.LastKnown(g.clock())
		require.True(t, known)
		require.Equal(t, time.Second, wait, "what Redis last said holds: open")
		close(g.held)
		require.Eventually(t, isFree, 5*time.Second, time.Millisecond)
		g.held = nil
		permit, _ := g.allow(t, policy)
		require.True(t, permit.Probe())
	})
	t.Run("not needed", func(t *testing.T) {
		server.Do("FLUSHALL")
		g := newGateway(t, server.Addr())
		g.halfOpen(t, server, policy)
		asked := g.RequestPermit(policy, false, g.clock())
		call := g.PiggybackCall(g.clock(), policy)
		require.Nil(t, g.PiggybackCall(g.clock(), policy), "it goes with one call")
		g.Run([]*store.Call{call}, time.Now().Add(time.Second))
		store.Finish(call)
		require.Equal(t, "half-open", server.Hash(key)["state"])
		require.False(t, isFree())
		g.Cancel(asked)
		require.Eventually(t, isFree, 5*time.Second, time.Millisecond)
	})
	t.Run("its request ended in a panic", func(t *testing.T) {
		server.Do("FLUSHALL")
		g := newGateway(t, server.Addr())
		g.halfOpen(t, server, policy)
		asked := g.RequestPermit(policy, false, g.clock())
		call := g.PiggybackCall(g.clock(), policy)
		g.Run([]*store.Call{call}, time.Now().Add(time.Second))
		store.Finish(call)
		g.CancelUnclaimed(asked)
		require.Eventually(t, isFree, 5*time.Second, time.Millisecond)

		asked = g.RequestPermit(policy, false, g.clock())
		permit, _, err := g.Await(asked, time.Now().Add(5*time.Second))
		require.NoError(t, err)
		g.CancelUnclaimed(asked)
		time.Sleep(20 * time.Millisecond)
		require.False(t, isFree(), "it is used")
		g.done(permit, Success, policy)
	})
	t.Run("its answer was lost", func(t *testing.T) {
		server.Do("FLUSHALL")
		g := newGateway(t, server.Addr())
		g.halfOpen(t, server, policy)
		asked := g.RequestPermit(policy, false, g.clock())
		call := g.PiggybackCall(g.clock(), policy)
		g.store.Run([]*store.Call{call}, time.Now().Add(time.Second))
		require.False(t, isFree())
		call.Err = store.ErrUnavailable // as if it had come too late
		store.Finish(call)
		_, _, err := g.Await(asked, time.Now().Add(time.Second))
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.Eventually(t, isFree, 5*time.Second, time.Millisecond)
		require.Equal(t, "1", server.Hash(key)["issued"], "it was the same place")
	})
}

// A permit goes with another call: Redis may be too slow for two, one after the other.
func TestAsk_goesWithAnotherCall(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 2, time.Minute)
	g := newGateway(t, server.Addr())
	require.Nil(t, g.RequestPermit(policy, false, g.clock()), "nothing is known yet")
	g.allow(t, policy)
	require.Nil(t, g.RequestPermit(policy, false, g.clock()), "it is closed")
	g.halfOpen(t, server, policy)

	first, second := g.RequestPermit(policy, false, g.clock()), g.RequestPermit(policy, false, g.clock())
	call := g.PiggybackCall(g.clock(), policy)
	g.Run([]*store.Call{call}, time.Now().Add(time.Second))
	store.Finish(call)
	for _, asked := range []*PermitRequest{first, second} {
		permit, wait, err := g.Await(asked, time.Now().Add(5*time.Second))
		require.NoError(t, err)
		require.Zero(t, wait)
		require.True(t, permit.Probe())
	}
	third := g.RequestPermit(policy, false, g.clock())
	_, wait, err := g.Await(third, time.Now().Add(5*time.Second))
	require.NoError(t, err)
	require.Equal(t, time.Second, wait, "there are two places")
	require.Nil(t, g.RequestPermit(policy, false, g.clock()), "which is remembered")
}

// An upload that finds no place says nothing of others.
func TestAsk_uploadsAreRememberedApart(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 2, 2, time.Minute)
	g := newGateway(t, server.Addr())
	g.halfOpen(t, server, policy)
	ask := func(upload bool) (Permit, time.Duration) {
		permit, wait, err := g.Allow(policy, upload, g.clock(), time.Now().Add(5*time.Second))
		require.NoError(t, err)
		return permit, wait
	}
	upload, _ := ask(true)
	require.True(t, upload.Upload())
	_, wait := ask(true)
	require.Equal(t, time.Second, wait)
	_, refused := g.MustRefuse(true, g.clock())
	require.True(t, refused)
	_, refused = g.MustRefuse(false, g.clock())
	require.False(t, refused)
	other, _ := ask(false)
	require.True(t, other.Probe())
	require.False(t, other.Upload())

	require.False(t, g.BodyLate(upload, policy))
	g.pass(time.Minute)
	require.True(t, g.BodyLate(upload, policy))
}

// What nobody decided on, as Redis was away, counts when it is back.
func TestBreaker_whatRedisCouldNotBeToldOfIsToldLater(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	policy := NewPolicy(3, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	require.Equal(t, Permit{}, g.UnaskedPermit(), "nothing is known yet")
	permit, _ := g.allow(t, policy)
	g.done(permit, Failure, policy)

	server.Kill()
	g.pass(time.Second)
	_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(time.Second))
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.Eventually(t, g.IsUnavailable, 5*time.Second, time.Millisecond)
	for _, outcome := range []Outcome{Failure, Success, Failure, Unknown, Failure} {
		g.done(g.UnaskedPermit(), outcome, policy)
	}
	_, refused := g.MustRefuse(false, g.clock())
	require.False(t, refused, "it does not break while Redis is away")
	server.Run()
	require.Eventually(t, func() bool { return !g.IsUnavailable() }, 5*time.Second, time.Millisecond)
	permit, _ = g.allow(t, policy)
	failures := func() string { return server.Hash(key)["failures"] }
	require.Eventually(t, func() bool { return failures() == "2" }, 5*time.Second, time.Millisecond, "since the last success")
	g.done(permit, Failure, policy)
	require.Equal(t, "open", server.Hash(key)["state"])
}

// A probe whose verdict Redis cannot be told of holds its place until it can.
func TestBreaker_theVerdictOfAProbeIsToldWhenRedisIsBack(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server.Addr())
	g.halfOpen(t, server, policy)
	permit, _ := g.allow(t, policy)
	require.True(t, permit.Probe())
	server.Kill()
	g.done(permit, Success, policy)
	server.Run()
	require.Equal(t, "half-open", server.Hash(key)["state"])
	require.Eventually(t, func() bool { return server.Hash(key)["state"] == "closed" }, 5*time.Second, 5*time.Millisecond)
}
