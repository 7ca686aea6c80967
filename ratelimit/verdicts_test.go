package ratelimit

import (
	"fmt"
	"hash/crc64"
	"math/rand"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// The sums of the verdicts that random requests get, after 20 walks and after 1000 walks of a thousand steps. A change of structure
// leaves them as they are. One that changes when Redis is asked, or for how much, changes them, and says so.
var verdictSums = map[int64]uint64{20: 0xa9e52d691fa37103, 1000: 0xe53e78139f7e2d5f}

func TestVerdicts_ofAMillionRandomStepsAreUnchanged(t *testing.T) {
	table := crc64.MakeTable(crc64.ISO)
	sum := uint64(0)
	for seed := int64(0); seed < verdictSteps/1000; seed++ {
		sum = crc64.Update(sum, table, []byte(fmt.Sprint(verdictsOf(seed, 1000))))
		if want, ok := verdictSums[seed+1]; ok {
			require.Equal(t, want, sum, "after %d walks", seed+1)
		}
	}
}

// verdictsOf returns the verdicts of a random walk: two gateways with two routes each, a few clients, lost calls, and times when Redis is
// unavailable. If leases may be long, and so are renewed in the background, all routes have the same limit.
func verdictsOf(seed int64, steps int) []int64 {
	verdicts := []int64{}
	random := rand.New(rand.NewSource(seed))
	redis := &verdictStore{answer: bucketmodel.New().Answer, random: random, clock: 1}
	limits := verdictLimits(random)
	var routes []*Cache
	for i := 0; i < 2; i++ {
		l := newVerdictLimiter(redis, random.Int63n(1000000000))
		defer Close(l)
		many := KeyMaker{MaxJoin: -1, Key: func(id string) string { return "header:" + id[:1] }, ManyToOne: true}
		routes = append(routes, NewCache(l, limits[0], time.Hour, headers), NewCache(l, limits[1], time.Hour, many))
	}
	for i := 0; i < steps; i++ {
		cache := routes[random.Intn(len(routes))]
		l := cache.limiter
		switch random.Intn(40) {
		case 0:
			redis.clock += upTo(random, 28)
		case 1, 2, 3:
			redis.clock += random.Int63n(2*limits[0].period/limits[0].refill + 2)
		case 4:
			redis.lost = upTo(random, 4)
		case 5:
			l.Unavailable.Store(random.Intn(4) == 0)
		case 6:
			*l.HealthyUntil = l.Now() + upTo(random, 24)
		}
		redis.clock += upTo(random, 14)
		id := digits(random.Int63n(5))
		id += "xyz"[:random.Intn(3)]
		now := l.Now()
		verdict := Allow(cache, id, now)
		if verdict == Undecided {
			verdict = AllowLocal(l, bucketKey(cache, id), cache.limit, now)
		} else if verdict > 1 {
			verdict = 2 + verdict - now
		}
		awaitIdle(l)
		verdicts = append(verdicts, verdict)
	}
	return verdicts
}

// newVerdictLimiter returns a gateway whose clock is ahead of Redis's.
func newVerdictLimiter(redis *verdictStore, ahead int64) *Limiter {
	return New(Settings{
		Store: redis, HealthyUntil: new(int64), Name: func(key string) string { return key }, Now: func() int64 { return redis.clock + ahead },
	})
}

// verdictLimits returns the limits of a gateway's routes.
func verdictLimits(random *rand.Rand) []*Limit {
	capacity := upTo(random, 14)
	if random.Intn(2) == 0 {
		limit := NewLimit(capacity, 1+random.Int63n(10000), time.Second)
		return []*Limit{limit, limit}
	}
	return []*Limit{
		NewLimit(capacity, 1+random.Int63n(60), time.Minute), NewLimit(1+random.Int63n(1000), 1+random.Int63n(60), time.Minute),
	}
}

// awaitIdle returns when no batch is in flight.
func awaitIdle(l *Limiter) {
	for busy := true; busy; {
		l.Mu.Lock()
		busy = l.inFlight > 0
		l.Mu.Unlock()
		if busy {
			time.Sleep(time.Microsecond)
		}
	}
}

// verdictStore is the model instead of Redis. A call without a reply may or may not have been made.
type verdictStore struct {
	answer func(now int64, number int, words []string) string
	random *rand.Rand
	clock  int64
	lost   int64 // how many more calls have no reply
}

func (s *verdictStore) Run(calls []*store.Call, _ time.Time) error {
	s.clock += 100
	for _, call := range calls {
		if s.lost > 0 && s.lost%2 == 0 {
			call.Err = store.ErrUnavailable
		} else {
			call.Answer, call.Err = s.answer(epoch+s.clock, call.Number, call.Words), nil
		}
		if s.lost > 0 {
			s.lost--
			call.Answer, call.Err = "", store.ErrUnavailable
		}
	}
	s.clock += 100
	return nil
}
