package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
)

func TestHalfOpen(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 30*time.Second, 2, 2, 10*time.Second)
	// Steps 0 to 2: half-open since second 30, with one probe under way until second 40.
	probing := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		{name: "first probe", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
	}
	walks := []struct {
		name   string
		events []event
	}{
		{"probes at a time are limited", []event{
			{name: "second", at: 31 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "no place", at: 31 * second, do: permitStep, state: "half-open"},
			{name: "one is done", at: 32 * second, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "a place", at: 32 * second, do: permitStep, state: "half-open", probe: 3},
			{name: "no more", at: 32 * second, do: permitStep, state: "half-open"},
		}},
		{"successes close it", []event{
			{name: "second probe", at: 31 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "first success", at: 32 * second, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "second success", at: 33 * second, do: reportStep, of: 3, succeeded: true, state: "closed"},
			{name: "all requests pass", at: 33 * second, do: permitStep, state: "closed"},
		}},
		{"a probe counts once", []event{
			{name: "success", at: 32 * second, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "repeated", at: 32 * second, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "another outcome", at: 32 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
		}},
		{"one failure opens it again, for the whole resetTimeout", []event{
			{name: "second probe", at: 31 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "failure", at: 35 * second, do: reportStep, of: 2, failed: 1, state: "open", wait: 30 * second},
			{name: "the other's success is late", at: 36 * second, do: reportStep, of: 3, succeeded: true, state: "open", wait: 29 * second},
		}},
		{"a probe without a verdict gives its place back", []event{
			{name: "second probe", at: 31 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "a client went away", at: 32 * second, do: reportStep, of: 2, state: "half-open"},
			{name: "its place", at: 32 * second, do: permitStep, state: "half-open", probe: 3},
		}},
		{"a probe past its deadline is a failure at the deadline", []event{
			{name: "on its last microsecond", at: 40*second - 1, do: viewStep, state: "half-open"},
			{name: "lost", at: 50 * second, do: viewStep, state: "open", wait: 20 * second},
			{name: "its success is late", at: 51 * second, do: reportStep, of: 2, succeeded: true, state: "open", wait: 19 * second},
			{name: "the next probe", at: 70 * second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"a lost probe that nobody saw opened it long ago", []event{
			{name: "an hour later", at: 3600 * second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"outcomes from before it was half-open change nothing", []event{
			{name: "a failure", at: 31 * second, do: reportStep, of: 0, failed: 1, state: "half-open"},
			{name: "a success", at: 31 * second, do: reportStep, of: 0, succeeded: true, state: "half-open"},
			{name: "a place is left", at: 31 * second, do: permitStep, state: "half-open", probe: 2},
		}},
		{"a clock set back cuts a probe's deadline to probeTimeout", []event{
			{name: "an hour back", at: -3600 * second, do: viewStep, state: "half-open"},
			{name: "its deadline has passed", at: -3590 * second, do: viewStep, state: "open", wait: 30 * second},
		}},
	}
	for _, row := range walks {
		row := row
		t.Run(row.name, func(t *testing.T) {
			walk(t, server, policy, append(append([]event{}, probing...), row.events...))
		})
	}
}
