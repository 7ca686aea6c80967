package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A request says when it arrived, not under which generation it passed: the view may have changed between the two.
func TestPermitAt_countsOnlyUnderItsGeneration(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	state := func() string { return server.Hash(key)["state"] }
	// reclosed returns a gateway whose circuit has closed after it was open, and when requests arrived.
	reclosed := func(t *testing.T) (g *gateway, whileClosed, whileHalfOpen int64) {
		server.Do("FLUSHALL")
		g = newGateway(t, server)
		g.admit(t, policy)
		whileClosed = g.clock()
		require.Less(t, whileClosed, g.View.Healthy)
		g.openUntilProbe(t, server, policy)
		probe := g.probe(t, policy)
		require.True(t, probe.Probe())
		whileHalfOpen = g.clock()
		g.report(probe, Success, policy)
		require.Equal(t, "closed", state())
		return g, whileClosed, whileHalfOpen
	}
	t.Run("it arrived before the first view", func(t *testing.T) {
		server.Do("FLUSHALL")
		g := newGateway(t, server)
		arrived := g.clock()
		g.admit(t, policy)
		g.report(g.PermitAt(arrived), Failure, policy)
		require.Equal(t, "open", state())
	})
	t.Run("it arrived before the circuit closed", func(t *testing.T) {
		g, _, arrived := reclosed(t)
		g.report(g.PermitAt(arrived), Failure, policy)
		require.Equal(t, "open", state())
	})
	t.Run("it passed before the circuit opened", func(t *testing.T) {
		g, arrived, _ := reclosed(t)
		g.report(g.PermitAt(arrived), Failure, policy)
		require.Equal(t, "closed", state(), "it says nothing about the circuit since")
	})
	t.Run("it may have passed before the key was deleted", func(t *testing.T) {
		server.Do("FLUSHALL")
		g := newGateway(t, server)
		g.admit(t, policy)
		g.advance(40 * time.Millisecond)
		arrived := g.clock()
		require.Less(t, arrived, g.View.Healthy)
		server.Do("FLUSHALL")
		g.advance(100 * time.Millisecond)
		g.admit(t, policy)
		g.report(g.PermitAt(arrived), Failure, policy)
		require.Equal(t, "closed", state())
	})
	t.Run("without Redis", func(t *testing.T) {
		now := int64(second)
		b := New(Settings{Now: func() int64 { now++; return now }})
		probe := func() Permit { permit, _ := b.AllowLocal(policy, false, now); return permit }
		early := b.Now()
		b.Done(b.PermitAt(early), Failure, policy, 0)
		_, refused := b.MustRefuse(false, now)
		require.True(t, refused)
		now += time.Minute.Microseconds()
		permit := probe()
		require.True(t, permit.Probe())
		arrived := b.Now()
		b.Done(permit, Success, policy, 0)
		b.Done(b.PermitAt(early), Failure, policy, 0)
		require.False(t, b.Probing(), "it passed before the circuit opened")
		b.Done(b.PermitAt(arrived), Failure, policy, 0)
		require.True(t, b.Probing(), "it arrived before the circuit closed")
	})
}
