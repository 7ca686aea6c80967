package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
)

// A probe whose body is still being received is an upload.
func TestUpload(t *testing.T) {
	server := redistest.Start(t)
	// Steps 0 and 1: open until second 30.
	opened := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
	}
	walks := []struct {
		name   string
		places int64
		events []event
	}{
		{"an upload past its deadline loses its place without a verdict", 2, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "on its last microsecond it holds its place", at: 40*second - 1, do: uploadStep, state: "half-open"},
			{name: "its deadline has passed", at: 40 * second, do: uploadStep, state: "half-open", probe: 2},
			{name: "its answer is late", at: 41 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
		}},
		{"uploads leave a place to requests without a body", 3, []event{
			{name: "first", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "second", at: 30 * second, do: uploadStep, state: "half-open", probe: 2},
			{name: "third", at: 30 * second, do: uploadStep, state: "half-open"},
			{name: "without a body", at: 30 * second, do: permitStep, state: "half-open", probe: 3},
			{name: "there are three", at: 30 * second, do: permitStep, state: "half-open"},
			{name: "one is done", at: 31 * second, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "an upload", at: 31 * second, do: uploadStep, state: "half-open", probe: 4},
		}},
		{"an upload takes a place that is left", 2, []event{
			{name: "without a body", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 2},
			{name: "there are two", at: 30 * second, do: permitStep, state: "half-open"},
		}},
		{"a request without a body takes the single place", 1, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "no other upload", at: 30 * second, do: uploadStep, state: "half-open"},
			{name: "without a body", at: 31 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "which keeps it", at: 31 * second, do: permitStep, state: "half-open"},
			{name: "the upload's body ends", at: 32 * second, do: sentStep, of: 2, state: "half-open"},
			{name: "it does not count", at: 32 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
			{name: "the other counts", at: 33 * second, do: reportStep, of: 4, succeeded: true, state: "half-open"},
		}},
		{"its probeTimeout starts at the end of its body", 1, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "its body ends", at: 39 * second, do: sentStep, of: 2, state: "half-open"},
			{name: "it keeps its place", at: 39 * second, do: permitStep, state: "half-open"},
			{name: "ten seconds later", at: 49*second - 1, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "it was counted", at: 49 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "the second success", at: 49 * second, do: reportStep, of: 6, succeeded: true, state: "closed"},
		}},
		{"without an answer after its body it is lost", 1, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "its body ends", at: 39 * second, do: sentStep, of: 2, state: "half-open"},
			{name: "lost", at: 50 * second, do: viewStep, state: "open", wait: 29 * second},
		}},
		{"a late body takes a place again", 1, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "its body ends late", at: 42 * second, do: sentStep, of: 2, late: true, state: "half-open"},
			{name: "it has a place", at: 42 * second, do: permitStep, state: "half-open"},
			{name: "its failure counts", at: 51 * second, do: reportStep, of: 2, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a late body without a place stays without a verdict", 1, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "another has its place", at: 41 * second, do: permitStep, state: "half-open", probe: 2},
			{name: "its body ends late", at: 42 * second, do: sentStep, of: 2, late: true, state: "half-open"},
			{name: "its failure is late", at: 42 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
		}},
		{"an answer before the end of the body counts", 2, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "success", at: 31 * second, do: reportStep, of: 2, succeeded: true, state: "half-open"},
			{name: "its body ends", at: 32 * second, do: sentStep, of: 2, state: "half-open"},
			{name: "upload", at: 32 * second, do: uploadStep, state: "half-open", probe: 2},
			{name: "success", at: 33 * second, do: reportStep, of: 5, succeeded: true, state: "closed"},
		}},
		{"a failure before the end of the body counts", 2, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "failure", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a client that gives up gives the place back", 2, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "the client went away", at: 31 * second, do: reportStep, of: 2, state: "half-open"},
			{name: "another", at: 31 * second, do: uploadStep, state: "half-open", probe: 2},
		}},
		{"a body that ends after the circuit has changed changes nothing", 1, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "failure", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "open", wait: 30 * second},
			{name: "half-open again", at: 61 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "the body ends", at: 62 * second, do: sentStep, of: 2, late: true, state: "half-open"},
			{name: "the probe's deadline is unchanged", at: 71 * second, do: viewStep, state: "open", wait: 30 * second},
		}},
		{"a clock set back cuts an upload's deadline to probeTimeout", 2, []event{
			{name: "upload", at: 30 * second, do: uploadStep, state: "half-open", probe: 1},
			{name: "an hour back", at: -3600 * second, do: uploadStep, state: "half-open"},
			{name: "its deadline has passed", at: -3590 * second, do: uploadStep, state: "half-open", probe: 2},
		}},
	}
	for _, row := range walks {
		row := row
		t.Run(row.name, func(t *testing.T) {
			policy := NewPolicy(1, 30*time.Second, 2, row.places, 10*time.Second)
			walk(t, server, policy, append(append([]event{}, opened...), row.events...))
		})
	}
}
