package breaker

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// A permit that its request does not use gives its place back, and one that is used does not.
func TestPermitRequest_unusedPermitGivesItsPlaceBack(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	request := func(g *gateway) *PermitRequest { return g.RequestPermit(policy, false, g.clock()) }
	for _, row := range []struct {
		name string
		do   func(t *testing.T, g *gateway)
	}{
		{"it came too late", func(t *testing.T, g *gateway) {
			g.block = make(chan struct{})
			_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(50*time.Millisecond))
			require.ErrorIs(t, err, store.ErrUnavailable)
			require.False(t, g.IsUnavailable())
			close(g.block)
		}},
		{"it was not needed", func(t *testing.T, g *gateway) {
			p := request(g)
			g.finishPiggyback(t, policy)
			require.Nil(t, g.PiggybackCall(g.clock(), policy), "it goes with one call")
			require.False(t, placeIsFree(server))
			g.Cancel(p)
		}},
		{"its request panicked before it was awaited", func(t *testing.T, g *gateway) {
			p := request(g)
			g.finishPiggyback(t, policy)
			require.False(t, placeIsFree(server))
			g.CancelUnclaimed(p)
		}},
		{"its answer was lost", func(t *testing.T, g *gateway) {
			p := request(g)
			call := g.PiggybackCall(g.clock(), policy)
			g.store.Run([]*store.Call{call}, time.Now().Add(time.Second))
			require.False(t, placeIsFree(server))
			call.Err = store.ErrUnavailable // as if the answer had been lost
			store.Finish(call)
			_, _, err := g.Await(p, time.Now().Add(time.Second))
			require.ErrorIs(t, err, store.ErrUnavailable)
		}},
		{"it was awaited, and the request panicked later", func(t *testing.T, g *gateway) {
			p := request(g)
			permit, _, err := g.Await(p, time.Now().Add(patience))
			require.NoError(t, err)
			g.CancelUnclaimed(p)
			time.Sleep(20 * time.Millisecond) // nothing shows that no call is made
			require.False(t, placeIsFree(server))
			g.report(permit, Unknown, policy)
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server.Do("FLUSHALL")
			g := newGateway(t, server)
			g.openUntilProbe(t, server, policy)
			row.do(t, g)
			require.Eventually(t, func() bool { return placeIsFree(server) }, patience, time.Millisecond)
			require.Equal(t, "1", field(server, "issued"), "it was one place throughout")
		})
	}
}

// A permit goes with another call: Redis may be too slow for two calls in a row.
func TestPermitRequest_goesWithAnotherCall(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 2, time.Minute)
	g := newGateway(t, server)
	request := func() *PermitRequest { return g.RequestPermit(policy, false, g.clock()) }
	require.Nil(t, request(), "nothing is known yet")
	g.admit(t, policy)
	require.Nil(t, request(), "the circuit is closed")
	g.openUntilProbe(t, server, policy)

	first, second := request(), request()
	g.finishPiggyback(t, policy)
	for _, p := range []*PermitRequest{first, second} {
		permit, retryAfter, err := g.Await(p, time.Now().Add(patience))
		require.NoError(t, err)
		require.Zero(t, retryAfter)
		require.True(t, permit.Probe())
	}
	_, retryAfter, err := g.Await(request(), time.Now().Add(patience))
	require.NoError(t, err)
	require.Equal(t, time.Second, retryAfter, "there are two places")
	require.Nil(t, request(), "which the gateway remembers")
}

func TestPermitRequest_anUploadWithoutAPlaceDoesNotRefuseOthers(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 2, 2, time.Minute)
	g := newGateway(t, server)
	g.openUntilProbe(t, server, policy)
	allow := func(upload bool) (Permit, time.Duration) {
		permit, retryAfter, err := g.Allow(policy, upload, g.clock(), time.Now().Add(patience))
		require.NoError(t, err)
		return permit, retryAfter
	}
	upload, _ := allow(true)
	require.True(t, upload.Upload())
	_, retryAfter := allow(true)
	require.Equal(t, time.Second, retryAfter)
	_, refused := g.MustRefuse(true, g.clock())
	require.True(t, refused)
	_, refused = g.MustRefuse(false, g.clock())
	require.False(t, refused)
	other, _ := allow(false)
	require.True(t, other.Probe())
	require.False(t, other.Upload())

	require.False(t, g.BodyLate(upload, policy))
	g.advance(time.Minute)
	require.True(t, g.BodyLate(upload, policy))
}

// halfOpenRedis is a Redis whose circuit is half-open and has a place for every probe.
type halfOpenRedis struct {
	taken, returned atomic.Int64
}

func (r *halfOpenRedis) IsUnavailable() bool { return false }
func (r *halfOpenRedis) Lost() int64         { return 0 }

func (r *halfOpenRedis) Run(calls []*store.Call, _ time.Time) error {
	for _, call := range calls {
		call.Err = nil
		call.Conn = 1
		call.Reply = []int64{stateHalfOpen, 1, 0, 0, 0, 0, 0, 0, 0}
		switch call.Script {
		case permitScript:
			call.Reply[5] = r.taken.Add(1)
		case reportScript:
			r.returned.Add(1)
		}
	}
	return nil
}

// The answer may arrive at the moment at which the request turns out not to need its permit.
func TestPermitRequest_cancelledAsTheAnswerArrives(t *testing.T) {
	redis := &halfOpenRedis{}
	begun := time.Now()
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	b := New(Settings{Store: redis, Key: key, Timeout: time.Second, Now: func() int64 { return time.Since(begun).Microseconds() + 1 }})
	b.run(b.viewCall(b.Now(), policy), time.Now())
	var ended atomic.Bool
	defer ended.Store(true)
	go func() { // other requests compete for the lock
		for !ended.Load() {
			b.Probing()
		}
	}()
	requests := int64(0)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); requests++ {
		p := b.RequestPermit(policy, false, b.Now())
		call := b.PiggybackCall(b.Now(), policy)
		redis.Run([]*store.Call{call}, time.Now())
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			store.Finish(call)
		}()
		b.Cancel(p)
		<-finished
	}
	require.Equal(t, requests, redis.taken.Load())
	require.Eventually(t, func() bool { return redis.returned.Load() == requests }, patience, time.Millisecond,
		"a place that is not given back counts as a failure when its time is over")
}
