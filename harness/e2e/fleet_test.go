package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const breakerKey = "resilience:{gateway}:breaker"

func TestFleet_aClientHasOneBucket(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":     redisBlock(server),
		"rateLimit": block{"capacity": 50, "refillRate": 1, "refillPeriod": "1h"},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	two := startTraefik(t, options{upstream: up, plugin: plugin})
	require.Equal(t, map[int]int{200: 50, 429: 50}, burst(100, "/proxy/ok", one, two))
	require.Equal(t, 50, up.stats().ByPath["/ok"])
}

func TestFleet_aSmallBucketIsExact(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":     redisBlock(server),
		"rateLimit": block{"capacity": 10, "refillRate": 1, "refillPeriod": "1h"},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	two := startTraefik(t, options{upstream: up, plugin: plugin})
	require.Equal(t, map[int]int{200: 10, 429: 30}, burst(40, "/proxy/ok", one, two))
}

func TestFleet_aCircuitOpenedByOneIsOpenForAll(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis": redisBlock(server),
		// One failure opens it: with more, a success of the busy one between them would start the count anew.
		"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	idle := startTraefik(t, options{upstream: up, plugin: plugin})
	busy := startTraefik(t, options{upstream: up, plugin: plugin})

	// The busy one answers a request a millisecond, and notes when each was sent.
	type sent struct {
		at     time.Time
		status int
	}
	var mu sync.Mutex
	var all []sent
	stop := make(chan struct{})
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := time.Now()
				status := busy.get("/proxy/ok").status
				mu.Lock()
				all = append(all, sent{at, status})
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	require.Equal(t, 500, one.get("/proxy/fail").status)
	opened := time.Now()
	require.Equal(t, 503, idle.get("/proxy/ok").status, "the idle one, at its first request")
	time.Sleep(300 * time.Millisecond)
	close(stop)
	done.Wait()

	late := 0
	for _, s := range all {
		if s.at.Sub(opened) > 110*time.Millisecond && s.status != 503 {
			late++
		}
	}
	require.Zero(t, late, "requests let through later than 100 ms and two round trips")
	require.Equal(t, 503, all[len(all)-1].status)
}

func TestFleet_probesAreCountedTogether(t *testing.T) {
	t.Parallel()
	const maxProbes = 2
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis": redisBlock(server),
		"circuitBreaker": block{
			// It does not close while the burst lasts, however long that takes.
			"failureThreshold": 1, "resetTimeout": "300ms", "halfOpenSuccessThreshold": 1000, "halfOpenMaxProbes": maxProbes,
		},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	two := startTraefik(t, options{upstream: up, plugin: plugin})
	for round := range 5 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			require.Eventually(t, func() bool { return one.get("/proxy/fail").status == 500 }, 5*time.Second, 20*time.Millisecond)
			require.Equal(t, 503, two.get("/proxy/ok").status)
			time.Sleep(350 * time.Millisecond)
			up.post("/stats/reset")
			counts := burst(50, "/proxy/slow?seconds=0.2", one, two)
			s := up.stats()
			require.LessOrEqual(t, s.InFlight.Max, maxProbes)
			require.Equal(t, s.Requests, counts[200])
			require.GreaterOrEqual(t, counts[200], 1)
			require.Equal(t, 50, counts[200]+counts[503])
			require.Equal(t, "half-open", server.Hash(breakerKey)["state"])
		})
	}
}

func TestFleet_aGatewayThatDiesWithAProbe(t *testing.T) {
	t.Parallel()
	late := redistest.Late(t)
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis": redisBlock(server),
		"circuitBreaker": block{
			"failureThreshold": 1, "resetTimeout": "300ms", "halfOpenSuccessThreshold": 1, "probeTimeout": "1s",
		},
	}
	one := startTraefik(t, options{upstream: up, plugin: plugin})
	dying := startTraefik(t, options{upstream: up, plugin: plugin})
	require.Equal(t, 500, one.get("/proxy/fail").status)
	time.Sleep(400 * time.Millisecond)

	go dying.get("/proxy/slow?seconds=30")
	require.Eventually(t, func() bool { return up.stats().InFlight.Now == 1 }, soon, 5*time.Millisecond)
	r := one.get("/proxy/ok")
	require.Equal(t, 503, r.status, "there is place for one probe")
	require.Equal(t, "1", r.header.Get("Retry-After"))
	dying.process.Kill()

	begun := time.Now()
	require.Eventually(t, func() bool { return one.get("/proxy/ok").status == http.StatusOK }, 5*time.Second, 20*time.Millisecond)
	require.Less(t, time.Since(begun), 1500*time.Millisecond+late(), "its probe's time, and a reset time")
	require.Equal(t, "closed", server.Hash(breakerKey)["state"])
}
