package breaker

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// faulty is a breaker whose calls to code of others (Store, Now, Changed) panic on demand. Its Redis is the scripts' twin in
// this process, on the same clock.
type faulty struct {
	*Breaker
	policy *Policy

	mu          sync.Mutex // guards what follows
	now         int64
	redis       walker
	conn, lost  int64
	unavailable bool
	panicAt     int64 // the number of the call to others that panics, counted from 1; 0: none
	calls       int64
}

func newFaulty(withRedis bool) *faulty {
	f := &faulty{now: epoch, conn: 1, policy: NewPolicy(1, 10*time.Second, 1, 1, 10*time.Second)}
	settings := Settings{Key: key, Timeout: time.Second, Now: f.clock, Changed: f.changed}
	if withRedis {
		settings.Store = f
	}
	f.Breaker = New(settings)
	return f
}

// called counts a call to others, and panics if it is its turn.
func (f *faulty) called() {
	f.mu.Lock()
	f.calls++
	isTurn := f.calls == f.panicAt
	f.mu.Unlock()
	if isTurn {
		panic("the test says so")
	}
}

// arm makes the call of the number panic.
func (f *faulty) arm(number int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = 0
	f.panicAt = number
}

// disarm returns how many calls there were.
func (f *faulty) disarm() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.panicAt = 0
	return f.calls
}

func (f *faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faulty) advance(d time.Duration) { f.set(func() { f.now += d.Microseconds() }) }

func (f *faulty) clock() int64 {
	f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now++
	return f.now
}

func (f *faulty) time() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *faulty) changed(from, to string) { f.called() }

func (f *faulty) IsUnavailable() bool {
	f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unavailable
}

