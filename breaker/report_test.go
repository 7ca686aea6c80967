package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestDone_reportsASuccessOnlyAfterFailures(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server)
	for _, step := range []struct {
		outcome  Outcome
		reported bool
		failures string
	}{
		{Failure, true, "1"},
		{Failure, true, "2"},
		{Success, true, "0"},
		{Success, false, "0"},
		{Unknown, false, "0"},
	} {
		permit := g.admit(t, policy)
		before := g.callCount()
		g.report(permit, step.outcome, policy)
		require.Equal(t, step.reported, g.callCount() > before)
		require.Equal(t, step.failures, field(server, "failures"))
	}
}

func TestDone_ignoresOutcomesOfAnEarlierGeneration(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	early := g.admit(t, policy)
	g.openUntilProbe(t, server, policy)
	g.report(g.probe(t, policy), Success, policy)
	require.Equal(t, "closed", field(server, "state"))

	g.report(early, Failure, policy)
	require.Equal(t, "closed", field(server, "state"))
}

func TestDone_withoutABudgetReportsInTheBackground(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	permit := g.admit(t, policy)
	g.block = make(chan struct{})
	g.Done(permit, Failure, policy, time.Millisecond) // returns, though calls wait
	close(g.block)
	awaitField(t, server, "state", "open")
}

// A connection that died idle loses no report, and does not make Redis unavailable.
func TestDone_survivesADeadConnection(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, time.Hour, 2, 2, time.Minute)
	g := newGateway(t, server)
	for i := 0; i < 3; i++ {
		permit := g.admit(t, policy)
		server.Do("CLIENT", "KILL", "TYPE", "normal")
		g.report(permit, Failure, policy)
		require.False(t, g.IsUnavailable())
	}
	require.Equal(t, "open", field(server, "state"))
	require.NotZero(t, g.refusedFor())

	endResetTimeout(server, g)
	server.Do("CLIENT", "KILL", "TYPE", "normal")
	g.probe(t, policy)
	require.False(t, g.IsUnavailable())
	require.Equal(t, "1", field(server, "issued"))
}

// A probe whose outcome Redis cannot be told holds its place until it can.
func TestDone_repeatsTheReportOfAProbeUntilRedisIsBack(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	g.openUntilProbe(t, server, policy)
	probe := g.probe(t, policy)
	server.Kill()
	g.report(probe, Success, policy)
	server.Run()
	awaitField(t, server, "state", "closed")
}

func TestUnaskedPermit_failuresAreReportedWhenRedisIsBack(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	policy := NewPolicy(3, time.Minute, 1, 1, time.Minute)
	g := newGateway(t, server)
	require.Equal(t, Permit{}, g.UnaskedPermit(), "nothing is known yet")
	g.fail(t, policy, 1)

	server.Kill()
	g.noteUnavailable(t, policy)
	for _, outcome := range []Outcome{Failure, Success, Failure, Unknown, Failure} {
		g.report(g.UnaskedPermit(), outcome, policy)
	}
	_, refused := g.MustRefuse(false, g.clock())
	require.False(t, refused, "they do not open the circuit while Redis is unavailable")

	server.Run()
	g.awaitAvailable(t)
	permit := g.admit(t, policy)
	awaitField(t, server, "failures", "2") // since the last success
	g.report(permit, Failure, policy)
	require.Equal(t, "open", field(server, "state"))
}
