package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// reloadable is a gateway whose dynamic configuration the test changes.
type reloadable struct {
	*traefik
	folder  string
	version int
}

func startReloadable(t *testing.T, up *upstream, http block) *reloadable {
	t.Helper()
	r := &reloadable{folder: t.TempDir()}
	writeDynamic(t, r.folder, block{"health": block{}})
	withGauges := gauges(t, r.folder)
	r.traefik = startTraefik(t, options{upstream: up, dynamic: r.folder, change: func(static map[string]any) {
		withGauges(static)
		gateway.Set(static, "20ms", "providers", "providersThrottleDuration")
	}})
	r.reload(http)
	return r
}

// reload replaces the configuration, and returns when it has taken over: a separate route tells its number.
func (r *reloadable) reload(http block) {
	r.t.Helper()
	r.version++
	version := fmt.Sprint(r.version)
	http["middlewares"].(block)["version"] = block{"headers": block{"customResponseHeaders": block{"X-Version": version}}}
	http["routers"].(block)["version"] = block{
		"rule": "Path(`/version`)", "entryPoints": []string{"web"}, "middlewares": []string{"version"}, "service": "noop@internal",
	}
	writeYAML(r.t, filepath.Join(r.folder, "reload.yml"), block{"http": http})
	tookOver := func() bool { return r.get("/version").header.Get("X-Version") == version }
	require.Eventually(r.t, tookOver, time.Minute, 2*time.Millisecond, "version %s", version)
}

// limited is a configuration with one limit for everything.
func limited(server *redistest.Server, capacity int, refillPeriod string) block {
	plugin := block{
		"name": "limited", "rateLimit": block{"capacity": capacity, "refillRate": 1, "refillPeriod": refillPeriod},
	}
	if server != nil {
		plugin["redis"] = redisBlock(server)
	}
	return block{
		"middlewares": block{"limited": block{"plugin": block{"resilience": plugin}}},
		"routers": block{"limited": block{
			"rule": "Path(`/ok`)", "entryPoints": []string{"web"}, "middlewares": []string{"limited"}, "service": "upstream",
		}},
	}
}

func TestReload_aChangedLimitAppliesFromTheFirstRequest(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	for name, server := range map[string]*redistest.Server{"with Redis": redistest.Start(t), "without": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startReloadable(t, up, limited(server, 10, "1h"))
			require.Equal(t, map[int]int{200: 4}, burst(4, "/ok", g.traefik))
			g.reload(limited(server, 10, "2h"))
			require.Equal(t, map[int]int{200: 1}, burst(1, "/ok", g.traefik), "nothing is lost by a slower refill")
			g.reload(limited(server, 3, "1h"))
			require.Equal(t, map[int]int{200: 3, 429: 7}, burst(10, "/ok", g.traefik), "of five left, a lower capacity cuts two")
			g.reload(limited(server, 100, "1h"))
			require.Equal(t, map[int]int{429: 10}, burst(10, "/ok", g.traefik), "a higher one grows from what is there")
			g.reload(limited(server, 100, "1ms"))
			time.Sleep(200 * time.Millisecond)
			require.Equal(t, map[int]int{200: 100}, burst(100, "/ok", g.traefik), "and as fast as it says")
		})
	}
}

func TestReload_aChangedLimitAppliesElsewhereWithinOneLease(t *testing.T) {
	t.Parallel()
	up, server := startUpstream(t), redistest.Start(t)
	one := startReloadable(t, up, limited(server, 100000, "1h"))
	two := startReloadable(t, up, limited(server, 100000, "1h"))
	for range 3 {
		require.Equal(t, map[int]int{200: 200}, burst(200, "/ok", one.traefik, two.traefik), "so that both hold leases")
	}
	one.reload(limited(server, 5, "1h"))
	one.get("/ok")
	time.Sleep(600 * time.Millisecond) // a lease is half a second
	counts := burst(100, "/ok", one.traefik, two.traefik)
	require.LessOrEqual(t, counts[200], 5)
	require.Equal(t, 100, counts[200]+counts[429])
}

// fifty is a configuration with fifty routers: forty before a limit that is never met and a circuit that stays closed,
// and the others before a bucket that is empty and a circuit that is open, each shared in Redis and in this process.
func fifty(server *redistest.Server) block {
	plugin := func(name string, capacity int, redis block) block {
		plugin := block{
			"name":           name,
			"rateLimit":      block{"capacity": capacity, "refillRate": 1, "refillPeriod": "1h"},
			"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"},
		}
		if redis != nil {
			plugin["redis"] = redis
		}
		return block{"plugin": block{"resilience": plugin}}
	}
	shared := redisBlock(server)
	routers := block{}
	for i := range 50 {
		routers[fmt.Sprint("r", i)] = block{
			"rule": fmt.Sprintf("PathPrefix(`/%d/`)", i), "entryPoints": []string{"web"}, "service": "upstream",
			"middlewares": []string{ofRouter(i), "strip"},
		}
	}
	return block{
		"routers": routers,
		"middlewares": block{
			"wide": plugin("wide", 1000000, shared), "wide-here": plugin("wide-here", 1000000, nil),
			"empty": plugin("empty", 10, shared), "empty-here": plugin("empty-here", 10, nil),
			"open": plugin("open", 1000000, shared), "open-here": plugin("open-here", 1000000, nil),
			"strip": block{"stripPrefixRegex": block{"regex": []string{"/[0-9]+"}}},
		},
	}
}

