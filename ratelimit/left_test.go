package ratelimit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The bucket holds 100 tokens of 1,000 units each. During a lease, bucket and lease together hold no more.
func TestWithLease(t *testing.T) {
	limit := NewLimit(100, 1, time.Millisecond)
	for _, row := range []struct {
		name                string
		level, size, unused int64
		want                int64
	}{
		{"no lease", 70500, 0, 0, 70500},
		{"an unused lease", 70500, 20, 20, 90500},
		{"a lease that is partly spent", 70500, 20, 5, 75500},
		{"a bucket that this process takes for fuller than it is", 95000, 20, 20, 100000},
		{"the same, and the lease is partly spent", 100000, 20, 5, 85000},
		{"a spent lease", 100000, 20, 0, 80000},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, withLease(limit, row.level, row.size, row.unused))
		})
	}
}

func TestLeftOfRefusal(t *testing.T) {
	slow, fast := NewLimit(10, 1, time.Minute), NewLimit(100, 1, time.Second)
	plan := &Plan{Draws: []Draw{
		{Key: "a", Levels: NewLevels([]NamedLimit{{"default", fast}, {"slow", slow}}), Cost: 4},
		{Key: "b", Levels: NewLevels([]NamedLimit{{"everyone", slow}}), Cost: 1},
	}}
	for _, row := range []struct {
		refusal Refusal
		name    string
		full    time.Duration // after the wait
	}{
		{Refusal{Limit: "default"}, "default", 96 * time.Second},
		{Refusal{Limit: "slow"}, "slow", 6 * time.Minute},
		{Refusal{Limit: "everyone", Draw: 1}, "everyone", 9 * time.Minute},
		{Refusal{Limit: "penalty"}, "default", 96 * time.Second},
	} {
		p := LeftOfRefusal(plan, row.refusal, 7000000)
		require.Equal(t, row.name, p.Name)
		require.Equal(t, Left{Known: true, Next: 7000000, Full: 7000000 + row.full.Microseconds()}, *p.Left)
	}
	require.True(t, LeftOfRefusal(&Plan{}, Refusal{}, 1).Left == nil)
}
