//go:build !yaegi

package ratelimit

import (
	"math/rand"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// modelStore is the model instead of Redis. Calls take time in both directions. A lossy store loses replies. A late store also loses
// calls, sometimes many in succession. Connections die now and then: the call, which Redis has made or not, is repeated, if it may be.
type modelStore struct {
	model  *bucketmodel.Model
	random *rand.Rand
	lossy  bool
	late   bool
	lost   int64 // how many more calls get lost
	clock  int64
	at     int64 // when it last decided; 0: not since it was set to 0
}

func (s *modelStore) Run(calls []*store.Call, _ time.Time) error {
	s.pass()
	s.at = s.clock
	for _, call := range calls {
		if s.late && s.random.Intn(16) == 0 {
			s.lost = upTo(s.random, 11)
		}
		if s.lost > 0 {
			s.lost--
			call.Answer, call.Err = "", store.ErrUnavailable
			continue
		}
		if s.random.Intn(16) == 0 && !s.repeat(call) {
			continue
		}
		s.model.Serve(epoch+s.clock, call)
		if s.lossy && s.random.Intn(16) == 0 {
			call.Answer, call.Err = "", store.ErrUnavailable
		}
	}
	s.pass()
	return nil
}

// repeat lets the connection of a call die. It reports whether the call is made again.
func (s *modelStore) repeat(call *store.Call) bool {
	if s.random.Intn(2) == 0 {
		s.model.Serve(epoch+s.clock, call)
	}
	if call.Once && call.Again == nil {
		call.Answer, call.Err = "", store.ErrUnavailable
		return false
	}
	if call.Again != nil {
		call.Again(call)
	}
	return true
}

// pass advances the clock by some microseconds, and occasionally by much of a lease.
func (s *modelStore) pass() {
	if s.random.Intn(64) == 0 {
		s.clock += upTo(s.random, 18)
	}
	s.clock += upTo(s.random, 5)
}

// FuzzLeases lets three gateways share a bucket of the model's, and holds what they admit to the promise: in every window
// of time t, at most capacity + refill x t, leases and lost replies included. Each byte is a step. With one gateway, the promise holds
// though it decides by itself whenever Redis is late.
func FuzzLeases(f *testing.F) {
	for seed := int64(0); seed < 20; seed++ {
		steps := make([]byte, 300)
		rand.New(rand.NewSource(seed)).Read(steps)
		f.Add(seed, steps)
	}
	f.Fuzz(func(t *testing.T, seed int64, steps []byte) { leasesWalk(t, seed, steps) })
}

func leasesWalk(t *testing.T, seed int64, steps []byte) {
	if len(steps) > 1000 {
		steps = steps[:1000]
	}
	random := rand.New(rand.NewSource(seed))
	limit := anyLimit(random)
	shared := &modelStore{model: bucketmodel.New(), random: random, lossy: random.Intn(4) == 0, clock: 1}
	number := 3
	if random.Intn(3) == 0 {
		number, shared.lossy, shared.late = 1, random.Intn(2) == 0, true
	}
	var gateways []*Limiter
	for len(gateways) < number {
		ahead := random.Int63n(1000000000) // no two clocks have the same zero
		gateways = append(gateways, New(Settings{
			Store: shared, Name: func(key string) string { return key }, Now: func() int64 { return shared.clock + ahead },
		}))
	}
	defer func() {
		for _, g := range gateways {
			Close(g)
		}
	}()
	w := &window{limit: limit}
	for _, step := range steps {
		g := gateways[int(step/8)%len(gateways)]
		switch step % 8 {
		case 3, 4:
			w.ask(t, shared, g, upTo(random, 11))
		case 5: // all gateways, until all tokens are spent
			for _, g := range gateways {
				w.ask(t, shared, g, 2000)
			}
		case 6:
			shared.clock += upTo(random, 22) // up to the duration of a long lease
		case 7:
			shared.clock += random.Int63n(2*limit.period/limit.refill + 2)
		default:
			w.ask(t, shared, g, 1)
		}
	}
}

// anyLimit returns a limit of up to a thousand tokens. A bucket fills up within a part of a lease, or takes several leases.
func anyLimit(random *rand.Rand) *Limit {
	capacity, refill := 1+random.Int63n(1000), 1+random.Int63n(1000)
	fillsUpIn := leaseMicros/16 + upTo(random, 22)
	return NewLimit(capacity, refill, time.Duration(fillsUpIn*refill/capacity+1)*time.Microsecond)
}

// admitted asks like a request.
func admitted(shared *modelStore, g *Limiter, limit *Limit) bool {
	verdict, err := allowBy(NewCache(g, limit, time.Hour, KeyMaker{}), "key", "key", g.Now())
	if err != nil && shared.late {
		shared.at = 0
		return allowedLocal(g, "key", limit, g.Now())
	}
	return err == nil && verdict > 0
}

// window watches all windows that begin with an admission and end with the last one.
type window struct {
	limit *Limit
	most  int64 // of the levels, in the limit's units, that the windows have come to
	last  int64
}

// ask sends some requests, until one is refused.
func (w *window) ask(t testing.TB, shared *modelStore, g *Limiter, requests int64) {
	for ; requests > 0; requests-- {
		shared.at = 0
		if !admitted(shared, g, w.limit) {
			return
		}
		at := shared.at
		if at == 0 {
			at = shared.clock // it decided without Redis
		}
		w.admit(t, at)
	}
}

// admit counts an admission. The fuzz test takes one step at a time, so admissions come in order of time.
func (w *window) admit(t testing.TB, at int64) {
	if w.most > 0 {
		w.most -= (at - w.last) * w.limit.refill
	}
	if w.most < 0 {
		w.most = 0
	}
	w.most += w.limit.period
	w.last = at
	require.LessOrEqual(t, w.most, w.limit.full, "more than capacity + refill x t, at %d", at)
}

// refund takes an admission back, as far as time has not refilled it.
func (w *window) refund(at int64) {
	w.most -= (at-w.last)*w.limit.refill + w.limit.period
	if w.most < 0 {
		w.most = 0
	}
	w.last = at
}
