package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRules_failureAge(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, 30*time.Second, 2, 2, 10*time.Second).With(Rules{FailureAge: 10 * time.Second})
	const start = -(epoch % second) // the slots are seconds
	for _, row := range []struct {
		name   string
		events []event
	}{
		{"failures within it open the circuit", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "one", do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "the second", at: 5 * second, do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "the third", at: 9 * second, do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"older ones no longer count", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "the third is late", at: 11 * second, do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "the fourth", at: 12 * second, do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "three within it", at: 20 * second, do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a success resets the count", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "a success", at: second, do: reportStep, of: 0, succeeded: true, state: "closed"},
			{name: "two more", at: 2 * second, do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "the third", at: 3 * second, do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a clock set back forgets the failures of the future", []event{
			{name: "let through", do: permitStep, state: "closed"},
			{name: "two", do: reportStep, of: 0, failed: 2, state: "closed"},
			{name: "an hour back", at: -3600 * second, do: reportStep, of: 0, failed: 1, state: "closed"},
			{name: "two more", at: -3599 * second, do: reportStep, of: 0, failed: 2, state: "open", wait: 30 * second},
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			var events []event
			for _, e := range row.events {
				e.at += start
				events = append(events, e)
			}
			walk(t, server, policy, events)
		})
	}
}

// While a new configuration spreads, gateways report with windows, or ages, of two lengths. Within the shorter one nothing is forgotten.
func TestRules_twoLengthsAtOnce(t *testing.T) {
	server := redistest.Start(t)
	ratio := func(window time.Duration) *Policy {
		return NewPolicy(0, 30*time.Second, 2, 2, 10*time.Second).With(Rules{FailureRatio: 100, Window: window, MinimumRequests: 40})
	}
	aged := func(age time.Duration) *Policy {
		return NewPolicy(40, 30*time.Second, 2, 2, 10*time.Second).With(Rules{FailureAge: age})
	}
	for _, row := range []struct {
		name     string
		policies []*Policy
		failed   int64 // of each report
		bulk     tally // the same
	}{
		{"windows", []*Policy{ratio(10 * time.Second), ratio(35 * time.Second)}, 0, event{outcomes: "f"}.bulk()},
		{"ages of failures", []*Policy{aged(10 * time.Second), aged(35 * time.Second)}, 1, tally{}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			w := &walker{server: server, key: t.Name()}
			last := w.step(t, row.policies[0], step{do: permitStep, at: epoch})
			for i := int64(1); i <= 40; i++ {
				require.Equal(t, "closed", stateNames[last.state], "before report %d", i)
				last = w.step(t, row.policies[i%2], step{do: reportStep, at: epoch + i*100000, generation: last.generation, failed: row.failed, bulk: row.bulk})
			}
			require.Equal(t, "open", stateNames[last.state], "after 40 within 4 s")
		})
	}
}

