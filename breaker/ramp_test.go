package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRamp(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 30*time.Second, 1, 1, 10*time.Second).With(Rules{Ramp: 20 * time.Second, Backoff: 2000, MaxReset: time.Hour})
	// Steps 0 to 3: a ramp from second 30 to second 50.
	ramp := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		{name: "a probe", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
		{name: "which succeeds", at: 30 * second, do: reportStep, of: 2, succeeded: true, state: "ramp", wait: 20 * second},
	}
	for _, row := range []struct {
		name   string
		events []event
	}{
		{"at its end the circuit is closed", []event{
			{name: "half of it", at: 40 * second, do: permitStep, state: "ramp", wait: 10 * second},
			{name: "over", at: 50 * second, do: viewStep, state: "closed"},
		}},
		{"a failure opens it, for longer", []event{
			{name: "let through", at: 31 * second, do: permitStep, state: "ramp", wait: 19 * second},
			{name: "failed", at: 32 * second, do: reportStep, of: 4, failed: 1, state: "open", wait: 60 * second},
		}},
		{"successes change nothing", []event{
			{name: "succeeded", at: 32 * second, do: reportStep, of: 3, succeeded: true, state: "ramp", wait: 18 * second},
		}},
		{"nor do outcomes from before", []event{
			{name: "failed", at: 32 * second, do: reportStep, of: 2, failed: 1, state: "ramp", wait: 18 * second},
		}},
		{"closing it ends the backoff", []event{
			{name: "over", at: 50 * second, do: permitStep, state: "closed"},
			{name: "failed", at: 51 * second, do: reportStep, of: 4, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a clock set back cuts it to its length", []event{
			{name: "an hour back", at: -3600 * second, do: viewStep, state: "ramp", wait: 20 * second},
		}},
		{"a failed probe is no ramp", []event{
			{name: "failed", at: 32 * second, do: reportStep, of: 3, failed: 1, state: "open", wait: 60 * second},
			{name: "a probe", at: 92 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "failed", at: 92 * second, do: reportStep, of: 5, failed: 1, state: "open", wait: 120 * second},
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) { walk(t, server, policy, append(append([]event{}, ramp...), row.events...)) })
	}
	t.Run("more than one failure", func(t *testing.T) {
		two := NewPolicy(1, 30*time.Second, 1, 1, 10*time.Second).With(Rules{Ramp: 20 * time.Second, HalfOpenFailures: 2})
		walk(t, server, two, append(append([]event{}, ramp...),
			event{name: "one", at: 31 * second, do: reportStep, of: 3, failed: 1, state: "ramp", wait: 19 * second},
			event{name: "two", at: 32 * second, do: reportStep, of: 3, failed: 1, state: "open", wait: 30 * second}))
	})
}

// At 200 requests a second the share that passes follows the line within 10 percentage points over each second.
func TestRamp_theShareFollowsTheLine(t *testing.T) {
	now := 1000 * second
	b := New(Settings{Now: func() int64 { return now }})
	policy := NewPolicy(1, time.Second, 1, 1, 10*time.Second).With(Rules{Ramp: 10 * time.Second})
	permit, _ := b.AllowLocal(policy, false, now)
	b.Done(permit, Failure, policy, 0)
	now += 2 * second
	permit, _ = b.AllowLocal(policy, false, now)
	require.True(t, permit.Probe())
	b.Done(permit, Success, policy, 0)
	for i := int64(0); i < 12; i++ {
		passed := 0
		for n := 0; n < 200; n++ {
			now += second / 200
			if _, refused := b.RampRefuses(now, policy); !refused {
				permit, retryAfter := b.AllowLocal(policy, false, now)
				require.Zero(t, retryAfter)
				require.False(t, permit.Probe())
				b.Done(permit, Success, policy, 0)
				passed++
			}
		}
		want := 10*i + 5
		if want > 100 {
			want = 100
		}
		require.InDelta(t, want, passed/2, 1, "per cent in second %d", i)
	}
	require.Equal(t, "closed", stateNames[b.machine.state])
}

// The ramp is the fleet's: it begins and ends for all at the same time, and one failure opens it for all.
func TestRamp_isTheFleets(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Second).With(Rules{Ramp: time.Hour})
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	one.openUntilProbe(t, server, policy)
	one.report(one.probe(t, policy), Success, policy)
	require.Equal(t, "ramp", field(server, "state"))
	permit := two.admit(t, policy)
	_, refused := two.RampRefuses(two.clock(), policy)
	require.True(t, refused, "the first of the ramp")
	require.False(t, two.Probing())
	before := two.callCount()
	for i := 0; i < 100; i++ {
		two.RampRefuses(two.clock(), policy)
	}
	require.Equal(t, before, two.callCount(), "no call for a request")
	two.report(permit, Failure, policy)
	require.Equal(t, "open", field(server, "state"))
	one.advance(time.Second)
	one.RampRefuses(one.clock(), policy)
	require.Eventually(t, func() bool { return one.refusedFor() > 0 }, patience, time.Millisecond)
}
