package resilience

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/stretchr/testify/require"
)

// fronted returns a front whose lean handler answers 204, with a circuit that is open.
func fronted(t *testing.T) (*Middleware, http.Handler) {
	b := breaker.New(breaker.Settings{Now: func() int64 { return 0 }})
	policy := breaker.NewPolicy(1, 7*time.Second, 1, 1, time.Second)
	permit, _, err := b.Allow(policy, false, 0, time.Time{})
	require.NoError(t, err)
	b.Done(permit, breaker.Failure, policy, time.Second)
	m := &Middleware{engines: &engines{breaker: b}, mu: &sync.Mutex{}}
	return m, m.newSwitch(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
}

func TestFront_refusesAsLongAsTheRefusalHolds(t *testing.T) {
	m, front := fronted(t)
	require.Equal(t, 204, get(front), "nobody has turned it")

	refusal := &breaker.Notice{Seconds: 5, Holds: make(chan struct{}, 1)}
	refusal.Holds <- struct{}{}
	*m.current = openHandler(m, refusal)
	for i := 0; i < 3; i++ {
		requireAnswer(t, send(front, "GET", "/"), 503, openBody, 5)
	}
	<-refusal.Holds
	require.Equal(t, 204, get(front), "it holds no more")
	refusal.Holds <- struct{}{}
	require.Equal(t, 204, get(front), "the lean handler was turned to, and would look for itself")
}

func TestFront_isTurnedAsOftenAsTheCircuitOpens(t *testing.T) {
	defer func(was bool) { switchEnabled = was }(switchEnabled)
	switchEnabled = true
	m, front := fronted(t)
	for i := 0; i < 2; i++ {
		m.switchToOpen(6700000)
		requireAnswer(t, send(front, "GET", "/"), 503, openBody, 1)
		require.Eventually(t, func() bool { return get(front) == 204 }, 5*time.Second, 10*time.Millisecond, "the second is over")
	}
	m.switchToOpen(7000001)
	require.Equal(t, 204, get(front), "the circuit is open no more")
}

// steps is a lock that notes what the front answers at each step of it.
type steps struct {
	front http.Handler
	seen  []string
}

func (s *steps) Lock()   { s.note("lock") }
func (s *steps) Unlock() { s.note("unlock") }

func (s *steps) note(step string) {
	answer := " lean"
	if get(s.front) == http.StatusServiceUnavailable {
		answer = " refuses"
	}
	s.seen = append(s.seen, step+answer)
}

// On a processor that orders little, such as an arm64, a handler is whole for others once an unlock and a lock came after it was made.
func TestFront_isTurnedAfterItsHandlerIsWhole(t *testing.T) {
	defer func(was bool) { switchEnabled = was }(switchEnabled)
	switchEnabled = true
	m, front := fronted(t)
	lock := &steps{front: front}
	m.mu = lock
	m.switchToOpen(6700000)
	require.Equal(t, []string{"lock lean", "unlock lean", "lock lean", "unlock refuses"}, lock.seen)
	lock.seen = nil
	switchTo(m, m.fast)
	require.Equal(t, []string{"lock refuses", "unlock refuses", "lock refuses", "unlock lean"}, lock.seen)
}