func TestRules_halfOpenFailures(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 30*time.Second, 2, 3, 10*time.Second).With(Rules{HalfOpenFailures: 2})
	// Steps 0 to 3: half-open since second 30, with two probes under way until second 40.
	probing := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 30 * second},
		{name: "first probe", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
		{name: "second probe", at: 30 * second, do: permitStep, state: "half-open", probe: 2},
	}
	for _, row := range []struct {
		name   string
		events []event
	}{
		{"the second failed probe opens it", []event{
			{name: "failed", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
			{name: "failed too", at: 32 * second, do: reportStep, of: 3, failed: 1, state: "open", wait: 30 * second},
		}},
		{"a failed probe gives its place back", []event{
			{name: "failed", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
			{name: "a place", at: 31 * second, do: permitStep, state: "half-open", probe: 3},
			{name: "another", at: 31 * second, do: permitStep, state: "half-open", probe: 4},
			{name: "no more", at: 31 * second, do: permitStep, state: "half-open"},
		}},
		{"a failed probe counts once", []event{
			{name: "failed", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
			{name: "repeated", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
		}},
		{"successes close it all the same", []event{
			{name: "failed", at: 31 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
			{name: "a success", at: 31 * second, do: reportStep, of: 3, succeeded: true, state: "half-open"},
			{name: "third probe", at: 31 * second, do: permitStep, state: "half-open", probe: 3},
			{name: "the second success", at: 31 * second, do: reportStep, of: -1, succeeded: true, state: "closed"},
		}},
		{"lost probes are failures, each at its deadline", []event{
			{name: "third probe", at: 32 * second, do: permitStep, state: "half-open", probe: 3},
			{name: "the first has failed", at: 33 * second, do: reportStep, of: 2, failed: 1, state: "half-open"},
			{name: "the second is lost", at: 50 * second, do: viewStep, state: "open", wait: 20 * second},
		}},
		{"two lost probes open it at the second's deadline", []event{
			{name: "third probe, late", at: 35 * second, do: permitStep, state: "half-open", probe: 3},
			{name: "one ended well", at: 36 * second, do: reportStep, of: 3, succeeded: true, state: "half-open"},
			{name: "one is lost", at: 41 * second, do: viewStep, state: "half-open"},
			{name: "two are lost", at: 50 * second, do: viewStep, state: "open", wait: 25 * second},
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			walk(t, server, policy, append(append([]event{}, probing...), row.events...))
		})
	}
}

func TestRules_backoff(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, 10*time.Second, 1, 1, 10*time.Second).With(Rules{Backoff: 2500, MaxReset: time.Minute})
	// Steps 0 to 3: open for the second time.
	again := []event{
		{name: "let through", do: permitStep, state: "closed"},
		{name: "failed", do: reportStep, of: 0, failed: 1, state: "open", wait: 10 * second},
		{name: "a probe", at: 10 * second, do: permitStep, state: "half-open", probe: 1},
		{name: "failed", at: 10 * second, do: reportStep, of: 2, failed: 1, state: "open", wait: 25 * second},
	}
	for _, row := range []struct {
		name   string
		events []event
	}{
		{"each time it opens again it waits longer, up to the most", []event{
			{name: "early", at: 34 * second, do: permitStep, state: "open", wait: second},
			{name: "a probe", at: 35 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "failed", at: 35 * second, do: reportStep, of: 5, failed: 1, state: "open", wait: 60 * second},
			{name: "a probe", at: 95 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "failed", at: 95 * second, do: reportStep, of: 7, failed: 1, state: "open", wait: 60 * second},
		}},
		{"a lost probe makes it longer, too", []event{
			{name: "a probe", at: 35 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "lost", at: 45 * second, do: viewStep, state: "open", wait: 60 * second},
		}},
		{"closing it starts anew", []event{
			{name: "a probe", at: 35 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "a success", at: 35 * second, do: reportStep, of: 4, succeeded: true, state: "closed"},
			{name: "failed", at: 36 * second, do: reportStep, of: 5, failed: 1, state: "open", wait: 10 * second},
		}},
		{"a clock set back cuts the deadline to the longer time", []event{
			{name: "an hour back", at: -3600 * second, do: viewStep, state: "open", wait: 25 * second},
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			walk(t, server, policy, append(append([]event{}, again...), row.events...))
		})
	}
}

func TestRules_openFor(t *testing.T) {
	const day = 24 * time.Hour
	for _, row := range []struct {
		name                string
		reset               time.Duration
		rules               Rules
		generation, repeats int64
		want                time.Duration
	}{
		{"no rules", 30 * time.Second, Rules{}, epoch, 7, 30 * time.Second},
		{"the first time", 30 * time.Second, Rules{Backoff: 2000, MaxReset: time.Hour}, epoch, 0, 30 * time.Second},
		{"the third", 30 * time.Second, Rules{Backoff: 2000, MaxReset: time.Hour}, epoch, 2, 2 * time.Minute},
		{"at most", 30 * time.Second, Rules{Backoff: 2000, MaxReset: time.Hour}, epoch, 1000000, time.Hour},
		{"the smallest numbers", time.Microsecond, Rules{Backoff: 1100, MaxReset: time.Hour}, epoch, 1000, time.Microsecond},
		{"the largest numbers", 5000 * day, Rules{Backoff: 10000, MaxReset: 10000 * day}, epoch, 3, 10000 * day},
		{"no jitter of these generations", 10 * time.Second, Rules{Jitter: 50}, 1000003 * 1000, 0, 10 * time.Second},
		{"jitter", 10 * time.Second, Rules{Jitter: 50}, 1000003*1000 + 1, 0, 14595 * time.Millisecond},
		{"jitter of a longer time", 10 * time.Second, Rules{Jitter: 50, Backoff: 2000, MaxReset: time.Minute}, 1000003*1000 + 1, 1, 29190 * time.Millisecond},
	} {
		policy := NewPolicy(1, row.reset, 1, 1, time.Second).With(row.rules)
		require.Equal(t, row.want.Microseconds(), policy.openFor(row.generation, row.repeats), row.name)
	}
}

// The generations of many openings spread the jitter evenly.
func TestRules_jitterIsSpread(t *testing.T) {
	policy := NewPolicy(1, 10*time.Second, 1, 1, time.Second).With(Rules{Jitter: 100})
	tenths := make([]int, 10)
	for i := int64(0); i < 10000; i++ {
		tenths[(policy.openFor(epoch+i*7368787, 0)-10*second)/second]++
	}
	for i, n := range tenths {
		require.InDelta(t, 1000, n, 150, "tenth %d", i)
	}
}

// The whole fleet waits for the same time, and a gateway without Redis continues with the same number of repeats.
func TestRules_areTheFleets(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Second).With(Rules{Backoff: 3000, MaxReset: time.Hour, Jitter: 20})
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	one.openUntilProbe(t, server, policy)
	one.report(one.probe(t, policy), Failure, policy)
	require.Equal(t, "1", field(server, "repeats"))
	two.request(t, policy)
	require.InDelta(t, one.refusedFor().Seconds(), two.refusedFor().Seconds(), 0.5)
	require.GreaterOrEqual(t, two.refusedFor(), 179*time.Second)
	require.LessOrEqual(t, two.refusedFor(), 216*time.Second)
	require.Equal(t, int64(1), two.machine.repeats)
}
