package breaker

import (
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestForce(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 30*time.Second, 1, 1, 10*time.Second)
	passes := event{name: "let through", do: permitStep, state: "closed"}
	open := event{name: "opened by hand", do: forceStep, force: forcedOpen, length: 600 * second, state: "open", wait: 600 * second}
	closed := event{name: "closed by hand", do: forceStep, force: forcedClosed, length: 600 * second, state: "closed", wait: 600 * second}
	for _, row := range []struct {
		name   string
		events []event
	}{
		{"open: no probe passes until the time is over", []event{passes, open,
			{name: "past the resetTimeout", at: 31 * second, do: permitStep, state: "open", wait: 569 * second},
			{name: "then a probe", at: 600 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "which closes it", at: 601 * second, do: reportStep, of: -1, succeeded: true, state: "closed"},
		}},
		{"open: what passed before does not count", []event{passes, open,
			{name: "a success", at: second, do: reportStep, of: 0, succeeded: true, state: "open", wait: 599 * second},
		}},
		{"closed: failures do not open it until the time is over", []event{passes, closed,
			{name: "let through", at: second, do: permitStep, state: "closed", wait: 599 * second},
			{name: "failed", at: 2 * second, do: reportStep, of: 2, failed: 5, state: "closed", wait: 598 * second},
			{name: "over", at: 600 * second, do: viewStep, state: "closed"},
			{name: "failed", at: 601 * second, do: reportStep, of: 2, failed: 1, state: "open", wait: 30 * second},
		}},
		{"closed: an open circuit", []event{passes,
			{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
			closed,
			{name: "let through", at: second, do: permitStep, state: "closed", wait: 599 * second},
		}},
		{"the other way, by hand", []event{passes, open, closed}},
		{"the end of open: the next request is a probe", []event{passes, open,
			{name: "automatic", at: second, do: forceStep, length: second, state: "open"},
			{name: "a probe", at: second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"the end of closed: failures count", []event{passes, closed,
			{name: "automatic", at: second, do: forceStep, length: second, state: "closed"},
			{name: "failed", at: 2 * second, do: reportStep, of: -1, failed: 1, state: "open", wait: 30 * second},
		}},
		{"an end without a beginning", []event{passes, {name: "automatic", do: forceStep, length: second, state: "closed"}}},
		{"a clock set back cuts it to its length", []event{passes, open,
			{name: "an hour back", at: -3600 * second, do: viewStep, state: "open", wait: 600 * second},
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) { walk(t, server, policy, row.events) })
	}
}

func soon() time.Time { return time.Now().Add(2 * time.Second) }

// What an operator does on one gateway holds for all, for those that start later, and while Redis is unavailable.
func TestForce_isTheFleets(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Second)
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	two.admit(t, policy)
	require.NoError(t, one.ForceOpen(time.Hour, strings.Repeat("maintenance ", 50), policy, soon()))
	require.Len(t, field(server, "reason"), 200)
	two.advance(100 * time.Millisecond)
	_, retryAfter := two.request(t, policy)
	require.InDelta(t, time.Hour.Seconds(), retryAfter.Seconds(), 5)
	later := newGateway(t, server)
	_, retryAfter = later.request(t, policy)
	require.InDelta(t, time.Hour.Seconds(), retryAfter.Seconds(), 5)
	state, left := two.Forced()
	require.Equal(t, "open", state)
	require.InDelta(t, time.Hour.Seconds(), left.Seconds(), 5)

	require.NoError(t, one.ForceClosed(time.Hour, "it works", policy, soon()))
	require.Equal(t, "it works", field(server, "reason"))
	one.fail(t, policy, 5)
	require.Equal(t, "closed", field(server, "state"))
	server.Kill()
	one.noteUnavailable(t, policy)
	permit, _ := one.AllowLocal(policy, false, one.clock())
	one.report(permit, Failure, policy)
	require.Zero(t, one.refusedFor(), "it stays closed by hand")
}

// A gateway that refuses all requests follows within 100 ms if the circuit is closed by hand.
func TestForce_aGatewayThatRefusesFollowsSoon(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Hour, 1, 1, time.Second)
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	one.openCircuit(t, policy)
	two.request(t, policy)
	notice := two.OpenNotice(two.clock())
	require.NotNil(t, notice)
	two.RecheckWhile(notice, policy)
	before := two.callCount()
	require.NoError(t, one.ForceClosed(time.Hour, "", policy, soon()))
	require.Eventually(t, func() bool { return two.refusedFor() == 0 }, patience, time.Millisecond)
	require.LessOrEqual(t, two.callCount(), before+2)
	require.Len(t, notice.Holds, 0)
	require.Eventually(t, func() bool { return !two.isRechecking() }, patience, time.Millisecond, "nobody is refused any more")
}

func (g *gateway) isRechecking() bool {
	g.Mu.Lock()
	defer g.Mu.Unlock()
	return g.rechecking
}

// A Redis that has lost its data gets back what was made by hand.
func TestForce_isWrittenBack(t *testing.T) {
	for _, state := range []string{"open", "closed"} {
		state := state
		t.Run(state, func(t *testing.T) {
			server := redistest.Start(t)
			policy := NewPolicy(1, time.Minute, 1, 1, time.Second)
			g := newGateway(t, server)
			g.admit(t, policy)
			if state == "open" {
				require.NoError(t, g.ForceOpen(time.Hour, "", policy, soon()))
			} else {
				require.NoError(t, g.ForceClosed(time.Hour, "", policy, soon()))
			}
			server.Restart()
			require.Eventually(t, func() bool {
				g.advance(time.Second)
				g.RecheckOpen(g.clock(), policy)
				g.RefreshIfStale(g.clock(), policy)
				return field(server, "forced") == state
			}, patience, 5*time.Millisecond)
			require.Equal(t, state, field(server, "state"))
			require.Equal(t, "written back after a loss of data", field(server, "reason"))
		})
	}
}

// A Redis that comes back with what it held earlier gets back what was made by hand since, whatever the state was.
func TestForce_isWrittenBackOverAnOlderState(t *testing.T) {
	policy := NewPolicy(1, time.Hour, 2, 1, time.Minute)
	for _, row := range []struct {
		before, forced string
	}{
		{"closed", "open"}, {"open", "open"}, {"half-open", "open"}, {"closed", "closed"}, {"open", "closed"}, {"half-open", "closed"},
	} {
		row := row
		t.Run(row.forced+" over "+row.before, func(t *testing.T) {
			server := redistest.Start(t)
			g := newGateway(t, server)
			g.admit(t, policy)
			if row.before != "closed" {
				g.openCircuit(t, policy)
			}
			if row.before == "half-open" {
				endResetTimeout(server, g)
				g.probe(t, policy)
			}
			require.Equal(t, row.before, field(server, "state"))
			earlier := server.Do("DUMP", key)
			force := g.ForceClosed
			if row.forced == "open" {
				force = g.ForceOpen
			}
			require.NoError(t, force(2*time.Hour, "maintenance", policy, soon()))
			server.Kill()
			server.Run()
			server.Do("RESTORE", key, 0, earlier)
			require.Eventually(t, func() bool {
				g.advance(time.Second)
				g.RecheckOpen(g.clock(), policy)
				g.RefreshIfStale(g.clock(), policy)
				return field(server, "forced") == row.forced
			}, patience, 5*time.Millisecond)
			require.Equal(t, row.forced, field(server, "state"))
			state, left := g.Forced()
			require.Equal(t, row.forced, state)
			require.InDelta(t, 7200, left.Seconds(), 600, "the rest of its time")
		})
	}
}

// Without Redis the same holds in this process.
func TestForce_withoutRedis(t *testing.T) {
	now := 1000 * second
	b := New(Settings{Now: func() int64 { return now }})
	policy := NewPolicy(1, time.Minute, 1, 1, time.Second)
	require.NoError(t, b.ForceOpen(time.Hour, "", policy, soon()))
	retryAfter, refused := b.MustRefuse(false, now)
	require.True(t, refused)
	require.Equal(t, time.Hour, retryAfter)
	require.NoError(t, b.EndForce(policy, soon()))
	permit, _ := b.AllowLocal(policy, false, now)
	require.True(t, permit.Probe())
	require.NoError(t, b.ForceClosed(time.Hour, "", policy, soon()))
	permit, _ = b.AllowLocal(policy, false, now)
	b.Done(permit, Failure, policy, 0)
	require.False(t, b.Probing())
	now += 3600 * second
	permit, _ = b.AllowLocal(policy, false, now)
	b.Done(permit, Failure, policy, 0)
	require.True(t, b.Probing())
}
