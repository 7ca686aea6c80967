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

// A flood of clients leaves keys. One that was used once lives until its token is refilled; with standing leases twice as long and four minutes more,
// however slow the limit is and however many gateways are registered. Else the keys of a slow limit push those of others out of Redis.
func TestLimiter_aKeyThatWasUsedOnceDoesNotLiveLong(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		capacity, most int64
		period         time.Duration
	}{
		{1000, 0, 24 * time.Hour},
		{10000, 6, 24 * time.Hour},
		{100000, 69, 24 * time.Hour},
		{1000000, 694, 24 * time.Hour},
		{1000, 10, time.Hour},
		{100000, 1000, time.Minute},
	} {
		limit := WithStanding(NewLimit(row.capacity, row.capacity, row.period))
		require.Equal(t, row.most, limit.standing, limit.text)
		refilled := row.period / time.Duration(row.capacity)
		once := func(steps []redistest.Step) time.Duration {
			server.Do("FLUSHALL")
			ask := redistest.Step{At: epoch, Keys: []string{"a"}, Args: []string{limit.text, allWords, "1 0"}}
			if limit.standing > 0 {
				ask.Keys = append(ask.Keys, "gateways:count")
			}
			server.WalkTexts([]string{take, draw, register}, append(steps, ask))
			return time.Duration(server.Int("GET", "due:a")-epoch) * time.Microsecond
		}
		var gateways []redistest.Step
		for len(gateways) < int(limit.standing) {
			gateways = append(gateways, registerStep(0, digits(int64(len(gateways))), "join"))
		}
		require.LessOrEqual(t, once(nil), refilled+3*time.Millisecond, limit.text)
		require.LessOrEqual(t, once(gateways), 2*refilled+4*time.Minute+3*time.Millisecond, limit.text)
	}
}

// heap returns the bytes in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return int64(memory.HeapAlloc)
}
