//go:build !yaegi

package ratelimit

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// KEYS=1000000 makes it a million.
func TestLimiter_aFloodOfKeysTakesBoundedMemory(t *testing.T) {
	keys := int64(100000)
	if text := os.Getenv("KEYS"); text != "" {
		number, err := strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
		keys = number
	}
	server := redistest.Start(t)
	l := newLimiter(newStore(t, server.Addr()))
	limit := NewLimit(10, 10, time.Second)
	before := heap()
	var next, allowed int64
	var done sync.WaitGroup
	for client := 0; client < 128; client++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for i := atomic.AddInt64(&next, 1); i <= keys; i = atomic.AddInt64(&next, 1) {
				verdict, err := allowBy(NewCache(l, limit, 20*time.Second, KeyMaker{}), digits(i), "header:"+digits(i), l.Now())
				if err == nil && verdict > 0 {
					atomic.AddInt64(&allowed, 1)
				}
			}
		}()
	}
	done.Wait()
	require.Equal(t, keys, allowed)
	grown := heap() - before
	t.Logf("%d keys: the heap grew by %d KB; Redis had %d keys at the end", keys, grown>>10, server.Int("DBSIZE"))
	require.Less(t, grown, int64(50<<20))
	require.LessOrEqual(t, len(l.recent)+len(l.previous), maxKeys)
	gone := func() bool { return server.Int("DBSIZE") == 0 }
	require.Eventually(t, gone, 5*time.Second, 50*time.Millisecond, "a bucket that is full has no key")
}

// heap returns the bytes in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return int64(memory.HeapAlloc)
}
