package ratelimit

import (
	"math/rand"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// penalisedPlan is a plan of one token that does not refill during a test.
func penalisedPlan(client string, rule *Penalty) *Plan {
	limit := NewLimit(1, 1, time.Hour)
	levels := NewLevels([]NamedLimit{{OwnLimit, limit}})
	return &Plan{Own: limit, Draws: []Draw{{Key: "bucket:" + client, Levels: levels, Cost: 1}}, Penalty: rule, Client: "penalty:" + client}
}

func acquire(cache *Cache, plan *Plan) (int64, Refusal) {
	cache.lock.Lock()
	return AcquirePlan(cache, plan, plan.Client, cache.limiter.Now())
}

// A process counts like the script, which the model stands for.
func TestPenalty_countsLikeTheScript(t *testing.T) {
	for seed := int64(0); seed < 50; seed++ {
		random := rand.New(rand.NewSource(seed))
		rule := NewPenalty(1+random.Int63n(5), time.Second, time.Duration(1+random.Int63n(20))*time.Second)
		c, model, now := &clientPenalty{rule: rule}, bucketmodel.New(), int64(0)
		for step := 0; step < 500; step++ {
			now += random.Int63n(2 * second)
			added := random.Int63n(4)
			if added > 0 {
				countHereLocked(c, added, now)
			}
			words := model.Penalize(epoch+now, []string{"penalties", "p"}, []string{digits(epoch + now + 1), digits(added) + rule.text})
			number := digits(0)
			if penalisedLocked(c, now) > 0 {
				number = digits(penalisedLocked(c, now))
			}
			require.Regexp(t, ` `+number+`( |$)`, words, "seed %d, step %d", seed, step)
		}
	}
}

// reportCounter passes calls to a store and counts those that report refusals.
type reportCounter struct {
	store *store.Store
	calls int64
}

func (c *reportCounter) Run(calls []*store.Call, deadline time.Time) error {
	for _, call := range calls {
		if call.Script == penalizeScript {
			atomic.AddInt64(&c.calls, 1)
		}
	}
	return c.store.Run(calls, deadline)
}

// However many requests are refused, Redis is asked a bounded number of times.
func TestPenalty_reportsAFloodInBulk(t *testing.T) {
	server := redistest.Start(t)
	counted := &reportCounter{store: newStore(t, server.Addr())}
	l := newLimiter(counted)
	defer Close(l)
	cache := NewPlanCache(l, Draw{}, 5*time.Second)
	rule := NewPenalty(1000000, time.Minute, time.Hour)
	const clients = 150
	begun := time.Now()
	for round := 0; round < 2; round++ {
		for i := 0; i < clients; i++ {
			acquire(cache, penalisedPlan(strconv.Itoa(i), rule))
		}
	}
	for round := 0; round < 20; round++ {
		for i := 0; i < clients; i++ {
			_, refusal := acquire(cache, penalisedPlan(strconv.Itoa(i), rule))
			require.Equal(t, OwnLimit, refusal.Limit)
		}
	}
	count := func(client string) string { return server.Text("GET", "penalty:"+client) }
	eventually(t, func() bool {
		for _, client := range []string{"0", "75", "149"} {
			if server.Int("EXISTS", "penalty:"+client) == 0 {
				return false
			}
		}
		return true
	})
	eventually(t, func() bool { return len(count("149")) > 6 && count("149")[:7] == "0 0 21 " }, "21 refusals")
	reports := int64(time.Since(begun)/reportEvery) + 2
	require.LessOrEqual(t, atomic.LoadInt64(&counted.calls), 3*reports, "150 clients are three calls, once in 100 ms")
}

func TestPenalty_tableIsBounded(t *testing.T) {
	rule := NewPenalty(2, time.Minute, time.Hour)
	l := New(Settings{Now: func() int64 { return 1 }})
	defer Close(l)
	cache := NewPlanCache(l, Draw{}, time.Second)
	first := penalisedPlan("first", rule)
	for i := 0; i < 3; i++ {
		AcquirePlanLocal(cache, first, 1)
	}
	for i := 0; i < 3*halfOfClients; i++ {
		l.Mu.Lock()
		clientOfPlanLocked(cache, penalisedPlan(strconv.Itoa(i), rule), 1)
		l.Mu.Unlock()
	}
	require.LessOrEqual(t, len(l.clients)+len(l.olderClients), 2*halfOfClients)
	_, refusal := AcquirePlanLocal(cache, first, 1)
	require.Equal(t, PenaltyName, refusal.Limit, "a flood of clients ends no penalty")
}
