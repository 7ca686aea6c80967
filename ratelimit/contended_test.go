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

// saturated passes one call for each token. Its clock stands still, except during a call and while a worker with
// a reply lets other goroutines run.
type saturated struct {
	store  *store.Store
	tokens chan struct{}
	rtt    int64 // microseconds until a reply
	waits  int64 // microseconds until all other goroutines have run
	called int64 // calls so far
	read   int64 // clock readings since the last call
}

func (c *saturated) Run(calls []*store.Call, deadline time.Time) error {
	atomic.AddInt64(&c.called, 1)
	<-c.tokens
	defer atomic.StoreInt64(&c.read, 0)
	return c.store.Run(calls, deadline)
}

func (c *saturated) now() int64 {
	switch atomic.AddInt64(&c.read, 1) {
	case 1:
		return 1 + c.rtt
	case 2:
		return 1 + c.rtt + c.waits
	}
	return 1
}

// joined returns how many requests each pending batch has.
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

func TestWorker_batchesAreSmallWhileTheCPUIsSaturated(t *testing.T) {
	small := contendedCapOf(1)
	rows := []struct {
		name   string
		rtt    int64
		waits  int64
		joined []int
	}{
		{"all others have run at once", 0, 0, []int{2*small + 1}},
		{"soon", 0, contendedAfter, []int{2*small + 1}},
		{"later", 0, contendedAfter + 1, []int{small, small, 1}},
		{"later, and Redis is close", nearRTT - 1, contendedAfter + 1, []int{small, small, 1}},
		{"later, and Redis is far away", nearRTT, contendedAfter + 1, []int{2*small + 1}},
	}
	for _, row := range rows {
		server := redistest.Start(t)
		redis := &saturated{store: newStore(t, server.Addr()), tokens: make(chan struct{}, 100), rtt: row.rtt, waits: row.waits, read: 10}
		l := newLimiter(redis)
		l.Now = redis.now
		l.contendedCap = small
		cache := NewCache(l, NewLimit(1000, 1000, time.Second), 20*time.Second, KeyMaker{})
		var allowed, failed int64
		var done sync.WaitGroup
		ask := func(id string) {
			done.Add(1)
			go askByID(cache, id, &allowed, &failed, &done)
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
		for i := 0; i < 2*small+1; i++ {
			if id := digits(int64(i)); i%3 > 0 {
				ask(id)
			} else {
				done.Add(1)
				go askByKey(cache, id, &allowed, &failed, &done)
			}
		}
		waiting(row.joined)
		for i := 0; i < 10; i++ {
			redis.tokens <- struct{}{}
		}
		done.Wait()
		require.Equal(t, int64(0), failed, row.name)
		require.Equal(t, int64(2*small+3), allowed, row.name)
		Close(l)
	}
}

func TestContendedCapOf(t *testing.T) {
	for _, row := range []struct{ processors, small int }{{1, 12}, {2, 12}, {3, 18}, {16, 96}, {1000, maxBatch}} {
		require.Equal(t, row.small, contendedCapOf(row.processors), row.processors)
	}
}