func (f *faulty) Lost() int64 {
	f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

func (f *faulty) Run(calls []*store.Call, _ time.Time) error {
	f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, call := range calls {
		if f.unavailable {
			call.Err = store.ErrUnavailable
			continue
		}
		a := f.redis.local(f.policy, f.stepOf(call))
		call.Reply = []int64{a.state, a.generation, a.failures, a.successes, a.wait, a.probe, a.born, a.repeats, a.forced}
		call.Conn = f.conn
		call.Err = nil
	}
	return nil
}

// stepOf returns the step that a call asks the twin for.
func (f *faulty) stepOf(call *store.Call) step {
	s := step{do: viewStep, at: f.now}
	own := call.Args[len(f.policy.args):]
	switch call.Script {
	case permitScript:
		s.do = permitStep
		if own[1] == "1" {
			s.do = uploadStep
		}
	case bodySentScript:
		s.do, s.generation, s.probe, s.late = sentStep, intOf(own[0]), intOf(own[1]), own[2] == "1"
	case reportScript:
		s.do, s.generation, s.probe, s.succeeded, s.failed = reportStep, intOf(own[0]), intOf(own[1]), own[2] == "1", intOf(own[3])
	case restoreScript:
		f.redis.machine.trip(f.now+intOf(own[1])-f.policy.resetTimeout, f.now, f.policy)
	}
	return s
}

func intOf(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// panicRows are requests of each kind, and what must happen before them.
var panicRows = []struct {
	name   string
	local  bool // without Redis
	before func(f *faulty)
	do     func(f *faulty)
}{
	{"the first request", false, nothing, func(f *faulty) { f.pass(Success) }},
	{"a request on a fresh view", false, passOnce, func(f *faulty) { f.Done(f.PermitAt(f.time()), Failure, f.policy, time.Second) }},
	{"a request on a view that is no longer fresh", false, passOnce, func(f *faulty) {
		f.advance(60 * time.Millisecond)
		f.ExtendView(f.time(), f.policy)
		f.RefreshIfStale(f.time(), f.policy)
	}},
	{"a request on a view that is too old", false, passOnce, func(f *faulty) {
		f.advance(time.Second)
		f.pass(Success)
	}},
	{"a refresh with another call", false, passOnce, func(f *faulty) {
		f.advance(time.Second)
		f.piggyback()
	}},
	{"a failure that opens the circuit", false, passOnce, func(f *faulty) { f.pass(Failure) }},
	{"a failure, reported in the background", false, passOnce, func(f *faulty) { f.Done(f.PermitAt(f.time()), Failure, f.policy, 0) }},
	{"a refused request", false, openOnce, func(f *faulty) {
		f.OpenNotice(f.time())
		f.MustRefuse(false, f.time())
		f.Probing()
		f.LastKnown(f.time())
	}},
	{"an open circuit is rechecked", false, openOnce, func(f *faulty) {
		f.advance(time.Second)
		f.RecheckOpen(f.time(), NewPolicy(1, time.Second, 1, 1, time.Second))
	}},
	{"a lost circuit is written back", false, openOnce, func(f *faulty) {
		f.set(func() {
			f.redis = walker{}
			f.lost = f.conn
			f.conn++
		})
		f.advance(time.Second)
		f.RecheckOpen(f.time(), f.policy)
	}},
	{"a probe", false, probeOnce, func(f *faulty) { f.pass(Success) }},
	{"a probe that fails", false, probeOnce, func(f *faulty) { f.pass(Failure) }},
	{"a probe that is an upload", false, probeOnce, func(f *faulty) {
		permit, _, _ := f.Allow(f.policy, true, f.time(), time.Now().Add(time.Second))
		f.BodySent(permit, f.BodyLate(permit, f.policy), f.policy)
		f.Done(permit, Success, f.policy, time.Second)
	}},
	{"a second probe, for which there is no place", false, probeOnce, func(f *faulty) {
		f.Allow(f.policy, false, f.time(), time.Now().Add(time.Second))
		f.Allow(f.policy, false, f.time(), time.Now().Add(time.Second))
	}},
	{"a probe asked for with another call", false, probeOnce, func(f *faulty) {
		p := f.RequestPermit(f.policy, false, f.time())
		if p != nil {
			defer f.CancelUnclaimed(p)
			f.piggyback()
			permit, _, _ := f.Await(p, time.Now().Add(time.Second))
			f.Done(permit, Success, f.policy, time.Second)
		}
	}},
	{"a probe that is not needed", false, probeOnce, func(f *faulty) {
		p := f.RequestPermit(f.policy, false, f.time())
		if p != nil {
			f.piggyback()
			f.Cancel(p)
		}
	}},
	{"outcomes while Redis is unavailable", false, passOnce, func(f *faulty) {
		f.setUnavailable(true)
		f.Done(f.UnaskedPermit(), Failure, f.policy, time.Second)
		f.Done(f.PermitAt(f.time()), Failure, f.policy, time.Second)
		f.setUnavailable(false)
		f.pass(Success)
	}},
	{"a probe that ends while Redis is unavailable", false, probeOnce, func(f *faulty) {
		permit, _, _ := f.Allow(f.policy, true, f.time(), time.Now().Add(time.Second))
		f.setUnavailable(true)
		f.BodySent(permit, false, f.policy)
		f.Done(permit, Success, f.policy, time.Second)
	}},
	{"without Redis, a failure", true, nothing, func(f *faulty) { f.pass(Failure) }},
	{"without Redis, a probe", true, probeOnce, func(f *faulty) { f.pass(Success) }},
	{"without Redis, a probe that is an upload", true, probeOnce, func(f *faulty) {
		permit, _ := f.AllowLocal(f.policy, true, f.time())
		f.BodySent(permit, false, f.policy)
		f.Done(permit, Failure, f.policy, time.Second)
	}},
}

func nothing(*faulty) {}

func passOnce(f *faulty) { f.pass(Success) }

func openOnce(f *faulty) {
	f.pass(Success)
	f.pass(Failure)
}

func probeOnce(f *faulty) {
	openOnce(f)
	f.advance(time.Minute)
}

func (f *faulty) setUnavailable(is bool) { f.set(func() { f.unavailable = is }) }

func (f *faulty) piggyback() {
	if call := f.PiggybackCall(f.time(), f.policy); call != nil {
		f.Run([]*store.Call{call}, time.Now())
		store.Finish(call)
	}
}

// pass does what the middleware does with a request, and reports whether it passed.
func (f *faulty) pass(outcome Outcome) bool {
	now := f.time()
	if _, refused := f.MustRefuse(false, now); refused {
		f.RecheckOpen(now, f.policy)
		return false
	}
	permit, retryAfter, err := f.Allow(f.policy, false, now, time.Now().Add(time.Second))
	if err != nil || retryAfter > 0 {
		return false
	}
	f.Done(permit, outcome, f.policy, time.Second)
	return true
}

// Wherever code of others panics, no lock stays locked, and later requests pass.
func TestBreaker_aPanicAtAnyStep(t *testing.T) {
	for _, row := range panicRows {
		row := row
		t.Run(row.name, func(t *testing.T) {
			for number := int64(1); ; number++ {
				f := newFaulty(!row.local)
				row.before(f)
				f.arm(number)
				endsInTime(t, "the request", func() { row.do(f) })
				endsInTime(t, "a later one", func() { f.Probing() })
				passed := make(chan bool, 1)
				endsInTime(t, "the next minutes", func() { passed <- f.passesLater() })
				require.True(t, <-passed, "call %d", number)
				if f.disarm() < number {
					require.Greater(t, number, int64(1), "there is no call to others")
					return
				}
			}
		})
	}
}

// passesLater reports whether a request passes within some minutes. A call in the background may panic meanwhile.
func (f *faulty) passesLater() bool {
	f.setUnavailable(false)
	for i := 0; i < 100; i++ {
		if f.passRecovered() {
			return true
		}
		f.advance(7 * time.Second)
	}
	return false
}

func (f *faulty) passRecovered() (passed bool) {
	defer func() { recover() }()
	return f.pass(Success)
}

// endsInTime requires that something ends, perhaps in a panic.
func endsInTime(t *testing.T, name string, something func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { recover() }()
		something()
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		require.FailNow(t, "a lock stayed locked", name)
	}
}

// A panic in the middle of a call to a real Redis ends one request only.
func TestBreaker_survivesAPanicInACallToRedis(t *testing.T) {
	server := redistest.Start(t)
	g := newGateway(t, server)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	g.openUntilProbe(t, server, policy)
	working := g.store
	g.store = nil // so that Run panics
	endsInTime(t, "the request", func() { g.Allow(policy, false, g.clock(), time.Now().Add(50*time.Millisecond)) })
	g.store = working
	g.advance(time.Second)
	g.report(g.probe(t, policy), Success, policy)
	require.Equal(t, "closed", field(server, "state"))
}
