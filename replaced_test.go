//go:build !yaegi

package resilience

import (
	"context"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReload_replacedHandlersAreForgotten replaces a middleware many times within the grace.
func TestReload_replacedHandlersAreForgotten(t *testing.T) {
	newProcess(t, time.Minute)
	collected := make(chan int, 100)
	cancel := func() {}
	for i := 0; i < 10; i++ {
		cancel()
		var ctx context.Context
		ctx, cancel = context.WithCancel(context.Background())
		next := &upstream{}
		runtime.SetFinalizer(next, func(*upstream) { collected <- 1 })
		handler := newHandler(t, ctx, next, &Config{Name: "shop", RateLimit: tokens("100"), CircuitBreaker: failures("3")})
		require.Equal(t, http.StatusOK, get(handler))
	}
	waitFor(t, func() bool {
		runtime.GC()
		return len(collected) >= 8
	})
	cancel()
}
