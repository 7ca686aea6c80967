package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// askAs asks as a client that its header names.
func askAs(ctx context.Context, g *traefik, path, key string) reply {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url(path), nil)
	if err != nil {
		return reply{err: err}
	}
	request.Header.Set("X-Key", key)
	return send(request)
}

// standingRow is a middleware whose clients are named by their header.
func standingRow(name string, redis block, capacity, rate int, period string) block {
	return block{
		"name": name, "redis": redis,
		"rateLimit": block{
			"capacity": capacity, "refillRate": rate, "refillPeriod": period, "sourceCriterion": block{"requestHeaderName": "X-Key"},
		},
	}
}

// hasStanding reports whether a gateway admits a new client while Redis is stopped: by its standing token.
func hasStanding(server *redistest.Server, g *traefik, path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	server.Pause()
	defer server.Resume()
	return askAs(ctx, g, path, newClient()).status == http.StatusOK
}

var clientsMade atomic.Int64

func newClient() string { return fmt.Sprint("client-", clientsMade.Add(1)) }

// awaitStanding waits until each gateway is registered for the middleware of a path, and has standing tokens.
func awaitStanding(t *testing.T, server *redistest.Server, path string, gateways ...*traefik) {
	t.Helper()
	for _, g := range gateways { // each registers with its first request
		require.Equal(t, http.StatusOK, askAs(t.Context(), g, path, newClient()).status)
	}
	registry := "resilience:{" + path[1:] + "}:gateways"
	require.Eventually(t, func() bool { return server.Int("ZCARD", registry) == int64(len(gateways)) }, soon, 20*time.Millisecond, "gateways are not registered")
	for _, g := range gateways {
		for latest := time.Now().Add(soon); !hasStanding(server, g, path); time.Sleep(250 * time.Millisecond) { // in which Redis answers
			require.True(t, time.Now().Before(latest), "no standing token passes")
		}
	}
}

// requireRedis requires that all gateways decided with Redis all the time.
func requireRedis(t *testing.T, gateways ...*traefik) {
	t.Helper()
	for _, g := range gateways {
		require.Empty(t, g.events("redis unavailable"))
	}
}

// askedMany is what a client got that asked again and again.
type askedMany struct {
	statuses map[int]int
	took     time.Duration // from the first request to the last answer
}

// askMany asks n times as one client, through the gateways in turn, 16 requests at once. each, where it is not nil, sees each status.
func askMany(n int, path, key string, each func(status int), gateways ...*traefik) askedMany {
	var (
		mu    sync.Mutex
		asked atomic.Int64
		done  sync.WaitGroup
	)
	found, begun := askedMany{statuses: map[int]int{}}, time.Now()
	for range 16 {
		done.Go(func() {
			for i := int(asked.Add(1)); i <= n; i = int(asked.Add(1)) {
				status := askAs(context.Background(), gateways[i%len(gateways)], path, key).status
				if each != nil {
					each(status)
				}
				mu.Lock()
				found.statuses[status]++
				mu.Unlock()
			}
		})
	}
	done.Wait()
	found.took = time.Since(begun)
	return found
}

// requireAdmitted requires that from least to the capacity and what was refilled have passed, and that the others were refused.
func (a askedMany) requireAdmitted(t *testing.T, least, capacity, rate int) {
	t.Helper()
	admitted, most := a.statuses[http.StatusOK], float64(capacity)+float64(rate)*a.took.Seconds()
	t.Logf("%d of a capacity of %d passed in %s", admitted, capacity, a.took.Round(time.Millisecond))
	require.GreaterOrEqual(t, admitted, least, "%v", a.statuses)
	require.LessOrEqual(t, float64(admitted), most, "%v", a.statuses)
	for status := range a.statuses {
		require.Contains(t, []int{http.StatusOK, http.StatusTooManyRequests}, status, "%v", a.statuses)
	}
}

