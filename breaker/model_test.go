package breaker

import (
	"fmt"
	"math/rand"
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
}

// randomPolicy has small numbers, so that a walk meets all states often.
func randomPolicy(random *rand.Rand) *Policy {
	seconds := func(n int) time.Duration { return time.Duration(1+random.Intn(n)) * time.Second }
	return NewPolicy(1+random.Int63n(4), seconds(30), 1+random.Int63n(3), 1+random.Int63n(4), seconds(20))
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
	}
	return c
}

// agree takes n random steps in this process, then the same ones in Redis, and requires the same answers.
func agree(t testing.TB, server *redistest.Server, seed int64, n int) {
	server.Do("FLUSHALL")
	random := rand.New(rand.NewSource(seed))
	w := &walker{key: "seed" + strconv.FormatInt(seed, 10)}
	policies := []*Policy{randomPolicy(random), randomPolicy(random)}
	now := int64(0)
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
			about = answers[c.of]
		}
		one := step{c.do, epoch + c.at, about.generation, about.probe, c.succeeded, c.failed, c.late}
		answers = append(answers, w.local(policy, one))
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
	return fmt.Sprint(a.state, a.generation, a.failures, a.successes, a.wait, a.probe, a.born)
}

func TestScripts_agreeWithTheModel(t *testing.T) {
	server := redistest.Start(t)
	const walkLength = 1000
	for seed := int64(0); seed < modelSteps/walkLength; seed++ {
		agree(t, server, seed, walkLength)
	}
}
