package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// throttle stops the gateway's process for 100 to 200 ms again and again, as a machine does that has too little processor
// for it, until the function that it returns is called.
func (g *traefik) throttle(random *rand.Rand) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			g.process.Signal(syscall.SIGSTOP)
			time.Sleep(100*time.Millisecond + time.Duration(random.Int64N(int64(100*time.Millisecond))))
			g.process.Signal(syscall.SIGCONT)
			select {
			case <-stop:
				return
			case <-time.After(10*time.Millisecond + time.Duration(random.Int64N(int64(20*time.Millisecond)))):
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-done })
}

// Two gateways get hardly any processor. Their Redis is well, its timeout the default of 100 ms, and each pause is longer
// than that: it must not be taken for Redis's.
func TestThrottled_aPauseOfTheGatewayIsNotBlamedOnRedis(t *testing.T) {
	const (
		capacity = 20
		keys     = 10
		circuits = 5
	)
	seed := testSeed()
	t.Logf("TEST_SEED=%d", seed)
	server := redistest.Start(t)
	connection := block{"address": server.Addr()}
	plugins := map[string]block{"limit": {"redis": connection, "rateLimit": block{
		"capacity": capacity, "refillRate": 1, "refillPeriod": "1h", "sourceCriterion": block{"requestHeaderName": "X-Key"},
	}}}
	for i := range circuits {
		plugins[fmt.Sprint("circuit", i)] = block{"redis": connection, "circuitBreaker": block{"failureThreshold": 4, "resetTimeout": "1h"}}
	}
	up := startUpstream(t)
	dynamic := writeRows(t, plugins)
	writeAdmin(t, dynamic, block{"path": "/resilience"})
	fleet := []*traefik{startTraefik(t, options{upstream: up, dynamic: dynamic}), startTraefik(t, options{upstream: up, dynamic: dynamic})}
	for _, g := range fleet {
		for name := range plugins {
			require.Equal(t, http.StatusOK, g.get("/"+name).status, "a first request") // it connects
		}
	}
	var ends []func()
	for i, g := range fleet {
		end := g.throttle(rand.New(rand.NewPCG(seed, uint64(i))))
		ends = append(ends, end)
		defer end()
	}

	// Twice as many requests as each key's bucket holds, at both gateways, and more until each refuses: it may have leased a token.
	var mu sync.Mutex
	admitted := map[string]int{}
	var clients sync.WaitGroup
	for i := range keys {
		key := fmt.Sprint("key", i)
		for _, g := range fleet {
			clients.Go(func() {
				last := http.StatusOK
				for sent := 0; sent < capacity || last == http.StatusOK; sent++ {
					request, _ := http.NewRequest(http.MethodGet, g.url("/limit"), nil)
					request.Header.Set("X-Key", key)
					last = send(request).status
					mu.Lock()
					if last == http.StatusOK {
						admitted[key]++
					}
					mu.Unlock()
				}
			})
		}
	}
	clients.Wait()

	// The failures are as many as open a circuit, half of them at each gateway.
	for i := range circuits {
		for _, g := range fleet {
			clients.Go(func() {
				for range 2 {
					g.get(fmt.Sprintf("/circuit%d/fail", i))
				}
			})
		}
	}
	clients.Wait()
	open := 0
	for end := time.Now().Add(5 * time.Second); open < circuits && time.Now().Before(end); { // each report may find the gateway stopped
		open = 0
		for i := range circuits {
			if server.Hash(fmt.Sprintf("resilience:{circuit%d}:breaker", i))["state"] == "open" {
				open++
			}
		}
	}
	for _, end := range ends {
		end()
	}

	away, alone := 0, 0
	for _, g := range fleet {
		away += len(g.events("redis unavailable"))
		alone += int(g.metrics()[`resilience_fallback_decisions_total{middleware="limit"}`])
	}
	t.Logf("admitted %v; circuits open %d of %d; Redis away %d times; decided without Redis: %d", admitted, open, circuits, away, alone)
	require.Zero(t, away, "times that a healthy Redis was taken to be away")
	// A gateway whose answer is late decides alone, although Redis may have leased it the tokens. All other decisions are exact.
	for i := range keys {
		require.LessOrEqual(t, admitted[fmt.Sprint("key", i)], capacity+alone, "key%d: admitted", i)
		if alone == 0 {
			require.Equal(t, capacity, admitted[fmt.Sprint("key", i)], "key%d: admitted", i)
		}
	}
	require.Equal(t, circuits, open, "circuits that opened")
	for _, g := range fleet {
		for i := range circuits {
			require.Equal(t, http.StatusServiceUnavailable, g.get(fmt.Sprint("/circuit", i)).status)
		}
	}
}
