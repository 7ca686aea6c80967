package breaker

import (
	"fmt"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A call whose answer is lost is made again: it counts once.
func TestScripts_aCallThatIsMadeTwiceCountsOnce(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, 30*time.Second, 2, 2, 10*time.Second)
	call := func(do int, at int64, args ...string) answer {
		t.Helper()
		steps := []redistest.Step{{Script: do, At: epoch + at, Keys: []string{"one"}, Args: withArgs(policy, args...)}}
		return answerOf(server.Walk(scripts, steps)[0])
	}
	report := func(at, generation, probe int64, outcome Outcome, id string) answer {
		t.Helper()
		failed := int64(0)
		if outcome == Failure {
			failed = 1
		}
		return call(reportStep, at, intArg(generation), intArg(probe), boolArg(outcome == Success), intArg(failed), id)
	}

	generation := call(viewStep, 0).generation
	require.Equal(t, int64(1), report(0, generation, 0, Failure, "a").failures)
	require.Equal(t, int64(1), report(1, generation, 0, Failure, "a").failures)
	require.Equal(t, int64(2), report(2, generation, 0, Failure, "b").failures)
	require.Equal(t, int64(0), report(3, generation, 0, Success, "c").failures)
	require.Equal(t, int64(0), report(4, generation, 0, Failure, "b").failures, "though a success came between")
	for i := 0; i < 300; i++ { // the hash does not grow with them
		report(5, generation, 0, Failure, fmt.Sprint("d", i))
		report(5, generation, 0, Success, fmt.Sprint("e", i))
	}
	require.Less(t, len(server.Hash("one")["calls"]), 520)
	var opened answer
	for _, id := range []string{"f", "g", "h", "h"} {
		opened = report(6, generation, 0, Failure, id)
	}
	require.Equal(t, "open", stateNames[opened.state])
	require.Equal(t, 30*second, opened.wait)

	for range []int{1, 2, 3} {
		require.Equal(t, int64(1), call(permitStep, 31*second, "i", "0").probe, "one place, and its number again")
	}
	half := call(permitStep, 31*second, "j", "1")
	require.Equal(t, int64(2), half.probe)
	require.Equal(t, int64(2), call(permitStep, 31*second, "j", "1").probe)
	require.Equal(t, int64(0), call(permitStep, 31*second, "k", "0").probe, "there are two places")
	require.Equal(t, int64(1), report(32*second, half.generation, 1, Success, "l").successes)
	require.Equal(t, int64(1), report(32*second, half.generation, 1, Success, "l").successes)
	require.Equal(t, int64(0), call(permitStep, 32*second, "i", "0").probe, "it has had its verdict")
	require.Equal(t, int64(3), call(permitStep, 32*second, "k", "0").probe)
}
