package ratelimit

import (
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// allWords are lease terms under which no bucket is nearly full, so that the script reports every level.
var allWords = strings.TrimSuffix(leaseText, digits(nearlyFull)) + "9"

// walk takes n random asks in the model, of a few keys, under a few limits, on a clock that mostly moves forward, and returns
// them as steps with the model's answers. All asks at the same time under the same limit are one step.
func walk(random *rand.Rand, n int) (steps []redistest.Step, answers [][]int64) {
	var limits []*Limit
	for len(limits) < 3 {
		period := upTo(random, 36) // and as many tokens as can be counted in it, or fewer: of some a full bucket is too much for others
		capacity := upTo(random, 30)%(1<<53/period) + 1
		limits = append(limits, NewLimit(capacity, upTo(random, 20), time.Duration(period)*time.Microsecond))
	}
	m := bucketmodel.New()
	var answered [][]int64 // one entry for each ask
	now := int64(0)
	for len(answered) < n {
		limit := limits[0]
		if random.Intn(8) == 0 {
			limit = limits[random.Intn(len(limits))]
		}
		now += pause(random, limit)
		if now < -epoch/2 || now > epoch {
			now = 0 // no real clock is that wrong
		}
		a := ask{asked: 1}
		if random.Intn(4) == 0 {
			a.asked = random.Int63n(2*limit.full/limit.period + 1)
		}
		if random.Intn(2) == 0 {
			a.short = upTo(random, 14)
			a.long = random.Int63n(2 * upTo(random, 14))
		}
		if len(answered) > 0 && random.Intn(3) == 0 {
			ended := answered[len(answered)-1-random.Intn(len(answered))%16]
			a.unused = random.Int63n(ended[2] + 2)
			if len(ended) > 3 {
				a.lease = ended[3]
			}
		}
		key := "key" + strconv.Itoa(random.Intn(3))
		step := askStep(key, limit, a, now)
		answer := m.Run(step.At, step.Keys, step.Args)
		answered = append(answered, answer)
		last := len(steps) - 1
		if last < 0 || steps[last].At != step.At || steps[last].Args[0] != limit.text {
			steps = append(steps, step)
			answers = append(answers, append([]int64{}, answer...))
			continue
		}
		steps[last].Keys = append(steps[last].Keys, key)
		steps[last].Args = append(steps[last].Args, a.words())
		answers[last] = append(answers[last], answer...)
	}
	return steps, answers
}

// upTo returns a random number of any length up to this many bits, each as likely.
func upTo(random *rand.Rand, bits int) int64 {
	n := int64(1)
	for i := random.Intn(bits); i > 0; i-- {
		n *= 2
	}
	return n + random.Int63n(n)
}

// pause returns the time between two steps: about that of a token, of a full bucket or of a lease, none, or a negative time that sets
// the clock back.
func pause(random *rand.Rand, limit *Limit) int64 {
	switch random.Intn(20) {
	case 16, 17:
		return random.Int63n(leaseMicros)
	case 18:
		return random.Int63n(2 * longMicros)
	case 19:
		return -random.Int63n(2 * longMicros)
	case 0:
		return random.Int63n(2*limit.full/limit.refill + 2)
	case 1:
		return -random.Int63n(limit.full/limit.refill + 2)
	case 2, 3:
		return 0
	}
	return random.Int63n(2*limit.period/limit.refill + 2)
}

// agree walks the model and the script, and requires that they answer alike at every step.
func agree(t testing.TB, server *redistest.Server, seed int64, n int) {
	server.Do("FLUSHALL")
	steps, answers := walk(rand.New(rand.NewSource(seed)), n)
	for i, reply := range server.Walk([]string{take}, steps) {
		if fmt.Sprint(reply) != fmt.Sprint(answers[i]) {
			require.Fail(t, "script and model disagree", fmt.Sprintf("seed %d, step %d: script %v, model %v, %v",
				seed, i, reply, answers[i], steps[i]))
		}
	}
}

func TestScript_agreesWithTheModel(t *testing.T) {
	server := redistest.Start(t)
	const walkLength = 1000
	for seed := int64(0); seed < modelSteps/walkLength; seed++ {
		agree(t, server, seed, walkLength)
	}
}

// TestBucket_agreesWithTheModel compares the bucket of this process with the model step by step, without leases, and on a
// clock that is never set back: the model's keys expire, which a bucket here does not.
func TestBucket_agreesWithTheModel(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for walk := 0; walk < 200; walk++ {
		m := bucketmodel.New()
		now := int64(0)
		period := time.Duration(upTo(random, 36)) * time.Microsecond
		limit := NewLimit(upTo(random, 16), upTo(random, 20), period)
		b := fullBucket(limit, epoch)
		for i := 0; i < 100; i++ {
			if p := pause(random, limit); p > 0 {
				now += p
			}
			asked := random.Int63n(2*limit.full/limit.period + 1)
			taken, level := b.take(limit, asked, epoch+now)
			s := step("key", limit, asked, now)
			require.Equal(t, m.Run(s.At, s.Keys, s.Args), []int64{taken, level, 0}, "walk %d, step %d", walk, i)
		}
	}
}
