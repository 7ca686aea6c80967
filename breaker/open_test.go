package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
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
		{"no request passes before its deadline", []event{
			{name: "at once", do: permitStep, state: "open", wait: 30 * second},
			{name: "after half of it", at: 15 * second, do: permitStep, state: "open", wait: 15 * second},
			{name: "a microsecond early", at: 30*second - 1, do: permitStep, state: "open", wait: 1},
		}},
		{"the first request after its deadline is a probe", []event{
			{name: "on time", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"reading the view changes nothing", []event{
			{name: "long past", at: 3600 * second, do: viewStep, state: "open"},
			{name: "still", at: 7200 * second, do: viewStep, state: "open"},
		}},
		{"outcomes from before it opened change nothing", []event{
			{name: "a success", do: reportStep, of: 0, succeeded: true, state: "open", wait: 30 * second},
			{name: "a failure", at: 10 * second, do: reportStep, of: 0, failed: 1, state: "open", wait: 20 * second},
			{name: "another", at: 30 * second, do: reportStep, of: 0, failed: 1, state: "open"},
			{name: "a probe may pass all the same", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
		}},
		{"a clock set back cuts the deadline to resetTimeout", []event{
			{name: "an hour back", at: -3600 * second, do: permitStep, state: "open", wait: 30 * second},
			{name: "ten seconds later", at: -3590 * second, do: permitStep, state: "open", wait: 20 * second},
			{name: "past it", at: -3570 * second, do: permitStep, state: "half-open", probe: 1},
		}},
	}
	for _, row := range walks {
		row := row
		t.Run(row.name, func(t *testing.T) {
			walk(t, server, policy, append(append([]event{}, opened...), row.events...))
		})
	}
}
