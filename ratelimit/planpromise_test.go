//go:build !yaegi

package ratelimit

import (
	"fmt"
	"math/rand"
	"runtime"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/stretchr/testify/require"
)

// FuzzPlans lets three gateways share buckets of the model's under plans of several draws, and holds what they admit to the promise: for
// every limit, in every window of time t, at most capacity + refill x t, leases and lost replies included. Each byte is a step. With one
// gateway, the promise holds though it decides by itself whenever Redis is late. Some clients are penalised: no call admits them meanwhile.
func FuzzPlans(f *testing.F) {
	for seed := int64(0); seed < 30; seed++ {
		steps := make([]byte, 300)
		rand.New(rand.NewSource(seed)).Read(steps)
		f.Add(seed, steps)
	}
	f.Fuzz(func(t *testing.T, seed int64, steps []byte) { plansWalk(t, seed, steps) })
}

// fleet is gateways whose requests are under the same plans.
type fleet struct {
	shared *modelStore
	random *rand.Rand
	caches []*Cache
	plans  []*Plan
	spent  map[string]*window // by the key of the bucket value and the name of the limit

	penalises bool
}

func plansWalk(t *testing.T, seed int64, steps []byte) {
	if len(steps) > 1000 {
		steps = steps[:1000]
	}
	w := newFleet(seed)
	defer func() {
		for _, cache := range w.caches {
			Close(cache.limiter)
		}
	}()
	for _, step := range steps {
		cache := w.caches[int(step/8)%len(w.caches)]
		switch step % 8 {
		case 3, 4:
			w.ask(t, cache, upTo(w.random, 11))
		case 5:
			for _, cache := range w.caches {
				w.ask(t, cache, 2000)
			}
		case 6:
			w.shared.clock += upTo(w.random, 22)
			if w.penalises {
				w.report(cache)
			}
		case 7:
			w.shared.clock += upTo(w.random, 18)
		default:
			w.ask(t, cache, 1)
		}
	}
}

func newFleet(seed int64) *fleet {
	random := rand.New(rand.NewSource(seed))
	shared := &modelStore{model: bucketmodel.New(), random: random, lossy: random.Intn(4) == 0, clock: 1}
	number := 3
	if random.Intn(3) == 0 {
		number, shared.lossy, shared.late = 1, random.Intn(2) == 0, true
	}
	w := &fleet{shared: shared, random: random, spent: map[string]*window{}}
	own, hourly, tier, common := anyLimit(random), anyLimit(random), anyLimit(random), anyLimit(random)
	client := NewLevels([]NamedLimit{{OwnLimit, own}, {"hourly", hourly}})
	rest := NewLevels([]NamedLimit{{"hourly", hourly}})
	tiered := NewLevels([]NamedLimit{{"tier", tier}})
	everyone := Draw{Key: "limit:everyone:all:", Levels: NewLevels([]NamedLimit{{"everyone", common}}), Cost: 1}
	w.plans = []*Plan{
		{Own: own, Draws: []Draw{{Key: "bucket:a", Levels: client, Cost: 1}, everyone}, Fast: true},
		{Own: own, Draws: []Draw{{Key: "bucket:b", Levels: client, Cost: 1}, everyone}, Fast: true},
		{Own: own, Draws: []Draw{{Key: "limit:tier:c", Levels: tiered, Cost: 1}, {Key: "bucket:c", Levels: rest, Cost: 1}, everyone}},
	}
	if cost := 1 + random.Int63n(3); cost <= client.Capacity() {
		w.plans = append(w.plans, &Plan{Own: own, Draws: []Draw{{Key: "bucket:a", Levels: client, Cost: cost}, everyone}})
	}
	for len(w.caches) < number {
		ahead := random.Int63n(1000000000) // no two clocks have the same zero
		limiter := New(Settings{Store: shared, Now: func() int64 { return shared.clock + ahead }})
		w.caches = append(w.caches, NewPlanCache(limiter, everyone, time.Hour))
	}
	if random.Intn(2) == 0 {
		w.penalise()
	}
	return w
}

