package resilience

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSampler_picksTheFirstEventOfEachPeriod(t *testing.T) {
	s := newSampler(100)
	for i, step := range []struct {
		key    string
		now    int64
		due    bool
		before int
	}{
		{"a", 0, true, 0},
		{"a", 1, false, 0},
		{"b", 2, true, 0},
		{"a", 99, false, 0},
		{"a", 100, true, 2},
		{"b", 101, false, 0},
		{"b", 102, true, 1},
		{"a", 199, false, 0},
		{"a", 5000, true, 1},
		{"a", 5099, false, 0},
		{"a", 5100, true, 1},
		{"a", 5200, true, 0},
	} {
		before, due := s.due(step.key, step.now)
		require.Equal(t, step.due, due, "step "+strconv.Itoa(i))
		require.Equal(t, step.before, before, "step "+strconv.Itoa(i))
	}
}

func fill(s *sampler, prefix string, now int64) {
	for i := 0; i < maxSampled; i++ {
		s.due(prefix+strconv.Itoa(i), now)
	}
}

func TestSampler_treatsAllKeysAsOneWhenFull(t *testing.T) {
	s := newSampler(100)
	fill(s, "a", 0)

	_, first := s.due("b", 1)
	_, second := s.due("c", 2)
	_, known := s.due("a0", 3)
	require.True(t, first)
	require.False(t, second)
	require.False(t, known)
	require.Len(t, s.seen, maxSampled+1)

	fill(s, "d", 4)
	require.Len(t, s.seen, maxSampled+1)
	s.due("e", 101)
	_, apart := s.due("f", 102)
	require.True(t, apart, "the first period is over, and there is room again")
	require.Len(t, s.seen, 2)
}

func TestSampler_removesExpiredKeys(t *testing.T) {
	s := newSampler(100)
	fill(s, "a", 0)
	fill(s, "b", 200)

	require.Len(t, s.seen, maxSampled)
	before, due := s.due("b0", 300)
	require.True(t, due)
	require.Equal(t, 0, before)
}

func TestSampler_sweepsRarelyWhenFull(t *testing.T) {
	s := newSampler(160)
	fill(s, "a", 0)
	s.due("b", 1)

	require.Equal(t, int64(11), s.nextSweep)
	s.due("c", 10)
	require.Equal(t, int64(11), s.nextSweep)
	s.due("d", 11)
	require.Equal(t, int64(21), s.nextSweep)
}
