//go:build !yaegi

package ratelimit

import (
	"math/rand"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// lossStore is a prompt modelStore that counts the tokens which calls took whose replies were lost.
type lossStore struct {
	*modelStore
	every int              // every n-th call, on average, loses its reply; 0: none
	lost  map[string]int64 // by key of the bucket value
}

func (s *lossStore) Run(calls []*store.Call, _ time.Time) error {
	s.clock += 10
	s.at = s.clock
	for _, call := range calls {
		s.model.Serve(epoch+s.clock, call)
		if s.every > 0 && s.random.Intn(s.every) == 0 {
			s.lose(call)
		}
	}
	s.clock += 10
	return nil
}

// lose counts what the call took, and makes its answer one that never arrived.
func (s *lossStore) lose(call *store.Call) {
	for i, answer := range strings.Fields(call.Answer) {
		ask := strings.Fields(textOf(call.Words[call.Number+2+i]))
		taken, draws := parseDraws(answer)
		if answer == plenty && ask[0] == "1" {
			taken = 1
		}
		for n, draw := range ask[1:] {
			parts := strings.Split(draw, "/")
			key, _ := strconv.Atoi(parts[0])
			cost, _ := strconv.ParseInt(parts[2], 10, 64)
			name := textOf(call.Words[key-1])
			if taken == 1 {
				s.lost[name] += cost
			}
			if draws != nil {
				s.lost[name] += draws[n].leased
			}
		}
	}
	call.Answer, call.Err = "", store.ErrUnavailable
}

// textOf returns the text of a word of a call.
func textOf(word string) string {
	return strings.TrimSuffix(word[strings.Index(word, "\r\n")+2:], "\r\n")
}

// demand is what clients ask for, and the limits that must be used.
type demand struct {
	name    string
	clients int
	each    time.Duration // time between two requests of a client
	time    time.Duration
	lossy   int      // as lossStore.every
	scale   int64    // of all limits; leases need larger ones
	used    []string // names of limits that are asked for more than they give
}

// Two gateways share three limits: 10 a second and 1000 an hour for each client, and 200 a second for everybody. Whatever is lost, no window of
// time has more than any limit gives (fleet.admit), and a limit that is asked for more is used to at least 97 per cent, besides what lost
// calls took.
func TestPlans_useWhatTheLimitsGive(t *testing.T) {
	for _, d := range []demand{
		{"300 clients, more than everybody may", 300, time.Second, 20 * time.Second, 0, 1, []string{"everyone"}},
		{"300 clients, much more than anybody may", 300, 80 * time.Millisecond, 10 * time.Second, 0, 1, []string{"everyone"}},
		{"300 clients, while replies are lost", 300, time.Second, 20 * time.Second, 50, 1, []string{"everyone"}},
		{"10 clients, more than each may in a second", 10, 50 * time.Millisecond, 60 * time.Second, 0, 1, []string{"default"}},
		{"10 clients, while replies are lost", 10, 50 * time.Millisecond, 60 * time.Second, 50, 1, []string{"default"}},
		{"3 clients, more than each may in an hour", 3, 60 * time.Millisecond, 4 * time.Minute, 0, 1, []string{"hourly"}},
		{"300 clients of large limits, more than everybody may", 300, 10 * time.Millisecond, 2 * time.Second, 0, 100, []string{"everyone"}},
		{"300 clients of large limits, while replies are lost", 300, 10 * time.Millisecond, 2 * time.Second, 50, 100, []string{"everyone"}},
		{"10 clients of large limits, more than each may in a second", 10, 500 * time.Microsecond, 3 * time.Second, 0, 100, []string{"default"}},
		{"10 clients of large limits, while replies are lost", 10, 500 * time.Microsecond, 3 * time.Second, 50, 100, []string{"default"}},
		{"3 clients, while replies are lost", 3, 60 * time.Millisecond, 4 * time.Minute, 50, 1, []string{"hourly"}},
	} {
		t.Run(d.name, func(t *testing.T) {
			w, lost := newUseFleet(d)
			defer func() {
				for _, cache := range w.caches {
					Close(cache.limiter)
				}
			}()
			admitted := w.run(t, d)
			for _, plan := range w.plans {
				for _, draw := range plan.Draws {
					for i, limit := range draw.Levels.limits {
						w.requireUse(t, d, draw, draw.Levels.names[i], limit, admitted, lost)
					}
				}
			}
		})
	}
}

func newUseFleet(d demand) (*fleet, map[string]int64) {
	random := rand.New(rand.NewSource(int64(d.clients)))
	shared := &modelStore{model: bucketmodel.New(), random: random, clock: 1}
	lossy := &lossStore{modelStore: shared, every: d.lossy, lost: map[string]int64{}}
	w := &fleet{shared: shared, random: random, spent: map[string]*window{}}
	own := NewLimit(10*d.scale, 10*d.scale, time.Second)
	client := NewLevels([]NamedLimit{{OwnLimit, own}, {"hourly", NewLimit(1000*d.scale, 1000*d.scale, time.Hour)}})
	everyone := Draw{Key: "limit:everyone:all:", Levels: NewLevels([]NamedLimit{{"everyone", NewLimit(200*d.scale, 200*d.scale, time.Second)}}), Cost: 1}
	for i := 0; i < d.clients; i++ {
		w.plans = append(w.plans, &Plan{Own: own, Draws: []Draw{{Key: "bucket:" + strconv.Itoa(i), Levels: client, Cost: 1}, everyone}, Fast: true})
	}
	for len(w.caches) < 2 {
		limiter := New(Settings{Store: lossy, Now: func() int64 { return shared.clock }})
		w.caches = append(w.caches, NewPlanCache(limiter, everyone, time.Hour))
	}
	return w, lossy.lost
}

// run lets each client send its requests, by either gateway. It returns how many were admitted, by key of a bucket value.
func (w *fleet) run(t *testing.T, d demand) map[string]int64 {
	admitted := map[string]int64{}
	end := w.shared.clock + d.time.Microseconds()
	gap := d.each.Microseconds() / int64(d.clients)
	next := w.shared.clock
	for w.shared.clock < end {
		n := w.random.Intn(len(w.plans))
		if w.request(t, w.caches[w.random.Intn(2)], n) {
			for _, draw := range w.plans[n].Draws {
				admitted[draw.Key]++
			}
		}
		next += gap
		if w.shared.clock < next {
			w.shared.clock = next
		}
	}
	return admitted
}

// requireUse requires that a limit was used, if it was asked for more than it gives.
func (w *fleet) requireUse(t *testing.T, d demand, draw Draw, name string, limit *Limit, admitted, lost map[string]int64) {
	for _, used := range d.used {
		if used != name {
			continue
		}
		gives := limit.full/limit.period + w.shared.clock*limit.refill/limit.period
		got := admitted[draw.Key] + lost[draw.Key]
		require.GreaterOrEqual(t, float64(got), 0.97*float64(gives), "%s of %s: %d admitted and %d lost, of %d",
			name, draw.Key, admitted[draw.Key], lost[draw.Key], gives)
		require.Greater(t, float64(admitted[draw.Key]), 0.9*float64(gives), "few calls are lost")
	}
}

// A client at half its rate hardly ever waits for Redis, under three limits as under one: their leases end together.
func TestPlans_callsOfAClientAtHalfItsRate(t *testing.T) {
	for _, row := range []struct {
		rate int64 // a second, of the client's own limit
		most float64
	}{{100, 0.06}, {200, 0.05}, {1000, 0.02}} {
		t.Run(strconv.FormatInt(row.rate, 10), func(t *testing.T) {
			one, three := callsOfAClient(t, row.rate, false), callsOfAClient(t, row.rate, true)
			t.Logf("%.3f calls a request under one limit, %.3f under three", one, three)
			require.LessOrEqual(t, three, row.most)
			require.LessOrEqual(t, three, one+0.005)
		})
	}
}

// callsOfAClient returns the calls for each request of a client at half its rate, under one limit or three.
func callsOfAClient(t *testing.T, rate int64, three bool) float64 {
	const requests = 2000
	shared := &modelStore{model: bucketmodel.New(), random: rand.New(rand.NewSource(1)), clock: 1}
	counted := &countedStore{lossStore: lossStore{modelStore: shared}}
	limiter := New(Settings{Store: counted, Now: func() int64 { return shared.clock }})
	defer Close(limiter)
	own := NewLimit(10*rate, rate, time.Second)
	plan, everyone := &Plan{Own: own, Fast: true}, Draw{}
	if three {
		everyone = Draw{Key: "limit:everyone:all:", Levels: NewLevels([]NamedLimit{{"everyone", NewLimit(100*rate, 100*rate, time.Second)}}), Cost: 1}
		client := NewLevels([]NamedLimit{{OwnLimit, own}, {"hourly", NewLimit(4000*rate, 4000*rate, time.Hour)}})
		plan.Draws = []Draw{{Key: "bucket:a", Levels: client, Cost: 1}, everyone}
	} else {
		plan.Draws = []Draw{{Key: "bucket:a", Levels: NewLevels([]NamedLimit{{OwnLimit, own}}), Cost: 1}}
	}
	w := &fleet{shared: shared, random: shared.random, spent: map[string]*window{}, plans: []*Plan{plan}}
	cache := NewPlanCache(limiter, everyone, time.Hour)
	for i := 0; i < requests; i++ {
		require.True(t, w.request(t, cache, 0))
		shared.clock += 2000000 / rate
	}
	return float64(counted.calls) / requests
}

// countedStore counts calls.
type countedStore struct {
	lossStore
	calls int
}

func (s *countedStore) Run(calls []*store.Call, deadline time.Time) error {
	s.calls += len(calls)
	return s.lossStore.Run(calls, deadline)
}