// penalise gives each client a penalty. Reports are steps of the walk, as the model serves one caller at a time.
func (w *fleet) penalise() {
	w.penalises = true
	rule := NewPenalty(1+w.random.Int63n(20), time.Duration(upTo(w.random, 22))*time.Microsecond, time.Duration(upTo(w.random, 26))*time.Microsecond)
	for i, client := range []string{"a", "b", "c", "a"} {
		if i < len(w.plans) {
			w.plans[i].Penalty, w.plans[i].Client = rule, "penalty:"+client
		}
	}
	for _, cache := range w.caches {
		cache.limiter.reportByTimer = func() {}
		cache.limiter.reportNow = func() {}
	}
}

// report reports a gateway's refusals.
func (w *fleet) report(cache *Cache) {
	cache.lock.Lock()
	cache.limiter.reporting = false
	cache.lock.Unlock()
	reportRefusals(cache.limiter, true)
}

// ask sends requests of one identity, until one is refused.
func (w *fleet) ask(t testing.TB, cache *Cache, requests int64) {
	n := w.random.Intn(len(w.plans))
	plan := w.plans[n]
	for ; requests > 0; requests-- {
		w.shared.at = 0
		leased, began := w.leased(cache, plan), w.shared.clock
		admitted := w.admitted(cache, plan, fmt.Sprint(n))
		for !isQuiet(cache.limiter) {
			runtime.Gosched() // a renewal is in flight: the model serves one caller at a time
		}
		if !admitted {
			return
		}
		if plan.Penalty != nil && w.shared.at > 0 && !leased[0] {
			require.Zero(t, w.shared.model.PenaltyLeft(plan.Client, epoch+w.shared.at), "a call admits a penalised client")
		}
		for i, draw := range plan.Draws {
			switch {
			case leased[i]:
				w.admit(t, draw, began) // the call for the other draws took time
			case w.shared.at == 0:
				w.admit(t, draw, w.shared.clock) // it decided without Redis
			default:
				w.admit(t, draw, w.shared.at)
			}
		}
	}
}

// leased reports which draws a gateway can pay from its leases.
func (w *fleet) leased(cache *Cache, plan *Plan) []bool {
	now := cache.limiter.Now()
	cache.lock.Lock()
	defer cache.lock.Unlock()
	taking := newTaking(plan)
	findLeasesLocked(cache, taking, now)
	var leased []bool
	for i, lease := range taking.leases {
		leased = append(leased, lease.Tokens >= plan.Draws[i].Cost && now < lease.ends)
	}
	return leased
}

// admitted asks like a request: by the fast path, and else by the slow path.
func (w *fleet) admitted(cache *Cache, plan *Plan, id string) bool {
	now := cache.limiter.Now()
	cache.lock.Lock()
	if g := cache.Grants[id]; g != nil && g.Tokens > 0 && now < g.Until && cache.Common.Tokens > 0 && now < cache.Common.Until {
		g.Tokens--
		cache.Common.Tokens--
		cache.lock.Unlock()
		return true
	}
	verdict, _ := AcquirePlan(cache, plan, id, now)
	if verdict == Undecided && w.shared.late {
		w.shared.at = 0
		verdict, _ = AcquirePlanLocal(cache, plan, cache.limiter.Now())
	}
	return verdict > 0
}

// admit counts an admission against every limit of a draw.
func (w *fleet) admit(t testing.TB, draw Draw, at int64) {
	for i, limit := range draw.Levels.limits {
		key := draw.Key + " " + draw.Levels.names[i]
		if w.spent[key] == nil {
			w.spent[key] = &window{limit: limit}
		}
		for n := int64(0); n < draw.Cost; n++ {
			w.spent[key].admit(t, at)
		}
	}
}
