package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestMinGateways(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, 30*time.Second, 1, 1, 10*time.Second).With(Rules{MinGateways: 2})
	passes := event{name: "let through", do: permitStep, state: "closed"}
	fails := func(gateway string, at int64, state string) event {
		e := event{name: gateway, at: at, do: reportStep, failed: 1, gateway: gateway, state: state}
		if state == "open" {
			e.wait = 30 * second
		}
		return e
	}
	for _, row := range []struct {
		name   string
		events []event
	}{
		{"one alone does not open it", []event{passes, fails("a", 0, "closed"), fails("a", second, "closed"), fails("a", 2*second, "closed")}},
		{"the second one does", []event{passes, fails("a", 0, "closed"), fails("a", second, "closed"), fails("b", 2*second, "open")}},
		{"if the first was lately", []event{passes, fails("a", 0, "closed"), fails("b", 61*second, "closed"), fails("a", 62*second, "open")}},
		{"a success resets the count, not the gateways", []event{passes,
			fails("a", 0, "closed"),
			{name: "a success", at: second, do: reportStep, succeeded: true, gateway: "b", state: "closed"},
			fails("b", 2*second, "closed"),
			fails("b", 3*second, "open"),
		}},
		{"a clock set back forgets those of the future", []event{passes, fails("a", 0, "closed"), fails("b", -3600*second, "closed"), fails("a", -3600*second, "open")}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) { walk(t, server, policy, row.events) })
	}
	ratio := NewPolicy(0, 30*time.Second, 1, 1, 10*time.Second).With(Rules{MinGateways: 2, FailureRatio: 50, Window: 10 * time.Second, MinimumRequests: 4})
	t.Run("ratios", func(t *testing.T) {
		walk(t, server, ratio, []event{passes,
			{name: "all of one", do: reportStep, outcomes: "ffffff", gateway: "a", state: "closed"},
			{name: "successes of another", at: second, do: reportStep, outcomes: "ss", gateway: "b", state: "closed"},
			{name: "a failure of another", at: second, do: reportStep, outcomes: "sf", gateway: "b", state: "open", wait: 30 * second},
		})
	})
	slow := NewPolicy(0, 30*time.Second, 1, 1, 10*time.Second).With(Rules{MinGateways: 2, SlowRatio: 50, Window: 10 * time.Second, MinimumRequests: 4})
	t.Run("slow answers", func(t *testing.T) {
		walk(t, server, slow, []event{passes,
			{name: "all of one", do: reportStep, outcomes: "SSSSSS", gateway: "a", state: "closed"},
			{name: "fast ones of another", at: second, do: reportStep, outcomes: "ss", gateway: "b", state: "closed"},
			{name: "a slow one of another", at: second, do: reportStep, outcomes: "sS", gateway: "b", state: "open", wait: 30 * second},
		})
	})
	t.Run("slow answers without a slowRatio", func(t *testing.T) {
		walk(t, server, ratio, []event{passes,
			{name: "failures of one", do: reportStep, outcomes: "ffffff", gateway: "a", state: "closed"},
			{name: "a slow one of another", at: second, do: reportStep, outcomes: "sS", gateway: "b", state: "closed"},
		})
	})
}

