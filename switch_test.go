package resilience

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/stretchr/testify/require"
)

// setSwitch enables or disables the switch of all middlewares during a test.
func setSwitch(t *testing.T, enabled bool) {
	before := switchEnabled
	switchEnabled = enabled
	t.Cleanup(func() { switchEnabled = before })
}

// newOpenSwitch returns a switch whose fast handler answers 204, and whose circuit is open.
func newOpenSwitch(t *testing.T) (*Middleware, http.Handler) {
	b := breaker.New(breaker.Settings{Now: func() int64 { return 0 }})
	policy := breaker.NewPolicy(1, 7*time.Second, 1, 1, time.Second)
	permit, _, err := b.Allow(policy, false, 0, time.Time{})
	require.NoError(t, err)
	b.Done(permit, breaker.Failure, policy, time.Second)
	m := &Middleware{settings: &settings{answers: defaultAnswers()}, engines: &engines{breaker: b}, breaker: b, mu: &sync.Mutex{}}
	return m, m.newSwitch(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
}

func TestSwitch_refusesWhileTheNoticeIsValid(t *testing.T) {
	m, current := newOpenSwitch(t)
	require.Equal(t, 204, get(current), "it starts with the fast handler")

	refusal := &breaker.Notice{Seconds: 5, Holds: make(chan struct{}, 1)}
	refusal.Holds <- struct{}{}
	*m.current = openHandler(m, refusal)
	for i := 0; i < 3; i++ {
		requireAnswer(t, send(current, "GET", "/"), 503, openBody, 5)
	}
	<-refusal.Holds
	require.Equal(t, 204, get(current), "the notice has ended")
	refusal.Holds <- struct{}{}
	require.Equal(t, 204, get(current), "the fast handler is the current one again, and looks at the circuit itself")
}

func TestSwitch_followsEveryOpening(t *testing.T) {
	setSwitch(t, true)
	m, current := newOpenSwitch(t)
	for i := 0; i < 2; i++ {
		m.switchToOpen(6700000)
		requireAnswer(t, send(current, "GET", "/"), 503, openBody, 1)
		waitFor(t, func() bool { return get(current) == 204 }, "the notice ends after a second at most")
	}
	m.switchToOpen(7000001)
	require.Equal(t, 204, get(current), "the circuit is no longer open")
}

// steps is a lock that notes, whenever it is taken or released, which handler is the current one.
type steps struct {
	current http.Handler
	seen    []string
}

func (s *steps) Lock()   { s.note("lock") }
func (s *steps) Unlock() { s.note("unlock") }

func (s *steps) note(step string) {
	answer := " fast"
	if get(s.current) == http.StatusServiceUnavailable {
		answer = " open"
	}
	s.seen = append(s.seen, step+answer)
}

// On a processor with weak memory ordering, such as arm64, other goroutines see a complete handler only if it was made before an unlock and
// a lock that precede its publication.
func TestSwitch_publishesOnlyACompleteHandler(t *testing.T) {
	setSwitch(t, true)
	m, current := newOpenSwitch(t)
	lock := &steps{current: current}
	m.mu = lock
	m.switchToOpen(6700000)
	require.Equal(t, []string{"lock fast", "unlock fast", "lock fast", "unlock open"}, lock.seen)
	lock.seen = nil
	switchTo(m, m.fast)
	require.Equal(t, []string{"lock open", "unlock open", "lock open", "unlock fast"}, lock.seen)
}
