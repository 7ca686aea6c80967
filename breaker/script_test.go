package breaker

import (
	"fmt"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// caller makes single calls of the scripts on one key, at times of the test's choice.
type caller struct {
	server  *redistest.Server
	policy  *Policy
	scripts []string
}

func (c *caller) call(script int, at int64, args ...string) answer {
	steps := []redistest.Step{{Script: script, At: epoch + at, Keys: []string{"one"}, Args: withArgs(c.policy, args...)}}
	return answerOf(c.server.Walk(c.scripts, steps)[0])
}

func (c *caller) report(at, generation, probe int64, outcome Outcome, id string) answer {
	return c.call(reportStep, at, intArg(generation), intArg(probe), boolArg(outcome == Success), intArg(tallyOf(outcome).run), id, "", "")
}

// A call whose answer was lost is made again: it counts once.
func TestScripts_aRepeatedCallCountsOnce(t *testing.T) {
	server := redistest.Start(t)
	c := &caller{server, NewPolicy(3, 30*time.Second, 2, 2, 10*time.Second), scripts}
	generation := c.call(viewStep, 0).generation
	for i, row := range []struct {
		outcome  Outcome
		id       string
		failures int64
	}{
		{Failure, "a", 1},
		{Failure, "a", 1},
		{Failure, "b", 2},
		{Success, "c", 0},
		{Failure, "b", 0}, // repeated after a success
	} {
		require.Equal(t, row.failures, c.report(int64(i), generation, 0, row.outcome, row.id).failures, row.id)
	}
	for i := 0; i < 300; i++ {
		c.report(5, generation, 0, Failure, fmt.Sprint("d", i))
		c.report(5, generation, 0, Success, fmt.Sprint("e", i))
	}
	require.Less(t, len(server.Hash("one")["calls"]), 520, "the hash does not grow with the calls")
	var opened answer
	for _, id := range []string{"f", "g", "h", "h"} {
		opened = c.report(6, generation, 0, Failure, id)
	}
	require.Equal(t, "open", stateNames[opened.state])
	require.Equal(t, 30*second, opened.wait)

	probing := c.call(permitStep, 31*second, "i", "0").generation
	for _, row := range []struct {
		id, upload string
		probe      int64
		why        string
	}{
		{"i", "0", 1, "the same place"},
		{"j", "1", 2, "an upload"},
		{"j", "1", 2, "the same place"},
		{"k", "0", 0, "there are two places"},
	} {
		require.Equal(t, row.probe, c.call(permitStep, 31*second, row.id, row.upload).probe, row.why)
	}
	for i := 0; i < 2; i++ {
		require.Equal(t, int64(1), c.report(32*second, probing, 1, Success, "l").successes)
	}
	require.Equal(t, int64(0), c.call(permitStep, 32*second, "i", "0").probe, "that probe has ended")
	require.Equal(t, int64(3), c.call(permitStep, 32*second, "k", "0").probe)
}

// A lost circuit is written back only over a hash that is new, or older than its opening.
func TestScripts_restoreOverNothingNewer(t *testing.T) {
	server := redistest.Start(t)
	restoreStep := len(scripts)
	c := &caller{server, NewPolicy(2, 30*time.Second, 1, 1, 10*time.Second), append(append([]string{}, scripts...), restoreLua)}
	born := c.call(viewStep, 0)
	require.Equal(t, int64(1), born.born)
	require.Equal(t, born, c.call(restoreStep, 0, intArg(born.generation-1), intArg(second), "0", "", "0"), "another generation")

	written := c.call(restoreStep, 1, intArg(born.generation), intArg(20*second), "2", "", "0")
	require.Equal(t, answer{state: stateOpen, generation: born.generation + 1, wait: 20 * second, repeats: 2}, written)
	require.Equal(t, written, c.call(restoreStep, 1, intArg(born.generation), intArg(29*second), "0", "", "0"), "once")

	probing := c.call(permitStep, 21*second, "a", "0")
	require.Equal(t, int64(1), probing.probe)
	closed := c.report(22*second, probing.generation, 1, Success, "b")
	require.Equal(t, "closed", stateNames[closed.state])
	require.Zero(t, closed.born)
	require.Equal(t, closed, c.call(restoreStep, 22*second, intArg(closed.generation), intArg(second), "0", "", intArg(closed.generation-1)),
		"a probe has closed it")
	written = c.call(restoreStep, 22*second, intArg(closed.generation), intArg(second), "0", "", intArg(closed.generation+1))
	require.Equal(t, "open", stateNames[written.state], "it was opened after that, which a replica did not know")
	require.Equal(t, second, written.wait)

	require.Equal(t, written, c.call(restoreStep, 22*second, intArg(written.generation), intArg(9*second), "0", "", intArg(written.generation+1)),
		"only a closed circuit is replaced")

	server.Do("FLUSHALL")
	born = c.call(viewStep, 0)
	require.Equal(t, 30*second, c.call(restoreStep, 0, intArg(born.generation), intArg(3600*second), "0", "", "0").wait, "at most resetTimeout")
}

// A state that was made by hand is written back over any older one, and over nothing newer.
func TestScripts_restoreWhatWasForced(t *testing.T) {
	server := redistest.Start(t)
	restoreStep := len(scripts)
	policy := NewPolicy(1, 30*time.Second, 1, 1, 10*time.Second).With(Rules{Backoff: 2000, MaxReset: time.Hour, Ramp: time.Minute})
	c := &caller{server, policy, append(append([]string{}, scripts...), restoreLua)}
	way := []event{ // each report is about the permit before it
		{do: permitStep, state: "closed"},
		{do: reportStep, at: second, failed: 1, state: "open"},
		{do: permitStep, at: 31 * second, state: "half-open"},
		{do: reportStep, at: 32 * second, succeeded: true, state: "ramp"},
		{do: forceStep, at: 32 * second, force: forcedClosed, length: 60 * second, state: "closed"},
	}
	for length := 1; length <= len(way); length++ {
		for _, state := range []string{"open", "closed"} {
			about := fmt.Sprintf("%s, after %d steps", state, length)
			server.Do("FLUSHALL")
			older := answer{}
			for i, e := range way[:length] {
				one := step{do: e.do, generation: older.generation, probe: older.probe, succeeded: e.succeeded, failed: e.failed, force: e.force, length: e.length}
				older = c.call(e.do, e.at, one.args(&Policy{}, "c"+intArg(int64(i)))...)
				require.Equal(t, e.state, stateNames[older.state], about)
			}
			server.Do("HDEL", "one", "born")
			for lost := older.generation; lost <= older.generation+1; lost++ {
				got := c.call(restoreStep, 33*second, intArg(older.generation), intArg(600*second), "3", state, intArg(lost))
				if lost == older.generation {
					require.Equal(t, lost, got.generation, "%s: it is not older", about)
					continue
				}
				require.Equal(t, state, forcedNames[got.forced], about)
				require.Equal(t, state, stateNames[got.state], about)
				require.Equal(t, 600*second, got.wait, about)
				require.Equal(t, map[string]int64{"open": 3, "closed": 0}[state], got.repeats, about)
			}
		}
	}
}