// A circuit that has opened for the fleet opens again only if enough gateways fail, too: the probes of one with a broken network, and its
// requests in a ramp, do not keep it open for all.
func TestMinGateways_opensAgain(t *testing.T) {
	server := redistest.Start(t)
	const reset, ramp = 30 * second, 20 * second
	opened := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "a fails", do: reportStep, of: 0, failed: 1, gateway: "a", state: "closed"},
		{name: "b fails", do: reportStep, of: 0, failed: 1, gateway: "b", state: "open", wait: reset},
	}
	probes := func(gateway string, at, number int64) event {
		return event{name: "a probe of " + gateway, at: at, do: permitStep, gateway: gateway, state: "half-open", probe: number}
	}
	ends := func(gateway string, at int64, of int, fails bool, state string, wait int64) event {
		e := event{name: "that of " + gateway, at: at, do: reportStep, of: of, gateway: gateway, state: state, wait: wait}
		e.succeeded = !fails
		if fails {
			e.failed = 1
		}
		return e
	}
	for _, row := range []struct {
		name   string
		rules  Rules
		events []event // from step 3 on
	}{
		{"the probes of one gateway fail, those of others close it", Rules{}, []event{
			probes("a", reset, 1), ends("a", reset, 3, true, "half-open", 0),
			probes("a", reset, 2), ends("a", reset, 5, true, "half-open", 0),
			probes("b", reset, 3), ends("b", reset, 7, false, "closed", 0),
		}},
		{"the probes of two fail", Rules{}, []event{
			probes("a", reset, 1), ends("a", reset, 3, true, "half-open", 0),
			probes("b", reset, 2), ends("b", reset, 5, true, "open", reset),
		}},
		{"one gets no answers: its probes are lost, and those of others close it", Rules{}, []event{
			probes("a", reset, 1),
			{name: "it is lost", at: reset + 10*second, do: viewStep, state: "half-open"},
			probes("a", reset+10*second, 2),
			{name: "so is the next", at: reset + 20*second, do: viewStep, state: "half-open"},
			probes("b", reset+20*second, 3), ends("b", reset+20*second, 7, false, "closed", 0),
		}},
		{"the probes of two are lost", Rules{}, []event{
			probes("a", reset, 1),
			probes("b", reset+10*second, 2),
			{name: "both are", at: reset + 20*second, do: viewStep, state: "open", wait: reset},
		}},
		{"a lost upload says nothing", Rules{}, []event{
			{name: "an upload", at: reset, do: uploadStep, gateway: "a", state: "half-open", probe: 1},
			probes("b", reset+10*second, 2), ends("b", reset+10*second, 4, true, "half-open", 0),
			probes("a", reset+10*second, 3), ends("a", reset+10*second, 6, true, "open", reset),
		}},
		{"an upload becomes a probe of the same gateway", Rules{}, []event{
			{name: "an upload", at: reset, do: uploadStep, gateway: "a", state: "half-open", probe: 1},
			{name: "its body ends", at: reset, do: sentStep, of: 3, state: "half-open"},
			{name: "it is lost", at: reset + 10*second, do: viewStep, state: "half-open"},
			probes("a", reset+10*second, 2), ends("a", reset+10*second, 6, true, "half-open", 0),
			probes("b", reset+10*second, 3), ends("b", reset+10*second, 8, true, "open", reset),
		}},
		{"a late upload takes its place again as the same gateway's", Rules{}, []event{
			{name: "an upload", at: reset, do: uploadStep, gateway: "a", state: "half-open", probe: 1},
			{name: "its body ends late", at: reset + 12*second, do: sentStep, of: 3, late: true, gateway: "a", state: "half-open"},
			{name: "it is lost", at: reset + 22*second, do: viewStep, state: "half-open"},
			probes("a", reset+22*second, 2), ends("a", reset+22*second, 6, true, "half-open", 0),
			probes("b", reset+22*second, 3), ends("b", reset+22*second, 8, true, "open", reset),
		}},
		{"halfOpenFailureThreshold counts from then on", Rules{HalfOpenFailures: 2}, []event{
			probes("a", reset, 1), ends("a", reset, 3, true, "half-open", 0),
			probes("b", reset, 2), ends("b", reset, 5, true, "half-open", 0),
			probes("a", reset, 3), ends("a", reset, 7, true, "open", reset),
		}},
		{"a ramp: one gateway fails", Rules{Ramp: 20 * time.Second}, []event{
			probes("b", reset, 1), ends("b", reset, 3, false, "ramp", ramp),
			ends("a", reset+second, 4, true, "ramp", ramp-second),
			ends("a", reset+2*second, 4, true, "ramp", ramp-2*second),
			{name: "at its end it is closed", at: reset + ramp, do: viewStep, state: "closed"},
			{name: "what was seen in the ramp is over", at: reset + ramp, do: permitStep, state: "closed"},
			ends("b", reset+ramp, 8, true, "closed", 0),
			ends("a", reset+ramp, 8, true, "open", reset),
		}},
		{"a ramp: two do", Rules{Ramp: 20 * time.Second}, []event{
			probes("b", reset, 1), ends("b", reset, 3, false, "ramp", ramp),
			ends("a", reset+second, 4, true, "ramp", ramp-second),
			ends("b", reset+2*second, 4, true, "open", reset),
		}},
		{"by hand, it sends probes when that ends", Rules{}, []event{
			{name: "by hand", do: forceStep, force: forcedOpen, length: 60 * second, state: "open", wait: 60 * second},
			probes("a", 60*second, 1), ends("a", 60*second, 4, true, "half-open", 0),
			probes("b", 60*second, 2), ends("b", 60*second, 6, true, "open", reset),
		}},
		{"closed by hand, no gateway's failures are noted", Rules{}, []event{
			{name: "by hand", do: forceStep, force: forcedClosed, length: 60 * second, state: "closed", wait: 60 * second},
			ends("a", second, 3, true, "closed", 59*second),
			ends("b", second, 3, true, "closed", 59*second),
			{name: "automatic", at: 2 * second, do: forceStep, length: second, state: "closed"},
			ends("a", 2*second, 6, true, "closed", 0),
			ends("b", 2*second, 6, true, "open", reset),
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			row.rules.MinGateways = 2
			policy := NewPolicy(1, 30*time.Second, 1, 1, 10*time.Second).With(row.rules)
			walk(t, server, policy, append(append([]event{}, opened...), row.events...))
		})
	}
}

