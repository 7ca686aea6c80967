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

	server.Do("FLUSHALL")
	born = c.call(viewStep, 0)
	require.Equal(t, 30*second, c.call(restoreStep, 0, intArg(born.generation), intArg(3600*second), "0", "", "0").wait, "at most resetTimeout")
}
