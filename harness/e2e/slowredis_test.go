package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// slowPlugin is a middleware whose Redis is so far away, with the default timeout, and whose clients hold no leases.
func slowPlugin(address, onError string) block {
	return block{
		"redis":          block{"address": address, "timeout": "100ms", "onError": onError},
		"rateLimit":      block{"capacity": 90, "refillRate": 90},
		"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1s"},
	}
}

// away is how long a Redis is away in these tests; 95 ms may be had, as a figure only.
func slowDelays() []int {
	delays := []int{20, 40, 60, 80}
	if os.Getenv("SLOW_REDIS_95") != "" {
		delays = append(delays, 95)
	}
	return delays
}

// A circuit that has opened closes though Redis is slow, whatever onError says: Redis is there.
func TestSlowRedis_anOpenCircuitCloses(t *testing.T) {
	for _, delay := range slowDelays() {
		for _, onError := range []string{"deny", "local", "allow"} {
			t.Run(fmt.Sprint(delay, " ms, ", onError), func(t *testing.T) {
				server := redistest.Start(t)
				far, err := gateway.StartDelay(server.Addr(), time.Duration(delay)*time.Millisecond)
				require.NoError(t, err)
				t.Cleanup(far.Stop)
				up := startUpstream(t)
				g := startTraefik(t, options{upstream: up, plugin: slowPlugin(far.Address, onError)})
				require.Eventually(t, func() bool { return g.get("/proxy/ok").status == 200 }, 5*time.Second, 50*time.Millisecond)
				up.post("/flag/fail")
				require.Eventually(t, func() bool {
					g.get("/proxy/ok")
					return server.Hash(breakerKey)["state"] == "open"
				}, 5*time.Second, 20*time.Millisecond, "failures are counted")

				// The service fails on: only probes reach it, two each second.
				up.post("/stats/reset")
				begun := time.Now()
				for time.Since(begun) < 3*time.Second {
					g.get("/proxy/ok")
					time.Sleep(20 * time.Millisecond)
				}
				reached := up.stats().ByPath["/ok"]
				require.LessOrEqual(t, reached, 3*2+2, "requests that reached the failing service in 3 s")

				up.post("/flag/heal")
				healed := time.Now()
				closed := time.Duration(0)
				for time.Since(healed) < 10*time.Second && closed == 0 {
					g.get("/proxy/ok")
					if server.Hash(breakerKey)["state"] == "closed" {
						closed = time.Since(healed)
					}
					time.Sleep(20 * time.Millisecond)
				}
				t.Logf("closed after %s; %d reached the failing service", closed.Round(10*time.Millisecond), reached)
				require.NotZero(t, closed, "it never closed")
				if delay <= 80 {
					require.Less(t, closed, 3*time.Second, "resetTimeout and 2 s")
				}
				require.Eventually(t, func() bool { return g.get("/proxy/ok").status == http.StatusOK }, 2*time.Second, 20*time.Millisecond)
			})
		}
	}
}
