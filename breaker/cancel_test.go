package breaker

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// places is a Redis whose circuit is half-open and has a place for every probe.
type places struct {
	taken, returned atomic.Int64
}

func (p *places) IsUnavailable() bool { return false }
func (p *places) Lost() int64         { return 0 }

func (p *places) Run(calls []*store.Call, _ time.Time) error {
	for _, call := range calls {
		call.Err = nil
		call.Conn = 1
		call.Reply = []int64{stateHalfOpen, 1, 0, 0, 0, 0, 0}
		switch call.Script {
		case permitScript:
			call.Reply[5] = p.taken.Add(1)
		case reportScript:
			p.returned.Add(1)
		}
	}
	return nil
}

// The answer may come at the very moment at which the request turns out not to need its permit.
func TestForgo_asTheAnswerComesGivesThePlaceBack(t *testing.T) {
	requests := int64(0)
	redis := &places{}
	begun := time.Now()
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	b := New(Settings{Store: redis, Key: key, Timeout: time.Second, Now: func() int64 { return time.Since(begun).Microseconds() + 1 }})
	b.run(b.viewCall(b.Now(), policy), time.Now())
	var over atomic.Bool
	defer over.Store(true)
	go func() { // other requests, at the same lock
		for !over.Load() {
			b.Probing()
		}
	}()
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); requests++ {
		asked := b.RequestPermit(policy, false, b.Now())
		call := b.PiggybackCall(b.Now(), policy)
		redis.Run([]*store.Call{call}, time.Now())
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			store.Finish(call)
		}()
		b.Cancel(asked)
		<-answered
	}
	require.Equal(t, requests, redis.taken.Load())
	require.Eventually(t, func() bool { return redis.returned.Load() == requests }, 5*time.Second, time.Millisecond,
		"a place that is not given back counts as a failure when its time is over")
}
