package resilience

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// faults panics in one call of code that is not the middleware's own: the nth since it was armed.
type faults struct {
	mu   sync.Mutex
	left int    // calls until then; 0 and less: none panics any more
	at   string // where it panicked last; "": it has not
}

func (f *faults) arm(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
	f.at = ""
}

// step is to be called by each such code.
func (f *faults) step(where string) {
	f.mu.Lock()
	fires := f.left == 1
	f.left--
	if fires {
		f.at = where
	}
	f.mu.Unlock()
	if fires {
		panic("fault in " + where)
	}
}

// disarm returns where it panicked, or "".
func (f *faults) disarm() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = 0
	return f.at
}

// faultyContext is a request's context whose methods may panic.
type faultyContext struct {
	faults *faults
	inner  context.Context
}

func (c *faultyContext) Deadline() (deadline time.Time, ok bool) { return c.inner.Deadline() }

func (c *faultyContext) Done() <-chan struct{} {
	c.faults.step("the context's Done")
	return c.inner.Done()
}

func (c *faultyContext) Err() error {
	c.faults.step("the context's Err")
	return c.inner.Err()
}

func (c *faultyContext) Value(key interface{}) interface{} {
	c.faults.step("the context's Value")
	return c.inner.Value(key)
}

// faultyBody is a request's body that may panic.
type faultyBody struct {
	faults *faults
	text   io.Reader
}

func (b *faultyBody) Read(piece []byte) (int, error) {
	b.faults.step("the body")
	return b.text.Read(piece)
}

func (b *faultyBody) Close() error { return nil }

// faultyGateway is a middleware all of whose surroundings may panic: its clock, what makes keys, the upstream and each request.
type faultyGateway struct {
	m      *Middleware
	clock  *clock
	faults *faults
	status int // of the upstream's answers
}

func newFaultyGateway(t *testing.T, variant fastVariant, redis *RedisConfig, capacity, name string) *faultyGateway {
	processes, switched := newProcess(t, 0), switchEnabled
	g := &faultyGateway{clock: newClock(t), faults: &faults{}, status: 200}
	switchEnabled = switched // nothing here waits for the end of a notice
	processes.since = func(begun time.Time) time.Duration {
		g.faults.step("the clock")
		return g.clock.since(begun)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	m, err := newMiddleware(ctx, http.HandlerFunc(g.upstream), variant.config(redis, *tokens(capacity),
		&CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "10s", HalfOpenSuccessThreshold: "5"}), name)
	require.NoError(t, err)
	keyOf, identify, headerValue := m.bucketKeyOf, m.identify, m.headerValue
	m.bucketKeyOf = func(r *http.Request) string {
		g.faults.step("the key")
		return keyOf(r)
	}
	m.identify = func(r *http.Request) string {
		g.faults.step("the identity")
		return identify(r)
	}
	if headerValue != nil {
		m.headerValue = func(r *http.Request) string {
			g.faults.step("the header's value")
			return headerValue(r)
		}
	}
	g.m = m
	return g
}

func (g *faultyGateway) upstream(w http.ResponseWriter, r *http.Request) {
	g.faults.step("the upstream, before its answer")
	io.Copy(io.Discard, r.Body)
	w.WriteHeader(g.status)
	io.WriteString(w, "hello")
	g.faults.step("the upstream, after its answer")
}

// ask sends a request whose own parts may panic. It reports whether anything did.
func (g *faultyGateway) ask(w http.ResponseWriter) (panicked bool) {
	r := httptest.NewRequest("POST", "/", nil)
	r.ContentLength = 5
	r.Body = &faultyBody{faults: g.faults, text: strings.NewReader("hello")}
	defer func() { panicked = recover() != nil }()
	g.m.handler.ServeHTTP(w, r.WithContext(&faultyContext{faults: g.faults, inner: context.Background()}))
	return false
}

// requireServed requires that requests are answered: no lock is held any more.
func (g *faultyGateway) requireServed(t *testing.T, after string) {
	done := make(chan int, 1)
	go func() {
		get(g.m.handler)
		get(g.m.handler)
		done <- get(g.m.handler)
	}()
	select {
	case code := <-done:
		require.Contains(t, []int{200, 403, 429, 500, 503}, code, after)
	case <-time.After(5 * time.Second):
		require.FailNow(t, "no request is served any more", after)
	}
}

