package breaker

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// choice is one random step; of is the earlier step whose permit a report is about.
type choice struct {
	do        int
	at        int64
	of        int
	succeeded bool
	failed    int64
	late      bool
	bulk      tally
	gateway   string
	force     int64
	length    int64
}

// randomPolicy has small numbers, so that a walk meets all states often.
func randomPolicy(random *rand.Rand) *Policy {
	seconds := func(n int) time.Duration { return time.Duration(1+random.Intn(n)) * time.Second }
	policy := NewPolicy(1+random.Int63n(4), seconds(30), 1+random.Int63n(3), 1+random.Int63n(4), seconds(20))
	rules := Rules{}
	if random.Intn(4) == 0 { // slots take the script longer
		rules.FailureAge = seconds(10)
	}
	if random.Intn(2) == 0 {
		rules.HalfOpenFailures = 1 + random.Int63n(3)
	}
	if random.Intn(2) == 0 {
		rules.Backoff = 1100 + random.Int63n(2000)
		rules.MaxReset = seconds(200)
	}
	if random.Intn(2) == 0 {
		rules.Jitter = random.Int63n(101)
	}
	if random.Intn(4) == 0 {
		rules.FailureRatio = random.Int63n(101)
		rules.SlowRatio = random.Int63n(101)
		rules.Window = seconds(20)
		rules.MinimumRequests = 1 + random.Int63n(10)
		if random.Intn(2) == 0 {
			policy.failureThreshold = 0
		}
	}
	if rules.Window > 0 || random.Intn(4) == 0 {
		rules.MinGateways = 1 + random.Int63n(3)
	}
	if random.Intn(2) == 0 {
		rules.Ramp = seconds(120)
	}
	return policy.With(rules)
}

func choose(random *rand.Rand, steps int, now int64) choice {
	c := choice{do: random.Intn(len(scripts)), at: now + random.Int63n(4*second)}
	switch random.Intn(32) {
	case 0:
		c.at = now + random.Int63n(90*second)
	case 1:
		c.at = now - random.Int63n(90*second)
	case 2:
		c.at = now + random.Int63n(60*3600*second)
	case 3, 4, 5, 6, 7, 8:
		c.at = now
	}
	if steps == 0 {
		c.do = permitStep
	}
	if c.do == forceStep {
		c.force = random.Int63n(3)
		c.length = 1 + random.Int63n(30*second)
		if random.Intn(4) != 0 {
			c.do = viewStep
		}
	}
	c.gateway = []string{"a", "b", "c", "d"}[random.Intn(4)]
	if isAbout(c.do) {
		c.of = steps - 1 - random.Intn(steps)%8
		if c.of < 0 {
			c.of = 0
		}
		c.succeeded = random.Intn(2) == 0
		if !c.succeeded || random.Intn(4) == 0 {
			c.failed = random.Int63n(3)
		}
		c.late = random.Intn(2) == 0
		if random.Intn(2) == 0 {
			kinds := 2 + 2*random.Intn(2) // none fails, or some do
			for i := random.Intn(6); i > 0; i-- {
				c.bulk.add([]Outcome{SlowSuccess, Success, Failure, SlowFailure}[random.Intn(kinds)], 1+random.Int63n(3))
			}
		}
	}
	return c
}

// agree takes n random steps in this process, then the same ones in Redis, and requires the same answers.
// It adds up the states after them.
func agree(t testing.TB, server *redistest.Server, seed int64, n int, states map[int64]int) {
	server.Do("FLUSHALL")
	random := rand.New(rand.NewSource(seed))
	w := &walker{key: "seed" + strconv.FormatInt(seed, 10)}
	policies := []*Policy{randomPolicy(random), randomPolicy(random)}
	now := int64(0)
	lastProbe := 0
	var answers []answer
	var steps []redistest.Step
	for i := 0; i < n; i++ {
		c := choose(random, i, now)
		if c.at < -epoch/2 || c.at > epoch {
			c.at = 0 // no clock is wrong by that much
		}
		now = c.at
		policy := policies[0]
		if random.Intn(8) == 0 {
			policy = policies[1]
		}
		about := answer{}
		if isAbout(c.do) {
			if random.Intn(2) == 0 { // so that probes succeed often enough
				c.of = lastProbe
			}
			about = answers[c.of]
		}
		one := step{c.do, epoch + c.at, about.generation, about.probe, c.succeeded, c.failed, c.late, c.bulk, c.gateway, c.force, c.length}
		answers = append(answers, w.local(policy, one))
		states[answers[i].state]++
		if answers[i].probe != 0 {
			lastProbe = i
		}
		steps = append(steps, w.inRedis(policy, one))
	}
	for i, reply := range server.Walk(scripts, steps) {
		got := answerOf(reply)
		if got != answers[i] {
			require.Fail(t, "script and model differ", fmt.Sprintf("seed %d, step %d: script %v, model %v, of %v",
				seed, i, reply, answers[i].String(), steps[i]))
		}
	}
}

func (a answer) String() string {
	return fmt.Sprint(a.state, a.generation, a.failures, a.successes, a.wait, a.probe, a.born, a.repeats, a.forced)
}

// TestScripts_agreeWithTheModel compares modelSteps steps, or as many as the variable BREAKER_STEPS says.
func TestScripts_agreeWithTheModel(t *testing.T) {
	server := redistest.Start(t)
	const walkLength = 1000
	steps := modelSteps
	if text := os.Getenv("BREAKER_STEPS"); text != "" {
		var err error
		steps, err = strconv.Atoi(text)
		require.NoError(t, err, "BREAKER_STEPS")
	}
	require.GreaterOrEqual(t, steps, walkLength)
	states := map[int64]int{}
	for seed := 0; seed < steps/walkLength; seed++ {
		agree(t, server, int64(seed), walkLength, states)
	}
	t.Logf("%d steps; states after them: %v", steps/walkLength*walkLength, states)
	for state := range stateNames {
		require.Greater(t, states[int64(state)], steps/walkLength, "steps that ended in the state %s", stateNames[state])
	}
}
