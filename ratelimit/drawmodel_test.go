//go:build !yaegi

package ratelimit

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// foreignKeys hold something that is not a bucket.
var foreignKeys = map[string][]interface{}{
	"a list": {"RPUSH", "a list", "x"},
	"a hash": {"HSET", "a hash", "state", "open"},
	"a text": {"SET", "a text", "1 2 3|"},
	"a set":  {"SADD", "a set", "x"},
}

// drawWalk takes n random calls of both scripts in the model, on a few values, and returns them as steps with the model's answers. Callers
// know different limits, and different numbers of the same limit. They return leases of anyone, once or twice, or lose an answer. Some clients
// are penalised.
func drawWalk(random *rand.Rand, n int) (steps []redistest.Step, answers []string) {
	m := bucketmodel.New()
	keys := []string{"key0", "key1", "key2", "key3"}
	for key := range foreignKeys {
		m.Foreign(key)
	}
	if random.Intn(4) == 0 {
		keys = append(keys, "a list", "a hash", "a text")
	}
	names := []string{"default", "hourly", "daily"}
	if random.Intn(8) == 0 {
		for len(names) < 40 {
			names = append(names, "limit-"+strconv.Itoa(len(names)))
		}
	}
	limits := map[string][]*Limit{}
	slow := random.Intn(4) == 0
	stands := random.Intn(2) == 0
	for _, name := range names {
		for len(limits[name]) < 3 {
			period := upTo(random, 36)
			if slow {
				period = upTo(random, 20)<<14 + 1
			}
			capacity := upTo(random, 30)%(1<<50/period) + 1
			limit := NewLimit(capacity, upTo(random, 20), time.Duration(period)*time.Microsecond)
			if name == OwnLimit && stands && random.Intn(4) > 0 && capacity > 1 {
				limit = withStanding(limit, 1+random.Int63n(min(capacity/2, 8)))
			}
			limits[name] = append(limits[name], limit)
		}
	}
	any := func() (string, *Limit) {
		name := names[random.Intn(len(names))]
		if random.Intn(8) == 0 {
			return name, limits[name][random.Intn(3)]
		}
		return name, limits[name][0]
	}
	var leases [][2]int64 // numbers and tokens
	returned := func() (lease, unused int64) {
		if len(leases) == 0 || random.Intn(2) == 0 {
			return 0, 0
		}
		one := leases[len(leases)-1-random.Intn(len(leases))%16]
		return one[0], random.Int63n(one[1] + 2)
	}
	now := int64(0)
	for len(steps) < n {
		_, pacing := any()
		now += pause(random, pacing)
		if now < -epoch/2 || now > epoch {
			now = 0 // no real clock is that wrong
		}
		terms := leaseText
		if random.Intn(2) == 0 {
			terms = allWords
		}
		step := redistest.Step{At: epoch + now}
		var answer string
		if stands && random.Intn(6) == 0 {
			step.Script = 3
			step.Keys, step.Args = registryKeys, anyRegistration(random)
			answer = m.Register(step.At, step.Keys, step.Args)
		} else if random.Intn(6) == 0 {
			step.Script = 2
			step.Keys, step.Args = anyPenalize(random, pacing, step.At)
			answer = m.Penalize(step.At, step.Keys, step.Args)
		} else if random.Intn(4) == 0 {
			key := keys[random.Intn(4)]
			limit := limits["default"][random.Intn(8)*random.Intn(2)/4]
			a := ask{asked: random.Int63n(4)}
			if random.Intn(8) == 0 {
				a.asked = random.Int63n(2*limit.full/limit.period + 1)
			}
			if random.Intn(2) == 0 {
				a.short = upTo(random, 14)
				a.long = random.Int63n(2 * upTo(random, 14))
			}
			a.lease, a.unused = returned()
			step.Keys, step.Args = []string{key}, []string{limit.text, terms, a.words()}
			if limit.standing > 0 {
				step.Keys = append(step.Keys, registryKeys[1])
			}
			var wire []string
			for _, word := range append(append([]string{}, step.Keys...), step.Args...) {
				wire = append(wire, store.Word(word))
			}
			answer = m.Answer(step.At, len(step.Keys), wire)
		} else {
			step.Script = 1
			step.Keys = append([]string{}, keys...)
			random.Shuffle(len(step.Keys), func(i, j int) { step.Keys[i], step.Keys[j] = step.Keys[j], step.Keys[i] })
			var words []string
			var called []*Limit
			for i := 1 + random.Intn(len(names)+2); i > 0; i-- {
				name, limit := any()
				words = append(words, limitWord(name, limit))
				called = append(called, limit)
			}
			step.Args = []string{terms, strings.Join(words, " ")}
			for i := 1 + random.Intn(3)*random.Intn(3); i > 0; i-- {
				step.Args = append(step.Args, anyAsk(random, words, called, len(step.Keys), returned))
			}
			step.Keys = append(step.Keys, clients...)
			for _, limit := range called {
				if limit.standing > 0 {
					step.Keys = append(step.Keys, registryKeys[1])
					break
				}
			}
			answer = m.Draw(step.At, step.Keys, step.Args)
		}
		for _, word := range strings.FieldsFunc(answer, func(r rune) bool { return r == ' ' || r == ',' }) {
			numbers := strings.Split(word, ":")
			if len(numbers) >= 4 && step.Script < 2 && random.Intn(8) > 0 {
				tokens, _ := strconv.ParseInt(numbers[len(numbers)-3], 10, 64)
				number, _ := strconv.ParseInt(numbers[len(numbers)-2], 10, 64)
				leases = append(leases, [2]int64{number, tokens})
			}
		}
		steps = append(steps, step)
		answers = append(answers, answer)
	}
	return steps, answers
}