// faultyStates are the ways that a request may take.
func faultyStates() []faultyState {
	grant := func(tokens, until, refuseUntil int64) func(g *faultyGateway) {
		return func(g *faultyGateway) {
			if g.m.limit == nil {
				return
			}
			now := g.m.now()
			id := identityOf(g.m, httptest.NewRequest("POST", "/", nil))
			g.m.mu.Lock()
			defer g.m.mu.Unlock()
			g.m.cache.Grants[id] = &ratelimit.Grant{
				Tokens: tokens, Until: now + until, RefuseUntil: now + refuseUntil, NextToken: now + refuseUntil,
			}
		}
	}
	return []faultyState{
		{"a new client", nil},
		{"a new client, while instances are looked for", func(g *faultyGateway) { g.m.setChecks(true) }},
		{"a lease", grant(100, 60000000, 0)},
		{"a lease that is over", grant(100, -1, -1)},
		{"an empty bucket", grant(0, 0, 60000000)},
		{"no token anywhere", func(g *faultyGateway) {
			for i := 0; i < 10; i++ {
				get(g.m.handler)
			}
		}},
		{"a view that is too old", func(g *faultyGateway) {
			g.m.mu.Lock()
			g.m.view.Healthy = 0
			g.m.mu.Unlock()
		}},
		{"a view that may be extended", func(g *faultyGateway) {
			get(g.m.handler)
			g.clock.advance(60 * time.Millisecond)
		}},
		{"an open circuit", func(g *faultyGateway) { g.open() }},
		{"HALF_OPEN", func(g *faultyGateway) {
			g.open()
			g.clock.advance(11 * time.Second)
		}},
	}
}

type faultyState struct {
	name    string
	prepare func(g *faultyGateway) // nil: there is nothing to do
}

// open has the upstream fail once, which opens the circuit.
func (g *faultyGateway) open() {
	g.status = 500
	get(g.m.handler)
	g.status = 200
}

// Whatever panics on a request's way, wherever the request is then: the next ones are served. Each call of the clock, of what makes keys,
// of the request's parts, of the writer and of the upstream is made to panic once, on each way through each generated handler.
func TestMiddleware_aPanicAnywhereLeavesNoLockBehind(t *testing.T) {
	seen := map[string]bool{}
	for _, variant := range fastVariants() {
		variant := variant
		for _, state := range faultyStates() {
			state := state
			t.Run(variant.name+", "+state.name, func(t *testing.T) {
				requireServedAfterEachFault(t, variant, state, nil, seen)
			})
		}
	}
	requireFaults(t, seen, "the clock", "the key", "the identity", "the body", "the upstream, before its answer", "the upstream, after its answer",
		"the context's Err", "the context's Value", "Header", "WriteHeader", "Write", "Status")
}

// With Redis, some of that happens where batches and views are shared.
func TestMiddleware_aPanicAnywhereLeavesNoLockBehindWithRedis(t *testing.T) {
	seen := map[string]bool{}
	redis := at(redistest.Start(t).Addr())
	redis.Timeout = "300ms" // a permit whose call panicked in the background is waited for as long
	for _, variant := range fastVariants() {
		variant := variant
		if variant.name != "fastBothConnection" {
			continue
		}
		for _, state := range faultyStates() {
			state := state
			t.Run(variant.name+", "+state.name, func(t *testing.T) {
				requireServedAfterEachFault(t, variant, state, redis, seen)
			})
		}
	}
	requireFaults(t, seen, "the clock", "the body", "the upstream, before its answer", "the upstream, after its answer", "Header", "Status")
}

// requireServedAfterEachFault makes each call of foreign code panic once that a request causes in a state.
func requireServedAfterEachFault(t *testing.T, variant fastVariant, state faultyState, redis *RedisConfig, seen map[string]bool) {
	for n := 1; ; n++ {
		require.Less(t, n, 200, "there is no end of it")
		g := newFaultyGateway(t, variant, redis, "3", fmt.Sprintf("%s%d", nameOf(t), n))
		g.m.setChecks(false)
		if state.prepare != nil {
			state.prepare(g)
		}
		var w http.ResponseWriter = statuswriter.NewFaulty(g.faults.step)
		if n%2 == 0 {
			w = statuswriter.NewMute(g.faults.step)
		}
		g.faults.arm((n + 1) / 2)
		g.ask(w)
		at := g.faults.disarm()
		if at == "" {
			if n%2 == 0 {
				return // no writer has any more calls
			}
			continue
		}
		seen[at] = true
		g.requireServed(t, fmt.Sprintf("call %d, of %s", (n+1)/2, at))
	}
}

func requireFaults(t *testing.T, seen map[string]bool, wanted ...string) {
	for _, where := range wanted {
		require.True(t, seen[where], "no panic in %s", where)
	}
}
