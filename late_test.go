package resilience

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A Redis that sometimes answers late is unavailable for a moment each time, and this process decides. That fills no bucket a second time.
func TestMiddleware_lateRepliesAddNoTokens(t *testing.T) {
	for _, every := range []int64{3, 20} {
		redis := at(redistest.Slowly(t, redistest.Start(t).Addr(), every, 80*time.Millisecond))
		redis.Timeout = "40ms"
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		m, err := newMiddleware(ctx, status(http.StatusOK), &Config{
			Redis: redis, RateLimit: &RateLimitConfig{Capacity: "50", RefillRate: "1", RefillPeriod: "1h"},
		}, t.Name()+time.Duration(every).String())
		require.NoError(t, err)
		var passed int64
		var done sync.WaitGroup
		for client := 0; client < 8; client++ {
			done.Add(1)
			go func() {
				defer done.Done()
				pace := time.NewTicker(5 * time.Millisecond)
				defer pace.Stop()
				for i := 0; i < 150; i++ {
					if get(m.handler) == http.StatusOK {
						atomic.AddInt64(&passed, 1)
					}
					<-pace.C
				}
			}()
		}
		done.Wait()
		require.LessOrEqual(t, passed, int64(50), "one of %d answers is late", every)
		require.Greater(t, passed, int64(20), "one of %d answers is late", every)
	}
}
