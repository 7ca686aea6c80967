package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestOpen(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 30*time.Second, 2, 2, 10*time.Second)
	opened := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
	}
	walks := []struct {
		name   string
		events []event
	}{
		{"it lets nothing through before its time", []event{
			{name: "at once", do: permitStep, state: "open", wait: 30 * second},
			{name: "half of it", at: 15 * second, do: permitStep, state: "open", wait: 15 * second},
			{name: "a microsecond short", at: 30*second - 1, do: permitStep, state: "open", wait: 1},
		}},
		{"the first request after its time is a probe", []event{
			{name: "on time", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"looking changes nothing", []event{
			{name: "long past", at: 3600 * second, do: viewStep, state: "open"},
			{name: "still", at: 7200 * second, do: viewStep, state: "open"},
		}},
		{"late answers from before it opened change nothing", []event{
			{name: "a success", do: reportStep, of: 0, succeeded: true, state: "open", wait: 30 * second},
			{name: "a failure", at: 10 * second, do: reportStep, of: 0, failed: 1, state: "open", wait: 20 * second},
			{name: "another", at: 30 * second, do: reportStep, of: 0, failed: 1, state: "open"},
			{name: "a probe may pass all the same", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"a clock set back cuts the wait to its own length", []event{
			{name: "an hour back", at: -3600 * second, do: permitStep, state: "open", wait: 30 * second},
			{name: "ten seconds later", at: -3590 * second, do: permitStep, state: "open", wait: 20 * second},
			{name: "over", at: -3570 * second, do: permitStep, state: "half-open", probe: 1},
		}},
	}
	for _, row := range walks {
		row := row
		t.Run(row.name, func(t *testing.T) {
			walk(t, server, policy, append(append([]event{}, opened...), row.events...))
		})
	}
}

// A refusal names the seconds until that number is another.
func TestBreaker_refusesUntilTheSecondsChange(t *testing.T) {
	now := int64(0)
	b := New(Settings{Now: func() int64 { return now }})
	policy := NewPolicy(1, 1500*time.Millisecond, 2, 2, 10*time.Second)
	permit, _, err := b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Nil(t, b.OpenNotice(now), "it is not open")
	b.Done(permit, Failure, policy, time.Second)
	require.Equal(t, 1500*1000, int(b.View.Open))

	now = 400 * 1000
	first := b.OpenNotice(now)
	require.Equal(t, 2, int(first.Seconds), "1.1 s are left: two seconds")
	require.Len(t, first.Holds, 1)
	require.Same(t, first, b.OpenNotice(now), "one for all")
	require.Eventually(t, func() bool { return len(first.Holds) == 0 }, 5*time.Second, time.Millisecond)
	now = 500 * 1000
	second := b.OpenNotice(now)
	require.Equal(t, 1, int(second.Seconds), "one second is left")
	require.Len(t, second.Holds, 1)
	now = 1500 * 1000
	_, retryAfter, err := b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Zero(t, retryAfter, "its time is over")
	require.Empty(t, second.Holds, "half-open")
	require.Nil(t, b.OpenNotice(now))
}
