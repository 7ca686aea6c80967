package e2e

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Too many logins at one gateway end the lease by which another admits the client.
func TestPenalty_isForTheWholeFleet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis": redisBlock(server),
		"rateLimit": block{
			"capacity": 100000, "refillRate": 100000,
			"limits":  block{"logins": block{"capacity": 2, "refillRate": 1, "refillPeriod": "1h", "match": block{"paths": []string{"*/login"}}}},
			"penalty": block{"refusals": 5, "time": "30s"},
		},
		"answers": block{"rateLimited": block{"body": "{limit}"}},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	two := startTraefik(t, options{upstream: up, plugin: plugin})
	for range 50 {
		require.Equal(t, 200, two.get("/proxy/ok").status)
	}
	for i := range 7 {
		login := one.get("/proxy/login")
		require.Equal(t, i >= 2, login.status == http.StatusTooManyRequests, login.body)
	}
	begun := time.Now()
	var refused reply
	require.Eventually(t, func() bool { refused = two.get("/proxy/ok"); return refused.status == http.StatusTooManyRequests }, 5*time.Second, time.Millisecond)
	t.Logf("the other gateway refuses after %s", time.Since(begun))
	require.Equal(t, "penalty", refused.body)
	left, err := strconv.Atoi(refused.header.Get("Retry-After"))
	require.NoError(t, err)
	require.InDelta(t, 28, left, 3)
	require.Equal(t, "penalty", one.get("/proxy/ok").body)
	require.Equal(t, int64(1), server.Int("EXISTS", "resilience:{gateway}:penalty:ip:127.0.0.1"))
}

// Two gateways let requests wait for the tokens of one bucket. No request is refused, and none passes before its token.
func TestDelay_admitsAtTheRate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":     redisBlock(server),
		"rateLimit": block{"capacity": 1, "refillRate": 20, "maxDelay": "30s", "maxDelayed": 200},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	two := startTraefik(t, options{upstream: up, plugin: plugin})
	begun := time.Now()
	require.Equal(t, map[int]int{200: 40}, burst(40, "/proxy/ok", one, two))
	require.GreaterOrEqual(t, time.Since(begun), 38*50*time.Millisecond)
	require.Equal(t, 40, up.stats().ByPath["/ok"])
}

// A client that leaves gives its place back, and reaches no service.
func TestDelay_aClientThatLeaves(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":     redisBlock(server),
		"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "2s", "maxDelay": "30s", "maxDelayed": 1},
	}
	g := startTraefik(t, options{upstream: up, plugin: plugin})
	require.Equal(t, 200, g.get("/proxy/ok").status)
	ctx, leave := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer leave()
	request, err := http.NewRequestWithContext(ctx, "GET", g.url("/proxy/ok"), nil)
	require.NoError(t, err)
	require.ErrorIs(t, send(request).err, context.DeadlineExceeded)
	require.Eventually(t, func() bool { return g.get("/proxy/ok").status == 200 }, 10*time.Second, 10*time.Millisecond, "there is one place, which is free again")
	require.Equal(t, 2, up.stats().ByPath["/ok"])
}
