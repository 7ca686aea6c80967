package ratelimit

import (
	"fmt"
	"math/rand"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// model is what the script must do: a bucket in this process for each key, gone when its key would have expired.
type model struct {
	buckets map[string]*bucket
	due     map[string]int64
}

func (m *model) take(key string, limit *Limit, asked, now int64) (taken, level int64) {
	b := m.buckets[key]
	if b == nil || m.due[key] <= now {
		full := fullBucket(limit, now)
		b = &full
		m.buckets[key] = b
		delete(m.due, key)
	}
	before := b.at
	taken, level = b.take(limit, asked, now)
	if taken > 0 || m.due[key] != 0 && now < before {
		missing := limit.full - level
		m.due[key] = now + ((missing+1000*limit.refill-1)/(1000*limit.refill)+1)*1000
	} else if m.due[key] == 0 {
		delete(m.buckets, key)
	}
	return taken, level
}

// walk returns a random walk of n steps, on a few keys, under a few limits, on a clock that mostly goes forward.
func walk(random *rand.Rand, n int) ([]redistest.Step, []*Limit) {
	var limits []*Limit
	for len(limits) < 3 {
		period := time.Duration(upTo(random, 36)) * time.Microsecond
		limits = append(limits, NewLimit(upTo(random, 16), upTo(random, 20), period))
	}
	now := int64(0)
	var steps []redistest.Step
	var used []*Limit
	for len(steps) < n {
		limit := limits[random.Intn(len(limits))]
		now += pause(random, limit)
		if now < -epoch/2 || now > epoch {
			now = 0 // no clock is ever so wrong
		}
		asked := int64(1)
		if random.Intn(4) == 0 {
			asked = random.Int63n(2*limit.full/limit.period + 1)
		}
		steps = append(steps, step("key"+strconv.Itoa(random.Intn(4)), limit, asked, now))
		used = append(used, limit)
	}
	return steps, used
}

// upTo returns a number of one bit, or of any other length up to so many bits, each as likely.
func upTo(random *rand.Rand, bits int) int64 {
	n := int64(1)
	for i := random.Intn(bits); i > 0; i-- {
		n *= 2
	}
	return n + random.Int63n(n)
}

// pause is a time between two steps: about that of a token, of a full bucket, or none, or one that the clock is set back.
func pause(random *rand.Rand, limit *Limit) int64 {
	switch random.Intn(16) {
	case 0:
		return random.Int63n(2*limit.full/limit.refill + 2)
	case 1:
		return -random.Int63n(limit.full/limit.refill + 2)
	case 2, 3:
		return 0
	}
	return random.Int63n(2*limit.period/limit.refill + 2)
}

// agree walks the script and the model, and requires that they answer alike at every step.
func agree(t testing.TB, server *redistest.Server, seed int64, n int) {
	server.Do("FLUSHALL")
	steps, limits := walk(rand.New(rand.NewSource(seed)), n)
	m := &model{buckets: map[string]*bucket{}, due: map[string]int64{}}
	for i, answer := range server.Walk([]string{take}, steps) {
		s := steps[i]
		asked, err := strconv.ParseInt(s.Args[3], 10, 64)
		require.NoError(t, err)
		taken, level := m.take(s.Keys[0], limits[i], asked, s.At)
		if answer[0] != taken || answer[1] != level {
			require.Fail(t, "script and model disagree", fmt.Sprintf("seed %d, step %d: script %v, model %v %v, %s %v at %d",
				seed, i, answer, taken, level, s.Keys[0], s.Args, s.At))
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
