package breaker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOpenNotice_holdsUntilItsSecondsChange(t *testing.T) {
	now := int64(0)
	b := New(Settings{Now: func() int64 { return now }})
	policy := NewPolicy(1, 1500*time.Millisecond, 2, 2, 10*time.Second)
	permit, _, err := b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Nil(t, b.OpenNotice(now), "the circuit is not open")
	b.Done(permit, Failure, policy, time.Second)
	require.Equal(t, 1500*1000, int(b.View.Open))

	now = 400 * 1000
	first := b.OpenNotice(now)
	require.Equal(t, 2, int(first.Seconds), "1.1 s are left, rounded up")
	require.Len(t, first.Holds, 1)
	require.Same(t, first, b.OpenNotice(now), "all requests share it")
	require.Eventually(t, func() bool { return len(first.Holds) == 0 }, 5*time.Second, time.Millisecond)
	now = 500 * 1000
	second := b.OpenNotice(now)
	require.Equal(t, 1, int(second.Seconds), "1 s is left")
	require.Len(t, second.Holds, 1)
	now = 1500 * 1000
	_, retryAfter, err := b.Allow(policy, false, now, time.Time{})
	require.NoError(t, err)
	require.Zero(t, retryAfter, "the deadline has passed")
	require.Empty(t, second.Holds, "the circuit is half-open")
	require.Nil(t, b.OpenNotice(now))
}