// ofRouter names the middleware of a router.
func ofRouter(i int) string {
	if i >= 40 {
		return []string{"wide-here", "empty", "empty-here", "open", "open-here"}[i%5]
	}
	return "wide"
}

// wrong tells what is wrong with the answer to a request to a router, where the buckets are empty and the circuits open.
func wrong(i int, id string, r reply) string {
	want, holds := http.StatusOK, `"query":"`+id+`"`
	switch strings.TrimSuffix(ofRouter(i), "-here") {
	case "empty":
		want, holds = http.StatusTooManyRequests, limitedBody
	case "open":
		want, holds = http.StatusServiceUnavailable, openBody
	}
	if r.err == nil && r.status == want && strings.Contains(r.body, holds) {
		return ""
	}
	return fmt.Sprintf("router %d, %s: %d %q %v; want %d", i, id, r.status, r.body, r.err, want)
}

// traffic is clients that send requests all the time, and note wrong answers.
type traffic struct {
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex // guards what follows
	requests int
	wrong    []string
}

func startLoad(g *traefik, clients int) *traffic {
	l := &traffic{stop: make(chan struct{})}
	for c := range clients {
		l.done.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				case <-time.After(time.Millisecond):
				}
				i, id := rand.IntN(50), fmt.Sprintf("id=%d-%d", c, n)
				l.note(wrong(i, id, g.get(fmt.Sprintf("/%d/echo?%s", i, id))))
			}
		})
	}
	return l
}

func (l *traffic) note(wrong string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if wrong != "" {
		l.wrong = append(l.wrong, wrong)
	}
}

// last lets the clients ask for so long, or until they have asked as often as end requires.
func (l *traffic) last(t *testing.T, length time.Duration) {
	t.Helper()
	time.Sleep(length)
	enough := func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.requests > 1000
	}
	require.Eventually(t, enough, soon, 10*time.Millisecond)
}

// end stops the clients, and requires that no answer was wrong.
func (l *traffic) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	t.Logf("%d requests, %d wrong", l.requests, len(l.wrong))
	require.Empty(t, l.wrong)
	require.Greater(t, l.requests, 1000)
}

// level is what must not grow with the number of reloads.
type level struct {
	heap                           int64
	goroutines, files, connections int
}

func (g *traefik) level(servers ...*redistest.Server) level {
	client.CloseIdleConnections() // else the test's own count
	time.Sleep(100 * time.Millisecond)
	l := level{heap: g.heap(), goroutines: g.goroutines(), files: g.files()}
	for _, server := range servers {
		l.connections += connections(server)
	}
	g.t.Logf("heap %.1f MB, %d goroutines, %d files, %d connections to Redis", float64(l.heap)/(1<<20), l.goroutines, l.files, l.connections)
	return l
}

// exhaust empties the bucket before a router.
func exhaust(t *testing.T, g *traefik, i int) {
	t.Helper()
	require.Equal(t, map[int]int{200: 10, 429: 10}, burst(20, fmt.Sprintf("/%d/ok", i), g))
}

// open opens the circuit before a router.
func open(t *testing.T, g *traefik, i int) {
	t.Helper()
	require.Equal(t, http.StatusInternalServerError, g.get(fmt.Sprintf("/%d/fail", i)).status)
}

// number returns the number in the environment, or the default.
func number(t *testing.T, variable string, byDefault int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, variable)
	return n
}

// RELOADS=500 takes two minutes.
func TestReload_manyUnderLoad(t *testing.T) {
	reloads := number(t, "RELOADS", 100)
	t.Parallel() // it waits for long
	up, server, next := startUpstream(t), redistest.Start(t), redistest.Start(t)
	g := startReloadable(t, up, fifty(server))
	exhaust(t, g.traefik, 41)
	exhaust(t, g.traefik, 42)
	open(t, g.traefik, 43)
	open(t, g.traefik, 44)
	warm := startLoad(g.traefik, 4)
	warm.last(t, 2*time.Second)
	warm.end(t)
	before := g.level(server)

	under, begun := startLoad(g.traefik, 4), time.Now()
	for range reloads {
		g.reload(fifty(server))
	}
	under.last(t, 0)
	under.end(t)
	t.Logf("%d reloads in %s", reloads, time.Since(begun).Round(time.Millisecond))
	require.Less(t, g.level(server).heap, 2*before.heap, "though the handlers that were replaced are not forgotten yet")

	slow := make(chan reply)
	go func() { slow <- g.get("/0/slow?seconds=5") }()
	require.Eventually(t, func() bool { return up.stats().InFlight.Now == 1 }, soon, time.Millisecond)
	g.reload(fifty(next))
	moved := time.Now()
	require.Equal(t, http.StatusOK, g.get("/0/ok").status)
	require.Equal(t, int64(1), next.Int("EXISTS", "resilience:{wide}:bucket:ip:127.0.0.1"), "the new Redis is used at once")
	require.Equal(t, http.StatusOK, (<-slow).status, "a request of an old handler")

	time.Sleep(time.Until(moved.Add(31 * time.Second))) // handlers that were replaced are let go after half a minute
	require.Zero(t, connections(server), "to the Redis that is not used any more")
	exhaust(t, g.traefik, 41)
	open(t, g.traefik, 43)
	warm = startLoad(g.traefik, 4)
	warm.last(t, 2*time.Second)
	warm.end(t)
	after := g.level(server, next)
	require.Less(t, after.heap, before.heap+before.heap/4)
	require.LessOrEqual(t, after.goroutines, before.goroutines+10)
	require.LessOrEqual(t, after.files, before.files+10)
	require.LessOrEqual(t, after.connections, before.connections+4)
}