// startFleet starts gateways with the same middlewares in front of one service.
func startFleet(t *testing.T, gateways int, plugins map[string]block) (fleet []*traefik) {
	t.Helper()
	up, dynamic := startUpstream(t), writeRows(t, plugins)
	for range gateways {
		fleet = append(fleet, startTraefik(t, options{upstream: up, dynamic: dynamic}))
	}
	return fleet
}

// Up to a capacity of 100 nothing is kept back. Above, a burst through the only gateway finds all tokens, and through one of several at least 99 %.
func TestStanding_burstsFindTheCapacity(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rows := map[string]block{}
	for _, capacity := range []int{10, 50, 99, 100} {
		name := fmt.Sprint("c", capacity)
		rows[name] = standingRow(name, redisBlock(server), capacity, 1, "1h")
	}
	rows["c101"] = standingRow("c101", redisBlock(server), 101, 1, "1s")
	rows["c1000"] = standingRow("c1000", redisBlock(server), 1000, 10, "1s")
	fleet := startFleet(t, 3, rows)
	awaitStanding(t, server, "/c101", fleet[0])
	awaitStanding(t, server, "/c1000", fleet...)
	for range 3 {
		for _, capacity := range []int{10, 50, 99, 100} {
			got := askMany(2*capacity, fmt.Sprint("/c", capacity), newClient(), nil, fleet...)
			require.Equal(t, map[int]int{200: capacity, 429: capacity}, got.statuses)
		}
		askMany(200, "/c101", newClient(), nil, fleet[0]).requireAdmitted(t, 101, 101, 1)
	}
	askMany(1200, "/c1000", newClient(), nil, fleet[0]).requireAdmitted(t, 990, 1000, 10)
	askMany(1200, "/c1000", newClient(), nil, fleet...).requireAdmitted(t, 990, 1000, 10)
	requireRedis(t, fleet...)
}

// A client that asks exactly at its rate, through all gateways in turn, is hardly ever refused, though its bucket is empty.
func TestStanding_aClientAtItsRate(t *testing.T) {
	t.Parallel()
	const capacity, rate, length = 1000, 50, 15 * time.Second
	server := redistest.Start(t)
	fleet := startFleet(t, 4, map[string]block{"rate": standingRow("rate", redisBlock(server), capacity, rate, "1s")})
	awaitStanding(t, server, "/rate", fleet...)
	empty, full := newClient(), newClient()
	drained := askMany(capacity+300, "/rate", empty, nil, fleet...)
	require.Positive(t, drained.statuses[http.StatusTooManyRequests], "the bucket is empty")

	var admitted, asked [2]atomic.Int64
	var done sync.WaitGroup
	ticks, begun := time.NewTicker(time.Second/rate), time.Now()
	defer ticks.Stop()
	for i := 0; time.Since(begun) < length; i++ {
		<-ticks.C
		for c, key := range []string{empty, full} {
			asked[c].Add(1)
			done.Go(func() {
				if askAs(context.Background(), fleet[i%len(fleet)], "/rate", key).status == http.StatusOK {
					admitted[c].Add(1)
				}
			})
		}
	}
	done.Wait()
	for c, name := range []string{"empty", "full"} {
		share := float64(admitted[c].Load()) / float64(asked[c].Load())
		t.Logf("from an %s bucket: %d of %d, %.2f %%", name, admitted[c].Load(), asked[c].Load(), 100*share)
		require.GreaterOrEqual(t, share, 0.99, name)
	}
	requireRedis(t, fleet...)
}

