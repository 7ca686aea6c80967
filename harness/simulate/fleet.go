// Package simulate runs the real limiter in fleets of up to a thousand gateways, in virtual time: on the model of its
// script that the limiter's own tests hold against Redis. It tells how much a client is let through of what its limit
// allows.
package simulate

import (
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resilient-gateway/resilience/harness/window"
	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// oneWay is how far away Redis is, each call a little differently.
const oneWay = 250 * time.Microsecond

// maxDrift is how fast or slow a gateway's clock is at most.
const maxDrift = 100e-6

// shared is the Redis of a fleet. It is safe for concurrent use.
type shared struct {
	begun time.Time

	mu     sync.Mutex // guards what follows
	model  *bucketmodel.Model
	random *rand.Rand
	calls  int
	keys   int // that they asked for
}

// Run implements ratelimit.Store.
func (s *shared) Run(calls []*store.Call, _ time.Time) error {
	time.Sleep(s.way())
	s.mu.Lock()
	now := time.Since(s.begun).Microseconds()
	for _, call := range calls {
		s.model.Serve(now, call)
		s.calls++
		s.keys += call.Number
	}
	s.mu.Unlock()
	time.Sleep(s.way())
	return nil
}

func (s *shared) way() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return oneWay/2 + time.Duration(s.random.Int63n(int64(oneWay)))
}

// fleet is gateways on one Redis.
type fleet struct {
	redis    *shared
	limit    *ratelimit.Limit
	gateways []*gateway
	asking   sync.WaitGroup
	waited   atomic.Int64 // requests, for Redis
}

// gateway is one process: what it knows dies with it.
type gateway struct {
	begun   time.Time // on its own clock, which shares no zero with the others'
	drift   float64   // and is a little fast or slow
	limiter *ratelimit.Limiter
	hand    *ratelimit.Cache

	mu       sync.Mutex    // guards admitted
	admitted []window.Span // of the one client
}

func newFleet(gateways int, limit *ratelimit.Limit, seed int64) *fleet {
	f := &fleet{
		redis: &shared{begun: time.Now(), model: bucketmodel.New(), random: rand.New(rand.NewSource(seed))},
		limit: limit,
	}
	for range gateways {
		g := &gateway{
			begun: time.Now().Add(-time.Duration(f.redis.random.Int63n(int64(time.Hour)))),
			drift: 1 + (2*f.redis.random.Float64()-1)*maxDrift,
		}
		f.restart(g)
		f.gateways = append(f.gateways, g)
	}
	return f
}

func (g *gateway) now() int64 { return int64(float64(time.Since(g.begun).Microseconds()) * g.drift) }

// restart makes a gateway forget all.
func (f *fleet) restart(g *gateway) {
	if g.limiter != nil {
		ratelimit.Close(g.limiter)
	}
	g.limiter = ratelimit.New(ratelimit.Settings{
		Store: f.redis, Prefix: "bucket:", Name: func(key string) string { return key }, Now: g.now,
	})
	g.hand = ratelimit.NewCache(g.limiter, f.limit, time.Second, ratelimit.KeyMaker{})
}

// stop returns when all that was asked is answered, and no gateway runs any more.
func (f *fleet) stop() {
	f.asking.Wait()
	for _, g := range f.gateways {
		ratelimit.Close(g.limiter)
	}
}

// ask has a client ask a gateway once, and comes back at once: who has to wait for Redis does so beside.
func (f *fleet) ask(g *gateway, key string) {
	start := time.Since(f.redis.begun).Microseconds()
	verdict := ratelimit.AllowCached(g.hand, key, g.now())
	if verdict > 0 {
		g.admit(start, start)
	}
	if verdict != 0 {
		return
	}
	limiter, hand := g.limiter, g.hand
	f.asking.Go(func() {
		verdict := ratelimit.Allow(hand, key, g.now())
		if verdict == ratelimit.Undecided {
			panic(ratelimit.LastErr(hand)) // this Redis never fails
		}
		end := time.Since(f.redis.begun).Microseconds()
		if end > start {
			f.waited.Add(1)
		}
		if verdict > 0 && limiter == g.limiter {
			g.admit(start, end)
		}
	})
}

func (g *gateway) admit(start, end int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admitted = append(g.admitted, window.Span{Start: start, End: end, Tokens: 1})
}
