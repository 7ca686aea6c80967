package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

func TestPrefetchSize_isWhatIsLikelyToBeUsed(t *testing.T) {
	slow, fast := NewLimit(10000, 1, time.Minute), NewLimit(10000, 10000, time.Second)
	middle := NewLimit(1000, 64, time.Second)
	rows := []struct {
		name              string
		limit             *Limit
		passed            int64 // since the key was last asked for
		asks, short, used int64
		leased, left      int64
		words             string
	}{
		{"the second time", fast, 140 * second, 1, 0, 0, 0, 0, "1 0 2"},
		{"the second time, soon", fast, second, 1, 0, 0, 0, 0, "1 0 4"},
		{"the second time, late", fast, 310 * second, 1, 0, 0, 0, 0, "1 0"},
		{"the second time, the bucket refills slowly", slow, second, 1, 0, 0, 0, 0, "1 0"},
		{"the second time, soon, the bucket refills slowly", slow, second / 4, 1, 0, 0, 0, 0, "1 1 0"},
		{"a lease in use", fast, 60 * second, 1, 0, 4, 10, 3, "1 0 22 7 3"},
		{"a lease that is over", fast, 240 * second, 1, 0, 4, 10, 3, "1 0 10"},
		{"one that is long over", fast, 3600 * second, 1, 0, 4, 10, 3, "1 0"},
		{"as many as may be leased for long", fast, second, 1, 400, 1000, 999, 0, "1 137 625 7 0"},
		{"more than that", fast, second / 4, 1, 5000, 9999, 2000, 0, "1 1137 625 7 0"},
		{"long leases are small", middle, second, 1, 0, 2, 4, 0, "1 2 4 7 0"},
		{"smaller than for a short time", middle, second, 1, 0, 20, 19, 0, "1 10 4 7 0"},
		{"the bucket refills slowly", slow, second / 4, 1, 100, 0, 100, 0, "1 49 0 7 0"},
		{"the bucket refills slowly, and it is over", slow, second, 1, 100, 0, 100, 50, "1 18 0"},
	}
	for _, row := range rows {
		const now = 5000 * second
		e := &Lease{limit: row.limit, usage: usage{requests: row.asks, shortUse: row.short, longUse: row.used, prefetchedAt: now - row.passed}}
		if row.leased > 0 {
			e.number, e.size, e.Tokens, e.ends = 7, row.leased, row.left, e.prefetchedAt+lasts(longMicros)
			if row.limit == slow {
				e.ends = e.prefetchedAt + lasts(leaseMicros)
			}
		}
		word, ends := argForLocked(e, &batch{number: 3, limit: row.limit}, 0, now)
		require.Equal(t, store.Word(row.words), word, row.name)
		require.Equal(t, strings.Count(row.words, " ") == 4, ends, row.name)
	}
}

func TestNewLimit_longLeasesAreSmall(t *testing.T) {
	rows := []struct {
		refill int64
		period time.Duration
		most   int64
	}{
		{1, time.Minute, 0}, {63, time.Second, 0}, {64, time.Second, 4}, {3840, time.Minute, 4}, {1000, time.Second, 62},
		{10000, time.Second, 625}, {1000000000, time.Microsecond, 62500000000000},
	}
	for _, row := range rows {
		require.Equal(t, row.most, NewLimit(10, row.refill, row.period).longLeaseMax, "%d in %s", row.refill, row.period)
	}
}
