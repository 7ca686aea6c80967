//go:build !yaegi

package ratelimit

import (
	"math/rand"
	"strconv"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// promise is a fleet in front of the model, and a window for each level. It holds what the fleet admits to the promise of each limit.
type promise struct {
	t       testing.TB
	random  *rand.Rand
	model   *bucketmodel.Model
	clock   int64
	limits  map[string]*Limit // by level: "key name"
	windows map[string]*window
	names   []string // of the limits of the client's value
	held    [3]map[string]*heldLease
	spent   int
}

// heldLease is a lease of a gateway on one value, for requests that draw on the same levels.
type heldLease struct{ number, tokens, size, until int64 }

func newPromise(t testing.TB, seed int64) *promise {
	random := rand.New(rand.NewSource(seed))
	p := &promise{t: t, random: random, model: bucketmodel.New(), limits: map[string]*Limit{}, windows: map[string]*window{}}
	p.names = []string{"default", "hourly", "daily"}[:1+random.Intn(3)]
	for _, level := range []string{"client default", "client hourly", "client daily", "all everyone"} {
		p.limits[level] = anyLimit(random)
		p.windows[level] = &window{limit: p.limits[level]}
	}
	for i := range p.held {
		p.held[i] = map[string]*heldLease{}
	}
	return p
}

// step lets a gateway do one thing, or time pass.
func (p *promise) step(step byte) {
	gateway := int(step/8) % 3
	switch step % 8 {
	case 5:
		p.clock += p.random.Int63n(4000)
	case 6:
		p.clock += upTo(p.random, 22)
	case 7:
		limit := p.limits["client "+p.names[0]]
		p.clock += p.random.Int63n(2*limit.period/limit.refill + 2)
	case 4:
		for gateway = range p.held {
			for i := 0; i < 400 && p.request(gateway, step); i++ {
			}
		}
	default:
		for i := upTo(p.random, 8); i > 0 && p.request(gateway, step); i-- {
		}
	}
}

// request sends a request of one of three routes: all limits of the client and one that all clients share; the client's limits without
// default, as for a client in a tier; or default only, by take.
func (p *promise) request(gateway int, step byte) bool {
	switch {
	case step >= 224:
		return p.requestOfOne(gateway)
	case step >= 192 && len(p.names) > 1:
		return p.requestOfSeveral(gateway, map[string][]string{"client": p.names[1:]})
	}
	return p.requestOfSeveral(gateway, map[string][]string{"client": p.names, "all": {"everyone"}})
}

func (p *promise) lease(gateway int, name string) *heldLease {
	if p.held[gateway][name] == nil {
		p.held[gateway][name] = &heldLease{}
	}
	return p.held[gateway][name]
}

// requestOfSeveral reserves what leases cover and asks for the rest.
func (p *promise) requestOfSeveral(gateway int, plan map[string][]string) bool {
	var keys, words []string
	ask := "1"
	var asked []*heldLease
	for _, key := range []string{"client", "all"} {
		names := plan[key]
		if names == nil {
			continue
		}
		lease := p.lease(gateway, key+strings.Join(names, "+"))
		if lease.tokens > 0 && p.clock < lease.until && p.random.Intn(16) > 0 {
			continue // otherwise it returns the rest
		}
		keys = append(keys, key)
		d := drawAsk{key: len(keys), cost: 1, short: upTo(p.random, 6), long: upTo(p.random, 6)}
		if lease.number != 0 {
			d.lease, d.unused = lease.number, lease.tokens
		}
		*lease = heldLease{}
		var indexes []string
		for _, name := range names {
			words = append(words, limitWord(name, p.limits[key+" "+name]))
			indexes = append(indexes, strconv.Itoa(len(words)))
		}
		d.limits = strings.Join(indexes, "+")
		ask += " " + drawWord(&d)
		asked = append(asked, lease)
	}
	sentAt := p.clock
	admitted := true
	decided := p.clock
	if keys != nil {
		p.clock += p.random.Int63n(100)
		decided = p.clock
		answer := p.model.Draw(epoch+p.clock, keys, []string{allWords, strings.Join(words, " "), ask})
		p.clock += p.random.Int63n(100)
		if p.random.Intn(16) == 0 {
			return false // the answer is lost
		}
		taken, draws := parseDraws(answer)
		admitted = taken == 1
		for i, lease := range asked {
			d := draws[i]
			*lease = heldLease{number: d.lease, tokens: d.leased, size: d.leased, until: sentAt + lasts(d.length)}
		}
	}
	if !admitted {
		p.tookNothing(keys, words, ask)
		return false
	}
	for key, names := range plan {
		isAsked := strings.Contains(strings.Join(keys, " "), key)
		if !isAsked {
			p.lease(gateway, key+strings.Join(names, "+")).tokens--
		}
		for _, name := range names {
			p.windows[key+" "+name].admit(p.t, decided)
		}
	}
	p.spent++
	return true
}

// tookNothing requires that a refused request changes no level.
func (p *promise) tookNothing(keys, words []string, ask string) {
	var draws []string
	for _, word := range strings.Fields(ask)[1:] {
		draws = append(draws, strings.Join(strings.Split(word, "/")[:5], "/"))
	}
	text := " " + strings.Join(draws, " ")
	run := func(want string) string {
		return p.model.Draw(epoch+p.clock, keys, []string{allWords, strings.Join(words, " "), want + text})
	}
	before := run("0")
	if answer := run("1"); answer[0] == '0' {
		require.Equal(p.t, before, answer)
		require.Equal(p.t, before, run("0"))
		return
	}
	p.windowsOf(keys, draws, words)
}

// windowsOf counts a request that tookNothing happened to get through: a token came back meanwhile.
func (p *promise) windowsOf(keys, draws, words []string) {
	for _, draw := range draws {
		parts := strings.Split(draw, "/")
		key, _ := strconv.Atoi(parts[0])
		for _, i := range strings.Split(parts[1], "+") {
			index, _ := strconv.Atoi(i)
			name, _, _ := strings.Cut(words[index-1], ":")
			p.windows[keys[key-1]+" "+name].admit(p.t, p.clock)
		}
	}
}

// requestOfOne is a request under default only, by the script take.
func (p *promise) requestOfOne(gateway int) bool {
	if p.names[0] != "default" {
		return false
	}
	limit := p.limits["client default"]
	lease := p.lease(gateway, "one")
	decided := p.clock
	if lease.tokens > 0 && p.clock < lease.until && p.random.Intn(16) > 0 {
		lease.tokens--
	} else {
		a := ask{asked: 1, short: upTo(p.random, 6), long: upTo(p.random, 6), lease: lease.number, unused: lease.tokens}
		*lease = heldLease{}
		sentAt := p.clock
		p.clock += p.random.Int63n(100)
		decided = p.clock
		call := &store.Call{Number: 1, Words: []string{store.Word("client"), limit.wire, store.Word(allWords), store.Word(a.words())}}
		p.model.Serve(epoch+p.clock, call)
		p.clock += p.random.Int63n(100)
		got := parseAnswer(call.Answer)
		*lease = heldLease{number: got.lease, tokens: got.leased, size: got.leased, until: sentAt + lasts(got.length)}
		if got.taken == 0 {
			return false
		}
	}
	p.windows["client default"].admit(p.t, decided)
	p.spent++
	return true
}

// FuzzDrawPromise lets three gateways, each with three routes of different limits, share two values, and holds what they admit to the promise
// of each limit: in every window of time t, at most capacity + refill x t, leases and lost answers included. A refused request takes nothing.
func FuzzDrawPromise(f *testing.F) {
	for seed := int64(0); seed < 60; seed++ {
		steps := make([]byte, 300)
		rand.New(rand.NewSource(seed)).Read(steps)
		f.Add(seed, steps)
	}
	f.Fuzz(func(t *testing.T, seed int64, steps []byte) {
		if len(steps) > 1000 {
			steps = steps[:1000]
		}
		p := newPromise(t, seed)
		for _, step := range steps {
			p.step(step)
		}
	})
}
