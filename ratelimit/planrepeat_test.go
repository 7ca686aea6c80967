//go:build !yaegi

package ratelimit

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// repeatStore repeats each call, as if its connection had died: before or after the model made it.
type repeatStore struct {
	model *bucketmodel.Model
	made  bool // the first call was made
	lost  bool // no call is made at all
}

func (s *repeatStore) Run(calls []*store.Call, _ time.Time) error {
	for _, call := range calls {
		if s.lost {
			call.Answer, call.Err = "", store.ErrUnavailable
			continue
		}
		if s.made {
			s.model.Serve(epoch, call)
		}
		if call.Again != nil {
			call.Again(call)
		} else if call.Once {
			call.Answer, call.Err = "", store.ErrUnavailable
			continue
		}
		s.model.Serve(epoch, call)
	}
	return nil
}

// What a call gives back counts once, and what it owes at least once, whether Redis has made the first call or not.
func TestPlans_aRepeatedCallMintsNoTokens(t *testing.T) {
	for _, row := range []struct {
		name     string
		capacity int64
		made     bool
		taken    int64 // in Redis, after two requests by Redis, three without, and one refund
	}{
		{"the first call was not made", 50, false, 2 + 3}, // the refund was lost with it
		{"the first call was made", 50, true, 2*2 + 2*3 - 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			limit := NewLimit(row.capacity, 1, time.Hour)
			draw := Draw{Key: "limit:failed:a", Levels: NewLevels([]NamedLimit{{"failed", limit}}), Cost: 1}
			plan := &Plan{Draws: []Draw{draw}}
			shared := &repeatStore{model: bucketmodel.New(), made: row.made}
			l := New(Settings{Store: shared, Now: func() int64 { return 1 }})
			defer Close(l)
			cache := NewPlanCache(l, Draw{}, time.Hour)
			ask := func() int64 {
				l.Mu.Lock()
				verdict, _ := AcquirePlan(cache, plan, "a", 1, nil)
				return verdict
			}
			require.Positive(t, ask())
			shared.lost = true
			for i := 0; i < 3; i++ {
				require.Equal(t, int64(Undecided), ask())
				verdict, _ := AcquirePlanLocal(cache, plan, 1, nil)
				require.Positive(t, verdict)
			}
			shared.lost = false
			l.Mu.Lock()
			knownLeaseLocked(l.bucketTables[draw.Levels], draw.Key).refund++ // as for a lease that was exchanged
			l.Mu.Unlock()
			require.Positive(t, ask())
			eventually(t, func() bool { return isQuiet(l) })
			level := shared.model.Draw(epoch, []string{draw.Key}, []string{allWords, limitWord("failed", limit), "0 1/1/0/0/0"})
			_, draws := parseDraws(level)
			require.Equal(t, row.taken, row.capacity-draws[0].levels[0]/limit.period)
		})
	}
}
