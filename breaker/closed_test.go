package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
)

func TestClosed(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, 30*time.Second, 2, 2, 10*time.Second)
	walks := []struct {
		name   string
		events []event
	}{
		{"all requests pass", []event{
			{name: "unknown yet", do: viewStep, state: "closed"},
			{name: "one", do: permitStep, state: "closed"},
			{name: "another", do: permitStep, state: "closed"},
		}},
		{"consecutive failures open it", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "first", do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "second", do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "third", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a success resets the count", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "a success", do: reportStep, of: 0, succeeded: true, state: "closed"},
			{name: "two more", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "and the third", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a report of several outcomes has its success first", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "a success, then two", do: reportStep, of: 0, succeeded: true, failed: 2, state: "closed"},
			{name: "one more", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"an outcome without a verdict does not count", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "a client went away", do: reportStep, of: 0, state: "closed"},
			{name: "the third", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"failures are consecutive however long they take", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "first", do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "second", at: 3600 * second, do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "third", at: 12 * 3600 * second, do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"after a day without calls it starts anew, and earlier outcomes do not count", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "two days later", at: 48 * 3600 * second, do: viewStep, state: "closed"},
			{name: "two more", at: 48 * 3600 * second, do: reportStep, of: -1, failed: 2, state: "closed"},
		}},
	}
	for _, row := range walks {
		row := row
		t.Run(row.name, func(t *testing.T) {
			walk(t, server, policy, row.events)
		})
	}
}