// Requests of new clients wait for no Redis, however far it is.
func TestStanding_aFarRedisCostsNewClientsNothing(t *testing.T) {
	t.Parallel()
	const far = 20 * time.Millisecond
	server, up := redistest.Start(t), startUpstream(t)
	delay, err := gateway.StartDelay(server.Addr(), far)
	require.NoError(t, err)
	t.Cleanup(delay.Stop)
	farBlock := block{"address": delay.Address, "timeout": patience, "dialTimeout": patience}
	asking := standingRow("asking", farBlock, 1000, 100, "1s")
	asking["rateLimit"].(block)["standingLease"] = false
	names := []string{"near", "far", "asking"}
	g := startTraefik(t, options{upstream: up, dynamic: writeRows(t, map[string]block{
		"near": standingRow("near", redisBlock(server), 1000, 100, "1s"), "far": standingRow("far", farBlock, 1000, 100, "1s"), "asking": asking,
	})})
	awaitStanding(t, server, "/near", g)
	awaitStanding(t, server, "/far", g)

	took := map[string][]time.Duration{}
	for range 300 {
		for _, name := range names {
			begun := time.Now()
			require.Equal(t, http.StatusOK, askAs(t.Context(), g, "/"+name, newClient()).status)
			took[name] = append(took[name], time.Since(begun))
		}
	}
	median := map[string]time.Duration{}
	for _, name := range names {
		slices.Sort(took[name])
		median[name] = took[name][len(took[name])/2]
		t.Logf("%-6s p50 %s, p90 %s", name, median[name].Round(time.Microsecond), took[name][len(took[name])*9/10].Round(time.Microsecond))
	}
	require.Less(t, median["far"], median["near"]+time.Millisecond)
	require.Greater(t, median["asking"], far, "without standing leases new clients wait")
}

// A flush in the middle of a burst, or when the bucket is empty, costs at most one fresh bucket.
func TestStanding_aFlushCostsOneBucket(t *testing.T) {
	t.Parallel()
	const capacity, rate = 500, 10
	server := redistest.Start(t)
	fleet := startFleet(t, 3, map[string]block{"flushed": standingRow("flushed", redisBlock(server), capacity, rate, "1s")})
	for _, row := range []struct {
		name  string
		after int // requests admitted
		least int
	}{
		{"in the middle", capacity / 2, capacity},
		{"when the bucket is empty", 0, 2*capacity - 60},
	} {
		t.Run(row.name, func(t *testing.T) {
			awaitStanding(t, server, "/flushed", fleet...)
			var admitted atomic.Int64
			var flush sync.Once
			got := askMany(3*capacity, "/flushed", newClient(), func(status int) {
				n := admitted.Load()
				if status == http.StatusOK {
					n = admitted.Add(1)
				}
				if row.after > 0 && n >= int64(row.after) || row.after == 0 && status == http.StatusTooManyRequests {
					flush.Do(func() { server.For(t).Do("FLUSHALL") })
				}
			}, fleet...)
			requireRedis(t, fleet...)
			got.requireAdmitted(t, row.least, 2*capacity, rate)
		})
	}
}

// When Redis is killed, requests pass as before, of new clients and of others, and standing tokens are used again when it is back.
func TestStanding_redisIsKilled(t *testing.T) {
	t.Parallel()
	const capacity, rate = 500, 50
	server := redistest.Start(t)
	fleet := startFleet(t, 2, map[string]block{"killed": standingRow("killed", redisBlock(server), capacity, rate, "1s")})
	awaitStanding(t, server, "/killed", fleet...)
	before := newClient()
	askMany(100, "/killed", before, nil, fleet...).requireAdmitted(t, 100, capacity, rate)

	server.Kill()
	for i := range 200 {
		require.Equal(t, http.StatusOK, askAs(t.Context(), fleet[i%2], "/killed", newClient()).status, "a new client")
	}
	// Each gateway then limits by itself.
	got := askMany(2*capacity+600, "/killed", before, nil, fleet...)
	got.requireAdmitted(t, 1, 2*capacity, 2*rate)
	require.Positive(t, got.statuses[http.StatusTooManyRequests])

	server.Run()
	for _, g := range fleet {
		require.Eventually(t, func() bool { return len(g.events("redis is back")) > 0 }, soon, 20*time.Millisecond)
	}
	awaitStanding(t, server, "/killed", fleet...)
	askMany(2*capacity, "/killed", newClient(), nil, fleet...).requireAdmitted(t, capacity*99/100, capacity, rate)
}
