package ratelimit

import (
	"fmt"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Looking a bucket up, or deleting one, leaves nothing behind: neither here nor in Redis. So a million look-ups leave as much.
func TestInspect_lookupsLeaveNothing(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name   string
		shared Store
	}{{"in this process", nil}, {"in Redis", newStore(t, server.Addr())}} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			l := newLimiter(row.shared)
			limit := NewLimit(10, 1, time.Hour)
			before, keys := CountLeases(l), server.Int("DBSIZE")
			for i := 0; i < 2000; i++ {
				client := fmt.Sprintf("ip:client-%d", i)
				one := &Inspected{Key: "bucket:" + client, Client: client, Name: OwnLimit, Limit: limit, Penalty: "penalty:" + client}
				view, err := ViewBucket(l, one, time.Now().Add(5*time.Second))
				require.NoError(t, err)
				require.False(t, view.Stored)
				require.Equal(t, int64(10), view.Tokens)
				if i%2 == 0 {
					deleted, err := DeleteBucket(l, one, time.Now().Add(5*time.Second))
					require.NoError(t, err)
					require.Equal(t, Deleted{}, deleted)
				}
			}
			require.Equal(t, before, CountLeases(l))
			require.Equal(t, keys, server.Int("DBSIZE"))
		})
	}
}