// registryKeys are those of the gateways with standing leases.
var registryKeys = []string{"gateways", "gateways:count"}

// anyRegistration returns the arguments of a call of register.
func anyRegistration(random *rand.Rand) []string {
	lasts := upTo(random, 30)
	return []string{"gateway" + strconv.Itoa(random.Intn(5)), digits(lasts), strconv.Itoa(random.Intn(2)), digits(lasts + upTo(random, 30)),
		digits(upTo(random, 24)), "gateway" + strconv.Itoa(random.Intn(6))}
}

// clients are the keys of penalties. The last one holds something else.
var clients = []string{"penalty0", "penalty1", "penalty2", "a set"}

// anyPenalize returns the keys and arguments of a call of penalize. The limit paces the walk.
func anyPenalize(random *rand.Rand, pacing *Limit, now int64) (keys, args []string) {
	keys = []string{"penalties"}
	args = []string{digits(max(0, now-upTo(random, 30)*random.Int63n(2)))}
	for _, i := range random.Perm(len(clients))[:random.Intn(4)] {
		time := 1 + random.Int63n(8*pacing.period/pacing.refill+2)
		keys = append(keys, clients[i])
		args = append(args, fmt.Sprint(random.Intn(5), " ", 1+random.Intn(6), " ", time, " ", time+random.Int63n(4*time)))
	}
	return keys, args
}

// anyAsk returns a request with up to three draws. Each draw names a limit once. The clients' penalties follow the keys.
func anyAsk(random *rand.Rand, words []string, limits []*Limit, keys int, returned func() (int64, int64)) string {
	text := []string{digits(random.Int63n(8)/7 ^ 1)}
	if random.Intn(2) == 0 {
		text[0] += "p" + strconv.Itoa(keys+1+random.Intn(len(clients)*8-1)/8)
	}
	for _, key := range random.Perm(keys)[:1+random.Intn(3)] {
		d := drawAsk{key: key + 1, cost: 1}
		var indexes []string
		seen := map[string]bool{}
		least := limits[0].full / limits[0].period
		for _, i := range random.Perm(len(words)) {
			name, _, _ := strings.Cut(words[i], ":")
			if seen[name] || len(indexes) == 16 || len(indexes) > 0 && random.Intn(3) == 0 {
				continue
			}
			seen[name] = true
			indexes = append(indexes, strconv.Itoa(i+1))
			if capacity := limits[i].full / limits[i].period; capacity < least || len(indexes) == 1 {
				least = capacity
			}
		}
		d.limits = strings.Join(indexes, "+")
		switch random.Intn(8) {
		case 0:
			d.cost = random.Int63n(least + 2)
		case 1:
			d.cost = random.Int63n(least/4 + 2)
		}
		if random.Intn(8) == 0 {
			d.owed = random.Int63n(least + 2)
		}
		if random.Intn(8) == 0 {
			d.refund = random.Int63n(least + 2)
		}
		if random.Intn(2) == 0 {
			d.short, d.long = upTo(random, 14), random.Int63n(2*upTo(random, 14))
		}
		if random.Intn(3) == 0 {
			d.lease, d.unused = returned()
		}
		text = append(text, drawWord(&d))
	}
	return strings.Join(text, " ")
}

// drawsAgree walks the model and both scripts, and requires that they answer alike at every step.
func drawsAgree(t testing.TB, server *redistest.Server, seed int64, n int) {
	server.Do("FLUSHALL")
	for _, command := range foreignKeys {
		server.Do(command[0].(string), command[1:]...)
	}
	older := strings.Replace(take, "'NX', 'GET'", "'NX', 'UNKNOWN'", 1)
	steps, answers := drawWalk(rand.New(rand.NewSource(seed)), n)
	scripts := []string{take, draw, penalize, register}
	if seed%2 == 1 {
		scripts[0] = older // as a Redis before 7.0 has it
	}
	for i, reply := range server.WalkTexts(scripts, steps) {
		if reply != answers[i] {
			require.Fail(t, "script and model disagree", fmt.Sprintf("seed %d, step %d: script %v, model %v, %v",
				seed, i, reply, answers[i], steps[i]))
		}
	}
}

// TestDraw_agreesWithTheModel compares 100,000 calls, or as many as the variable DRAW_STEPS says.
func TestDraw_agreesWithTheModel(t *testing.T) {
	server := redistest.Start(t)
	const walkLength = 500
	steps := 100000
	if text := os.Getenv("DRAW_STEPS"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		steps = n
	}
	for seed := 0; seed < steps/walkLength; seed++ {
		drawsAgree(t, server, int64(seed), walkLength)
	}
}

// FuzzDraw looks for walks on which the scripts and the model disagree.
func FuzzDraw(f *testing.F) {
	server := redistest.Start(f)
	for seed := int64(0); seed < 20; seed++ {
		f.Add(seed, uint16(200))
	}
	f.Fuzz(func(t *testing.T, seed int64, length uint16) {
		drawsAgree(t, server.For(t), seed, int(length)%1000+1)
	})
}
