package e2e

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestAdmin_manyLookupsCostNoMemory looks up, deletes and is refused, as many times as LOOKUPS says, each time another client. Neither Redis
// nor the gateway has more afterwards, and requests are answered meanwhile.
func TestAdmin_manyLookupsCostNoMemory(t *testing.T) {
	server := redistest.Start(t)
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{
		"redis": redisBlock(server), "rateLimit": block{"capacity": 1000000, "limits": block{"hourly": block{"capacity": 1000000, "refillPeriod": "1h"}}},
	})
	writeAdmin(t, dynamic, block{"tokenEnv": "ADMIN_TOKEN"})
	g := startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, env: []string{"ADMIN_TOKEN=" + adminToken}, change: gauges(t, dynamic)})
	require.Equal(t, 200, g.get("/proxy/ok").status)
	n := number(t, "LOOKUPS", 8000)
	g.lookUp(t, 0, 1000) // what the first ones cost stays
	keys, heap, goroutines := server.Int("DBSIZE"), g.heap(), g.goroutines()
	begun := time.Now()
	g.lookUp(t, 1000, n)
	took := time.Since(begun)
	grown := g.heap() - heap
	t.Logf("%d look-ups in %s; the heap of %d KB has grown by %d KB", n, took.Round(time.Millisecond), heap>>10, grown>>10)
	require.Equal(t, keys, server.Int("DBSIZE"))
	require.Less(t, grown, int64(2<<20), "however many they are")
	require.Eventually(t, func() bool { return g.goroutines() <= goroutines+20 }, soon, 50*time.Millisecond)
	require.Equal(t, 200, g.get("/proxy/ok").status)
}

// What runs in the background where there is an admin block leaves nothing behind. A chain of timers did: 36 KB a second.
func TestAdmin_anIdleGatewayDoesNotGrow(t *testing.T) {
	t.Parallel()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"redis": redisBlock(redistest.Start(t)), "rateLimit": block{"capacity": 1000000}})
	writeAdmin(t, dynamic, block{"path": "/resilience"})
	g := startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, change: gauges(t, dynamic)})
	require.Equal(t, 200, g.get("/proxy/ok").status)
	time.Sleep(5 * time.Second) // until the first registration and its connection are there
	before := g.heap()
	time.Sleep(15 * time.Second)
	grown := g.heap() - before
	t.Logf("%d KB more", grown>>10)
	require.Less(t, grown, int64(300<<10))
}

// lookUp looks n clients up, of which it deletes one in a hundred, and asks without the right token once in ten.
func (g *traefik) lookUp(t *testing.T, first, n int) {
	t.Helper()
	connections := &http.Transport{MaxIdleConnsPerHost: 16}
	defer connections.CloseIdleConnections()
	var next, wrong atomic.Int64
	var done sync.WaitGroup
	for range 16 {
		done.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				method, token, want := http.MethodGet, adminToken, 200
				switch {
				case i%100 == 0:
					method = http.MethodDelete
				case i%10 == 0:
					token, want = "wrong", 401
				}
				request, err := http.NewRequest(method, fmt.Sprintf("http://%s/resilience/buckets/ip:2001:db8::%x?middleware=gateway&limit=hourly", g.api, first+i), nil)
				if err != nil {
					wrong.Add(1)
					return
				}
				request.Header.Set("Authorization", "Bearer "+token)
				request.Header.Set("X-Resilience", "1")
				response, err := connections.RoundTrip(request)
				if err != nil {
					wrong.Add(1)
					return
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != want {
					wrong.Add(1)
				}
			}
		})
	}
	done.Wait()
	require.Zero(t, wrong.Load(), "answers with another status")
}