// In Redis and in this process the holder of a late upload's new place is the gateway that sends it.
func TestMinGateways_aLateUploadIsTheGateways(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute).With(Rules{MinGateways: 2})
	g := newGateway(t, server)
	local := New(Settings{Now: g.clock})
	for _, b := range []*Breaker{local, g.Breaker} {
		require.NoError(t, b.ForceOpen(time.Second, "", policy, soon()))
		require.NoError(t, b.EndForce(policy, soon()))
		permit, _, err := b.Allow(policy, true, g.clock(), soon())
		require.NoError(t, err)
		require.True(t, permit.Upload())
		server.Do("HDEL", key, "upload:1", "by:1") // what the end of its time does
		g.advance(2 * time.Minute)
		b.BodySent(permit, true, policy)
	}
	require.Equal(t, g.gateway, field(server, "by:1"))
	require.Equal(t, map[int64]string{1: local.gateway}, local.machine.holders)
}

// The fleet's view is healthy only while the gateway's own circuit is closed and has no failure.
func TestJoin_theViewIsThatOfBothCircuits(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(2, time.Minute, 1, 1, time.Second).With(Rules{MinGateways: 2})
	g := newGateway(t, server)
	own := New(Settings{Mu: g.Mu, Now: g.clock})
	Join(g.Breaker, own)
	g.admit(t, policy)
	require.NotZero(t, g.View.Healthy)

	permit, _ := own.AllowLocal(policy.Own(), false, g.clock())
	own.Done(permit, Failure, policy.Own(), 0)
	require.Zero(t, g.View.Healthy, "a success must reset the failure")
	require.Len(t, g.View.Failing, 1)
	require.False(t, g.ExtendView(g.clock()+freshFor, policy))
	own.Done(permit, Success, policy.Own(), 0)
	require.NotZero(t, g.View.Healthy)

	own.Done(permit, Failure, policy.Own(), 0)
	own.Done(permit, Failure, policy.Own(), 0)
	require.Zero(t, g.View.Healthy)
	_, refused := own.MustRefuse(false, g.clock())
	require.True(t, refused)
	require.Zero(t, g.refusedFor(), "the fleet's circuit is closed")
}

// Successes of the fast path count for both circuits.
func TestJoin_bothCircuitsCountTheSuccesses(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(0, time.Minute, 1, 1, time.Second).With(Rules{MinGateways: 2, FailureRatio: 50, Window: time.Minute, MinimumRequests: 4})
	g := newGateway(t, server)
	own := New(Settings{Mu: g.Mu, Now: g.clock})
	Join(g.Breaker, own)
	permit := g.admit(t, policy)
	local, _ := own.AllowLocal(policy.Own(), false, g.clock())
	g.pass(10, policy)
	for i := 0; i < 9; i++ {
		g.report(permit, Failure, policy)
		own.Done(local, Failure, policy.Own(), 0)
	}
	require.Eventually(t, func() bool { return !g.ReportPending() && !own.ReportPending() }, patience, time.Millisecond)
	require.Equal(t, slot{requests: 19, failed: 9}, sumInRedis(server))
	require.False(t, own.Probing(), "9 of 19")
	own.Done(local, Failure, policy.Own(), 0)
	require.Eventually(t, own.Probing, patience, time.Millisecond, "10 of 20")
	require.Equal(t, "closed", field(server, "state"), "one gateway alone")
}

// While an operator has closed the fleet's circuit, the gateway's own one is closed, and counts nothing.
func TestJoin_forcedClosed(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(0, time.Hour, 1, 1, time.Second).With(Rules{MinGateways: 2, FailureRatio: 50, Window: time.Hour, MinimumRequests: 4})
	g := newGateway(t, server)
	changes := make(chan string, 10)
	own := New(Settings{Mu: g.Mu, Now: g.clock, Changed: func(from, to string) { changes <- from + " to " + to }})
	Join(g.Breaker, own)
	g.admit(t, policy)
	late, _ := own.AllowLocal(policy.Own(), false, g.clock())
	for i := 0; i < 4; i++ {
		own.Done(late, Failure, policy.Own(), 0)
	}
	require.Eventually(t, own.Probing, patience, time.Millisecond)
	require.NoError(t, g.ForceClosed(time.Hour, "", policy, time.Now().Add(patience)))
	require.False(t, own.Probing())
	require.Eventually(t, func() bool { return len(changes) == 2 }, patience, time.Millisecond)
	require.Equal(t, "closed to open", <-changes)
	require.Equal(t, "open to closed", <-changes)
	require.NotZero(t, g.View.Healthy)

	own.Done(late, Failure, policy.Own(), 0)
	g.pass(10, policy)
	require.Eventually(t, func() bool { return !g.ReportPending() && !own.ReportPending() }, patience, time.Millisecond)
	require.Empty(t, own.machine.window)
	require.NoError(t, g.EndForce(policy, time.Now().Add(patience)))
	g.pass(10, policy)
	require.Eventually(t, func() bool { return !g.ReportPending() && !own.ReportPending() }, patience, time.Millisecond)
	require.Len(t, own.machine.window, 1)
}
