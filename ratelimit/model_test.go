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

// model is what the script must do, in this process.
type model struct {
	buckets map[string]*modelBucket
}

// modelBucket is a bucket with its leases, gone when its key would have expired.
type modelBucket struct {
	bucket
	leases []modelLease
	due    int64
}

type modelLease struct{ deadline, tokens int64 }

// refillUntil refills up to where the level and the tokens leased make the capacity.
func (b *modelBucket) refillUntil(limit *Limit, leased, now int64) {
	full := limit.full - leased*limit.period
	if full < 0 {
		full = 0
	}
	b.level = b.refilled(&Limit{full: full, refill: limit.refill, period: limit.period}, now)
	b.period = limit.period
	if now > b.at {
		b.at = now
	}
}

// settle brings the bucket up to now: each lease that is over leaves the sum at its own time.
func (b *modelBucket) settle(limit *Limit, now int64) (setBack bool) {
	setBack = now < b.at
	if setBack {
		b.at = now
	}
	leased := int64(0)
	for _, lease := range b.leases {
		leased += lease.tokens
	}
	length := leaseTime.Microseconds()
	var kept []modelLease
	for _, lease := range b.leases {
		if lease.deadline <= now {
			b.refillUntil(limit, leased, lease.deadline)
			leased -= lease.tokens
			continue
		}
		if lease.deadline > now+length+maxLeases {
			lease.deadline = now + length
		}
		kept = append(kept, lease)
	}
	b.leases = kept
	b.refillUntil(limit, leased, now)
	return setBack
}

// end ends a lease: its tokens that were not used go back.
func (b *modelBucket) end(limit *Limit, number, unused int64) {
	for i, lease := range b.leases {
		if lease.deadline != number {
			continue
		}
		if unused > lease.tokens {
			unused = lease.tokens
		}
		leased := -lease.tokens
		for _, other := range b.leases {
			leased += other.tokens
		}
		b.level += unused * limit.period
		if full := limit.full - leased*limit.period; b.level > full {
			b.level = full
		}
		if b.level < 0 {
			b.level = 0
		}
		b.leases = append(append([]modelLease{}, b.leases[:i]...), b.leases[i+1:]...)
		return
	}
}

func (m *model) ask(key string, limit *Limit, a ask, now int64) answer {
	b := &modelBucket{bucket: fullBucket(limit, now)}
	if kept := m.buckets[key]; kept != nil && kept.due > now {
		*b = *kept
	} else {
		delete(m.buckets, key)
	}
	changed := b.settle(limit, now)
	if a.lease != 0 {
		b.end(limit, a.lease, a.unused)
		changed = true
	}
	left := b.level / limit.period
	got := answer{taken: a.asked}
	if got.taken > left {
		got.taken = left
	}
	left -= got.taken
	if left >= minLeft && len(b.leases) < maxLeases {
		got.leased = left / leaseShare
		if got.leased > a.ahead {
			got.leased = a.ahead
		}
	}
	b.level -= (got.taken + got.leased) * limit.period
	got.level = b.level
	if got.leased > 0 {
		got.lease = now + leaseTime.Microseconds()
		if n := len(b.leases); n > 0 && b.leases[n-1].deadline >= got.lease {
			got.lease = b.leases[n-1].deadline + 1
		}
		b.leases = append(b.leases, modelLease{got.lease, got.leased})
	}
	if changed || got.taken+got.leased > 0 {
		missing := limit.full - b.level
		idle := (missing+1000*limit.refill-1)/(1000*limit.refill) + 1
		if len(b.leases) > 0 {
			idle += leaseTime.Milliseconds()
		}
		b.due = now + idle*1000
		m.buckets[key] = b
	}
	return got
}

// walk takes n random steps in the model, on a few keys, under a few limits, on a clock that mostly goes forward, and
// returns them with the model's answers.
func walk(random *rand.Rand, n int) (steps []redistest.Step, answers []answer) {
	var limits []*Limit
	for len(limits) < 3 {
		period := time.Duration(upTo(random, 36)) * time.Microsecond
		limits = append(limits, NewLimit(upTo(random, 16), upTo(random, 20), period))
	}
	m := &model{buckets: map[string]*modelBucket{}}
	now := int64(0)
	for len(steps) < n {
		limit := limits[0]
		if random.Intn(8) == 0 {
			limit = limits[random.Intn(len(limits))]
		}
		now += pause(random, limit)
		if now < -epoch/2 || now > epoch {
			now = 0 // no clock is ever so wrong
		}
		a := ask{asked: 1}
		if random.Intn(4) == 0 {
			a.asked = random.Int63n(2*limit.full/limit.period + 1)
		}
		if random.Intn(2) == 0 {
			a.ahead = upTo(random, 14)
		}
		if len(answers) > 0 && random.Intn(3) == 0 {
			ended := answers[len(answers)-1-random.Intn(len(answers))%16]
			a.lease, a.unused = ended.lease, random.Int63n(ended.leased+2)
		}
		key := "key" + strconv.Itoa(random.Intn(3))
		steps = append(steps, askStep(key, limit, a, now))
		answers = append(answers, m.ask(key, limit, a, epoch+now))
	}
	return steps, answers
}

// upTo returns a number of one bit, or of any other length up to so many bits, each as likely.
func upTo(random *rand.Rand, bits int) int64 {
	n := int64(1)
	for i := random.Intn(bits); i > 0; i-- {
		n *= 2
	}
	return n + random.Int63n(n)
}

// pause is a time between two steps: about that of a token, of a full bucket, of a lease, or none, or one that the clock
// is set back.
func pause(random *rand.Rand, limit *Limit) int64 {
	switch random.Intn(20) {
	case 16, 17:
		return random.Int63n(leaseTime.Microseconds())
	case 18:
		return random.Int63n(3 * leaseTime.Microseconds())
	case 19:
		return -random.Int63n(3 * leaseTime.Microseconds())
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
		want := []int64{answers[i].taken, answers[i].level, answers[i].leased}
		if answers[i].leased > 0 {
			want = append(want, answers[i].lease)
		}
		if fmt.Sprint(reply) != fmt.Sprint(want) {
			require.Fail(t, "script and model disagree", fmt.Sprintf("seed %d, step %d: script %v, model %v, %v",
				seed, i, reply, want, steps[i]))
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
