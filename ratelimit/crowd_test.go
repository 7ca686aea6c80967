package ratelimit

import (
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// crowd lets one call through for each token. Its clock stands still, but while a pilot that has just landed lets others run.
type crowd struct {
	store  *store.Store
	tokens chan struct{}
	away   int64 // microseconds that an answer takes
	waits  int64 // microseconds until all others have run
	called int64 // so often
	read   int64 // how often the clock was, since the last call
}

func (c *crowd) Run(calls []*store.Call, deadline time.Time) error {
	atomic.AddInt64(&c.called, 1)
	<-c.tokens
	defer atomic.StoreInt64(&c.read, 0)
	return c.store.Run(calls, deadline)
}

func (c *crowd) now() int64 {
	switch atomic.AddInt64(&c.read, 1) {
	case 1:
		return 1 + c.away
	case 2:
		return 1 + c.away + c.waits
	}
	return 1
}

// joined returns how many requests are in each batch that waits.
func joined(l *Limiter) []int {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	sizes := []int{}
	for _, trip := range l.pending {
		b := trip[0]
		sizes = append(sizes, len(b.ids)+len(b.keys))
	}
	return sizes
}

func TestAllow_whereRequestsWaitForAProcessorFewGoOnAtOnce(t *testing.T) {
	few := contendedCapOf(1)
	rows := []struct {
		name   string
		away   int64
		waits  int64
		joined []int
	}{
		{"all others have run at once", 0, 0, []int{2*few + 1}},
		{"soon", 0, contendedAfter, []int{2*few + 1}},
		{"later", 0, contendedAfter + 1, []int{few, few, 1}},
		{"later, and Redis is near", nearRTT - 1, contendedAfter + 1, []int{few, few, 1}},
		{"later, and Redis is not", nearRTT, contendedAfter + 1, []int{2*few + 1}},
	}
	for _, row := range rows {
		server := redistest.Start(t)
		redis := &crowd{store: newStore(t, server.Addr()), tokens: make(chan struct{}, 100), away: row.away, waits: row.waits, read: 10}
		l := newLimiter(redis)
		l.Now = redis.now
		l.contendedCap = few
		hand := NewCache(l, NewLimit(1000, 1000, time.Second), 20*time.Second, KeyMaker{})
		var allowed, failed int64
		var done sync.WaitGroup
		ask := func(raw string) {
			done.Add(1)
			go askByRaw(hand, raw, &allowed, &failed, &done)
		}
		waiting := func(sizes []int) {
			t.Helper()
			same := func() bool { return reflect.DeepEqual(joined(l), sizes) }
			require.Eventually(t, same, 10*time.Second, time.Millisecond, row.name)
		}
		ask("first")
		require.Eventually(t, func() bool { return atomic.LoadInt64(&redis.called) == 1 }, 10*time.Second, time.Millisecond)
		ask("second")
		waiting([]int{1})
		redis.tokens <- struct{}{}
		waiting([]int{})
		for i := 0; i < 2*few+1; i++ {
			if raw := digits(int64(i)); i%3 > 0 {
				ask(raw)
			} else {
				done.Add(1)
				go askByKey(hand, raw, &allowed, &failed, &done)
			}
		}
		waiting(row.joined)
		for i := 0; i < 10; i++ {
			redis.tokens <- struct{}{}
		}
		done.Wait()
		require.Equal(t, int64(0), failed, row.name)
		require.Equal(t, int64(2*few+3), allowed, row.name)
		Close(l)
	}
}

func TestFewOf(t *testing.T) {
	for _, row := range []struct{ processors, few int }{{1, 12}, {2, 12}, {3, 18}, {16, 96}, {1000, maxBatch}} {
		require.Equal(t, row.few, contendedCapOf(row.processors), row.processors)
	}
}
