// Package simulate runs the real limiter in fleets of up to a thousand gateways, in virtual time: on the model of its
// script that the limiter's own tests hold against Redis. It reports how much of what its limit allows a client
// is admitted.
package simulate

import (
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resilient-gateway/resilience/harness/window"
	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// oneWay is about the time of a call's way to Redis, and of its way back.
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
	keys   int // buckets of all calls
}

// Run implements ratelimit.Store.
func (s *shared) Run(calls []*store.Call, _ time.Time) error {
	time.Sleep(s.way())
	s.mu.Lock()
	now := time.Since(s.begun).Microseconds()
	for _, call := range calls {
		s.model.Serve(now, call)
		s.calls++
		for _, key := range call.Words[:call.Number] {
			if strings.Contains(key, "bucket:") {
				s.keys++
			}
		}
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

// gateway is one process: what it knows is lost when it ends.
type gateway struct {
	begun   time.Time // zero of its clock, different from the others'
	drift   float64   // of its clock, a factor
	limiter *ratelimit.Limiter
	cache   *ratelimit.Cache

	mu       sync.Mutex    // guards admitted
	admitted []window.Span // of the one client
}

func newFleet(gateways int, limit *ratelimit.Limit, seed int64) *fleet {
	f := &fleet{
		redis: &shared{begun: time.Now(), model: bucketmodel.New(), random: rand.New(rand.NewSource(seed))},
		limit: ratelimit.WithStanding(limit),
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

// restart replaces a gateway by one that knows nothing.
func (f *fleet) restart(g *gateway) {
	if g.limiter != nil {
		ratelimit.Close(g.limiter)
	}
	g.limiter = ratelimit.New(ratelimit.Settings{
		Store: f.redis, Prefix: "bucket:", Gateways: "gateways", Name: func(key string) string { return key }, Now: g.now,
	})
	g.cache = ratelimit.NewCache(g.limiter, f.limit, time.Second, ratelimit.KeyMaker{})
}

// stop returns when all requests are answered, and ends the gateways.
func (f *fleet) stop() {
	f.asking.Wait()
	for _, g := range f.gateways {
		ratelimit.Close(g.limiter)
	}
	time.Sleep(2 * time.Second) // virtual: until their loops have ended
}

// ask lets a client ask a gateway once, and returns at once: a request that has to wait for Redis does so in the background.
func (f *fleet) ask(g *gateway, key string) {
	start := time.Since(f.redis.begun).Microseconds()
	verdict := ratelimit.AllowCached(g.cache, key, g.now())
	if verdict > 0 {
		g.admit(start, start)
	}
	if verdict != 0 {
		return
	}
	limiter, cache := g.limiter, g.cache
	f.asking.Go(func() {
		verdict := ratelimit.Allow(cache, key, g.now())
		if verdict == ratelimit.Undecided {
			panic(ratelimit.LastErr(cache)) // this Redis never fails
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
