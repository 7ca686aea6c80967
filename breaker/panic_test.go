package breaker

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// stumbler panics at the step of the name, at its turn.
type stumbler struct {
	step  string
	turn  int64 // so many times from now
	store *store.Store
}

func (s *stumbler) at(step string) {
	if step == s.step && atomic.AddInt64(&s.turn, -1) == 0 {
		panic("stumbled at " + step)
	}
}

func (s *stumbler) Run(calls []*store.Call, deadline time.Time) error {
	s.at("run")
	return s.store.Run(calls, deadline)
}

func (s *stumbler) IsUnavailable() bool {
	s.at("down")
	return s.store.IsUnavailable()
}

func (s *stumbler) Lost() int64 { return s.store.Lost() }

// Wherever it stumbles, the next request is answered, and no lock is kept.
func TestBreaker_aPanicAtAnyStep(t *testing.T) {
	shared := store.New(store.Settings{
		Address: redistest.Start(t).Addr(), Timeout: 2 * time.Second, DialTimeout: time.Second, KeyPrefix: "test",
	}, func(error) {})
	t.Cleanup(shared.Close)
	for _, row := range []struct {
		step  string
		turns int64 // one after the other
		local bool
	}{
		{"run", 6, false}, {"down", 20, false}, {"now", 25, false}, {"changed", 3, false}, {"now", 20, true}, {"changed", 3, true},
	} {
		for turn := int64(1); turn <= row.turns; turn++ {
			s := &stumbler{step: row.step, store: shared}
			settings := Settings{
				Store: s, Key: key + intArg(turn) + row.step, Timeout: 2 * time.Second,
				Now:     func() int64 { s.at("now"); return time.Now().UnixMicro() },
				Changed: func(from, to string) { s.at("changed") },
			}
			if row.local {
				settings.Store = nil
			}
			b := New(settings)
			policy := NewPolicy(2, 5*time.Millisecond, 1, 1, 50*time.Millisecond)
			atomic.StoreInt64(&s.turn, turn)
			for i := 0; i < 12; i++ {
				inTime(t, row.step, func() { pass(b, policy, Failure) })
				time.Sleep(2 * time.Millisecond)
			}
			atomic.StoreInt64(&s.turn, 0)
			passed := func() bool { return pass(b, policy, Success) }
			require.Eventually(t, passed, 5*time.Second, 5*time.Millisecond, "%s, turn %d", row.step, turn)
		}
	}
}

// pass does what the middleware does with a request, and tells whether it passed. It may panic, as Traefik expects.
func pass(b *Breaker, policy *Policy, outcome Outcome) (passed bool) {
	defer func() { recover() }()
	now := time.Now().UnixMicro()
	b.RefreshIfStale(now, policy)
	if b.ExtendView(now, policy) {
		b.Done(b.PermitAt(now), outcome, policy, time.Second)
		return true
	}
	b.OpenNotice(now)
	b.RecheckOpen(now, policy)
	if _, refused := b.MustRefuse(false, now); refused {
		return false
	}
	permit, wait, err := b.Allow(policy, false, now, time.Now().Add(200*time.Millisecond))
	if err != nil {
		permit, wait = b.AllowLocal(policy, false, now)
	}
	if wait > 0 {
		return false
	}
	b.Done(permit, outcome, policy, time.Second)
	return true
}

// inTime requires that something ends.
func inTime(t *testing.T, step string, something func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		something()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		require.FailNow(t, "others wait for ever after a panic", step)
	}
}
