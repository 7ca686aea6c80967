package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

const key = "test:{name}:breaker"

// patience bounds waits for what happens in the background.
const patience = 5 * time.Second

// gateway is a breaker as one gateway has it, with a clock of the test and a record of the changes that it was told.
type gateway struct {
	*Breaker
	store *store.Store
	calls int64
	block chan struct{} // calls wait until it is closed; nil: they do not

	mu      sync.Mutex // guards what follows
	now     int64
	changes []string
}

func (g *gateway) Run(calls []*store.Call, deadline time.Time) error {
	atomic.AddInt64(&g.calls, int64(len(calls)))
	if g.block != nil {
		<-g.block
	}
	return g.store.Run(calls, deadline)
}

func (g *gateway) IsUnavailable() bool { return g.store.IsUnavailable() }

func (g *gateway) Lost() int64 { return g.store.Lost() }

func (g *gateway) clock() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now++ // no two readings are equal
	return g.now
}

// advance moves the gateway's clock, not Redis's.
func (g *gateway) advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += d.Microseconds()
}

func (g *gateway) changesSeen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string{}, g.changes...)
}

func (g *gateway) callCount() int64 { return atomic.LoadInt64(&g.calls) }

func newGateway(t *testing.T, server *redistest.Server) *gateway {
	g := &gateway{now: 1000 * second}
	g.store = store.New(store.Settings{
		Address: server.Addr(), Timeout: 2 * time.Second, DialTimeout: time.Second, KeyPrefix: "test",
	}, func(error) {})
	t.Cleanup(g.store.Close)
	g.Breaker = New(Settings{
		Store: g, Key: key, Timeout: 2 * time.Second, Now: g.clock,
		Changed: func(from, to string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.changes = append(g.changes, from+" to "+to)
		},
	})
	return g
}

func newGateways(t *testing.T, server *redistest.Server, n int) (all []*gateway) {
	for i := 0; i < n; i++ {
		all = append(all, newGateway(t, server))
	}
	return all
}

// request asks for a permit as the middleware does: the view first, then Redis.
func (g *gateway) request(t *testing.T, policy *Policy) (permit Permit, retryAfter time.Duration) {
	t.Helper()
	if retryAfter, refused := g.MustRefuse(false, g.clock()); refused {
		return Permit{}, retryAfter
	}
	permit, retryAfter, err := g.Allow(policy, false, g.clock(), time.Now().Add(2*time.Second))
	require.NoError(t, err)
	return permit, retryAfter
}

// admit is request, which must not be refused.
func (g *gateway) admit(t *testing.T, policy *Policy) Permit {
	t.Helper()
	permit, retryAfter := g.request(t, policy)
	require.Zero(t, retryAfter)
	return permit
}

// probe is admit, as a probe.
func (g *gateway) probe(t *testing.T, policy *Policy) Permit {
	t.Helper()
	permit := g.admit(t, policy)
	require.True(t, permit.Probe())
	return permit
}

func (g *gateway) report(permit Permit, outcome Outcome, policy *Policy) {
	g.Done(permit, outcome, policy, 2*time.Second)
}

// fail sends failing requests.
func (g *gateway) fail(t *testing.T, policy *Policy, times int64) {
	t.Helper()
	for i := int64(0); i < times; i++ {
		g.report(g.admit(t, policy), Failure, policy)
	}
}

// openCircuit fails as often as opens the circuit.
func (g *gateway) openCircuit(t *testing.T, policy *Policy) {
	t.Helper()
	g.fail(t, policy, policy.failureThreshold)
}

// openUntilProbe opens the circuit, and moves both clocks past its deadline.
func (g *gateway) openUntilProbe(t *testing.T, server *redistest.Server, policy *Policy) {
	t.Helper()
	g.openCircuit(t, policy)
	endResetTimeout(server, g)
}

// endResetTimeout moves Redis's deadline into the past, and the gateways' clocks past any.
func endResetTimeout(server *redistest.Server, gateways ...*gateway) {
	server.Do("HSET", key, "deadline", "1")
	for _, g := range gateways {
		g.advance(time.Hour)
	}
}

// recheck is what a second of refused requests does.
func (g *gateway) recheck(policy *Policy) {
	g.advance(time.Second)
	g.RecheckOpen(g.clock(), policy)
}

// refusedFor returns for how long requests are refused without asking Redis.
func (g *gateway) refusedFor() time.Duration {
	left, _ := g.MustRefuse(false, g.clock())
	return left
}

// finishPiggyback makes the pending piggyback call, which there must be.
func (g *gateway) finishPiggyback(t *testing.T, policy *Policy) {
	t.Helper()
	call := g.PiggybackCall(g.clock(), policy)
	require.NotNil(t, call)
	g.Run([]*store.Call{call}, time.Now().Add(time.Second))
	store.Finish(call)
}

func (g *gateway) awaitAvailable(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return !g.IsUnavailable() }, patience, 5*time.Millisecond)
}

// noteUnavailable asks a Redis that is gone.
func (g *gateway) noteUnavailable(t *testing.T, policy *Policy) {
	t.Helper()
	g.advance(time.Second)
	_, _, err := g.Allow(policy, false, g.clock(), time.Now().Add(time.Second))
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.Eventually(t, g.IsUnavailable, patience, time.Millisecond)
}

func field(server *redistest.Server, name string) string { return server.Hash(key)[name] }

func awaitField(t *testing.T, server *redistest.Server, name, value string) {
	t.Helper()
	require.Eventually(t, func() bool { return field(server, name) == value }, patience, time.Millisecond, name)
}

// placeIsFree reports whether the last probe has given its place back.
func placeIsFree(server *redistest.Server) bool {
	h := server.Hash(key)
	return h["state"] == "half-open" && h["issued"] != "" && h["probe:"+h["issued"]] == ""
}
