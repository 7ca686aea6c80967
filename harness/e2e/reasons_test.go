package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// Two gateways each see half of the requests to a service that fails at every third one.
func TestReasons_aRatioIsTheFleets(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, ratio string
		state       string
	}{{"30 %", "30", "open"}, {"40 %", "40", "closed"}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			up := startUpstream(t)
			plugin := block{"redis": redisBlock(server), "circuitBreaker": block{
				"failureThreshold": "0", "failureRatio": row.ratio, "window": "1m", "minimumRequests": 60, "resetTimeout": "1h"}}
			one := startTraefik(t, options{upstream: up, plugin: plugin})
			two := startTraefik(t, options{upstream: up, plugin: plugin})
			for i := range 60 {
				path := "/proxy/ok"
				if i%3 == 2 {
					path = "/proxy/fail"
				}
				[]*traefik{one, two}[i%2].get(path)
			}
			time.Sleep(200 * time.Millisecond) // what was counted is reported within 100 ms
			require.Equal(t, row.state, server.Hash(breakerKey)["state"])
			want := map[string]int{"open": 503, "closed": 200}[row.state]
			require.Equal(t, map[int]int{want: 10}, burst(10, "/proxy/ok", one, two))
		})
	}
}

// A service that answers after 3 s opens the circuit by the ratio of slow answers, which two gateways have counted together.
func TestReasons_slowAnswers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	gateways := startTwo(t, server, startUpstream(t), block{"failureThreshold": "0", "slowRatio": "50", "minimumRequests": 10, "resetTimeout": "1h"})
	require.Equal(t, map[int]int{200: 10}, burst(10, "/proxy/slow?seconds=3", gateways...))
	for _, g := range gateways {
		require.Eventually(t, func() bool { return g.get("/proxy/ok").status == 503 }, soon, 20*time.Millisecond)
	}
	require.Equal(t, "open", server.Hash(breakerKey)["state"])
}

// Clients that send or read slowly never make an answer slow, although their requests take longer than slowDuration.
func TestReasons_slowClients(t *testing.T) {
	t.Parallel()
	const length, each = 1200 * time.Millisecond, 10
	server := redistest.Start(t)
	gateways := startTwo(t, server, startUpstream(t), block{
		"failureThreshold": "0", "slowRatio": "10", "slowDuration": "600ms", "window": "1m", "minimumRequests": 2 * each, "resetTimeout": "1h"})
	var done sync.WaitGroup
	for i := range each {
		g := gateways[i%2]
		done.Go(func() {
			status, err := g.upload(length)
			assert.NoError(t, err)
			assert.Equal(t, 200, status)
		})
		done.Go(func() {
			assert.False(t, slowly(t, client, g.url("/proxy/download?bytes=33554432"), length), "the answer was cut")
		})
	}
	done.Wait()
	require.Eventually(t, func() bool {
		requests, failed, slow := counted(server)
		return requests == 2*each && failed == 0 && slow == 0
	}, soon, 20*time.Millisecond, "%v", server.Hash(breakerKey))
	require.Equal(t, map[int]int{200: 10}, burst(10, "/proxy/ok", gateways...))
}

// startTwo starts two gateways with the same circuit breaker.
func startTwo(t *testing.T, server *redistest.Server, up *upstream, breaker block) []*traefik {
	t.Helper()
	plugin := block{"redis": redisBlock(server), "circuitBreaker": breaker}
	return []*traefik{startTraefik(t, options{upstream: up, plugin: plugin}), startTraefik(t, options{upstream: up, plugin: plugin})}
}

// counted returns how many requests, failures and slow requests the window in Redis holds.
func counted(server *redistest.Server) (requests, failed, slow int) {
	for _, text := range strings.Fields(server.Hash(breakerKey)["window"]) {
		var start, n, f, s int
		fmt.Sscanf(text, "%d:%d:%d:%d", &start, &n, &f, &s)
		requests += n
		failed += f
		slow += s
	}
	return requests, failed, slow
}

// What is a failure, and for how long: statuses that are chosen, requests that never count, and failures that have grown old.
func TestReasons_whatCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	gateways := startTwo(t, server, startUpstream(t), block{"failureThreshold": 3, "resetTimeout": "1h", "failureStatus": "404, 503",
		"failureAge": "1s", "ignore": block{"paths": []string{"/proxy/missing/health*"}}})
	ask := func(times int, path string, status int) {
		t.Helper()
		for i := range times {
			require.Equal(t, status, gateways[i%2].get(path).status, path)
		}
	}
	ask(5, "/proxy/fail", 500)
	ask(5, "/proxy/missing/health/1", 404)
	ask(2, "/proxy/missing", 404)
	time.Sleep(1200 * time.Millisecond)
	ask(2, "/proxy/missing", 404)
	require.Equal(t, "closed", server.Hash(breakerKey)["state"], "two of the four are too old")
	ask(1, "/proxy/missing", 404)
	require.Equal(t, "open", server.Hash(breakerKey)["state"])
	require.Eventually(t, func() bool { return gateways[1].get("/proxy/ok").status == 503 }, soon, 20*time.Millisecond)
	require.Equal(t, 503, gateways[0].get("/proxy/missing/health/1").status, "ignored requests are refused, too")
}

// A circuit whose probes fail waits twice as long each time, and takes two failed probes to open again. Two gateways know the same.
func TestReasons_backoff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	gateways := startTwo(t, server, startUpstream(t), block{"failureThreshold": 1, "resetTimeout": "400ms", "resetBackoff": "2",
		"maxResetTimeout": "1s", "halfOpenFailureThreshold": 2, "halfOpenMaxProbes": 1})
	failed := 0
	lengths := map[string]int{} // milliseconds for which it was open, by how often it had opened again
	begun := time.Now()
	for i := 0; lengths["3"] == 0; i++ {
		require.Less(t, time.Since(begun), soon+5*time.Second)
		if gateways[i%2].get("/proxy/fail").status == 500 {
			failed++
		}
		if hash := server.Hash(breakerKey); hash["state"] == "open" {
			opened, _ := strconv.Atoi(hash["generation"])
			deadline, _ := strconv.Atoi(hash["deadline"])
			lengths[hash["repeats"]] = (deadline - opened) / 1000
		}
		time.Sleep(5 * time.Millisecond)
	}
	require.Equal(t, map[string]int{"": 400, "1": 800, "2": 1000, "3": 1000}, lengths)
	require.Equal(t, 1+3*2, failed, "each time two probes")
	require.GreaterOrEqual(t, time.Since(begun), 2200*time.Millisecond)
	require.Eventually(t, func() bool { return gateways[0].get("/proxy/ok").status == 200 }, soon, 20*time.Millisecond)
	require.Eventually(t, func() bool { gateways[1].get("/proxy/ok"); return server.Hash(breakerKey)["state"] == "closed" }, soon, 20*time.Millisecond)
	require.Empty(t, server.Hash(breakerKey)["repeats"], "closing it ends that")
}

// Each host has a circuit, which two gateways share.
func TestReasons_aHostIsTheFleets(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	gateways := startTwo(t, server, startUpstream(t), block{"failureThreshold": 3, "resetTimeout": "1h", "scope": "host"})
	get := func(g *traefik, host, path string) int {
		request, err := http.NewRequest(http.MethodGet, g.url(path), nil)
		require.NoError(t, err)
		request.Host = host
		return send(request).status
	}
	for i := range 3 {
		require.Equal(t, 500, get(gateways[i%2], "bad.example", "/proxy/fail"))
		require.Equal(t, 200, get(gateways[i%2], "good.example", "/proxy/ok"))
	}
	for _, g := range gateways {
		require.Eventually(t, func() bool { return get(g, "bad.example", "/proxy/ok") == 503 }, soon, 20*time.Millisecond)
		require.Equal(t, 200, get(g, "good.example", "/proxy/ok"))
		require.NotEmpty(t, g.events("circuit open"))
		require.Equal(t, "host:bad.example", g.events("circuit open")[0]["scope"])
	}
}

// In a dry run the circuit of the fleet opens, and no gateway refuses.
func TestReasons_dryRun(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	gateways := startTwo(t, server, startUpstream(t), block{"failureThreshold": 3, "resetTimeout": "1h", "dryRun": true})
	require.Equal(t, map[int]int{500: 10}, burst(10, "/proxy/fail", gateways...))
	require.Equal(t, "open", server.Hash(breakerKey)["state"])
	for _, g := range gateways {
		require.Equal(t, map[int]int{200: 10}, burst(10, "/proxy/ok", g))
		require.NotEmpty(t, g.events("circuit open"))
		require.NotEmpty(t, g.events("refused: circuit open (dry run)"))
		require.Empty(t, g.events("refused: circuit open"))
	}
}

// A gRPC service answers with 200 whatever happens. Its codes open the circuit, in trailers and in answers that consist of headers alone.
func TestReasons_gRPCCodes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, method string
		code, opens  codes.Code
	}{
		{"an answer of headers alone", "Fail", codes.Unavailable, codes.Unavailable},
		{"a message, then the code", "FailLate", codes.Unavailable, codes.Unavailable},
		{"a code that is no failure", "Nothing", codes.Unimplemented, codes.OK},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := startRPC(t)
			folder := writeRows(t, map[string]block{"codes": {"circuitBreaker": block{
				"failureThreshold": 3, "resetTimeout": "1h", "failureGrpcStatus": "UNAVAILABLE, 13"}}})
			route := block{"rule": "PathPrefix(`/test.Echo/`)", "entryPoints": []string{"web"}, "middlewares": []string{"codes"}, "service": "rpc"}
			writeYAML(t, filepath.Join(folder, "rpc.yml"), block{"http": block{
				"routers":  block{"rpc": route},
				"services": block{"rpc": block{"loadBalancer": block{"servers": []block{{"url": "h2c://" + server.address}}}}},
			}})
			g := startTraefik(t, options{upstream: startUpstream(t), dynamic: folder})
			c := dialRPC(t, g.web)
			require.Eventually(t, func() bool { return call(t.Context(), c, "Count", false).code == codes.OK }, soon, 20*time.Millisecond)
			for range 3 {
				require.Equal(t, row.code, call(t.Context(), c, row.method, false).code)
			}
			heard := call(t.Context(), c, "Count", false)
			require.Equal(t, row.opens, heard.code)
			if row.opens != codes.OK {
				require.Equal(t, "Service temporarily unavailable due to circuit open.", heard.text)
			}
		})
	}
}

// After the probes the share that passes follows a straight line, counted at the service, over two gateways. A failure in the ramp opens the
// circuit again for both.
func TestReasons_theRampIsTheFleets(t *testing.T) {
	t.Parallel()
	const seconds, perSecond = 5, 200
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{"redis": redisBlock(server), "circuitBreaker": block{
		"failureThreshold": 1, "resetTimeout": "500ms", "halfOpenSuccessThreshold": 1, "recovery": "ramp", "rampDuration": "5s"}}
	gateways := []*traefik{startTraefik(t, options{upstream: up, plugin: plugin}), startTraefik(t, options{upstream: up, plugin: plugin})}
	require.Equal(t, 500, gateways[0].get("/proxy/fail").status)
	require.Eventually(t, func() bool { return gateways[0].get("/proxy/ok").status == 200 }, soon, 20*time.Millisecond, "the probe")
	require.Equal(t, "ramp", server.Hash(breakerKey)["state"])
	begun := time.Now()
	up.post("/stats/reset")
	var done sync.WaitGroup
	passed := 0
	for n := range seconds * perSecond {
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / perSecond)))
		done.Go(func() { gateways[n%2].get("/proxy/ok") })
		if n%perSecond == perSecond-1 {
			done.Wait()
			i := n / perSecond
			now := up.stats().ByPath["/ok"]
			share := 100 * float64(now-passed) / perSecond
			passed = now
			t.Logf("second %d: %.0f %%", i, share)
			require.InDelta(t, 20*i+10, share, 10, "second %d", i)
		}
	}
	require.Eventually(t, func() bool { gateways[0].get("/proxy/ok"); return server.Hash(breakerKey)["state"] == "closed" }, soon, 20*time.Millisecond)
	require.Equal(t, map[int]int{200: 20}, burst(20, "/proxy/ok", gateways...))

	require.Equal(t, 500, gateways[1].get("/proxy/fail").status)
	// What passed in the ramp does not count when it has ended. The other gateway may take 100 ms to know that.
	require.Eventually(t, func() bool { return gateways[1].get("/proxy/fail").status == 503 }, soon, 5*time.Millisecond)
	require.Eventually(t, func() bool { gateways[1].get("/proxy/ok"); return server.Hash(breakerKey)["state"] == "ramp" }, soon, 20*time.Millisecond)
	ramp := server.Hash(breakerKey)["generation"]
	require.Eventually(t, func() bool { return gateways[0].get("/proxy/fail").status == 500 }, soon, 5*time.Millisecond)
	require.Equal(t, "open", server.Hash(breakerKey)["state"])
	require.Greater(t, server.Hash(breakerKey)["generation"], ramp)
	time.Sleep(120 * time.Millisecond) // what the other gateway takes to know it
	require.Equal(t, map[int]int{503: 10}, burst(10, "/proxy/ok", gateways...))
}

// One of four gateways cannot reach the service. It opens a circuit for itself, and the others serve without one refusal.
func TestReasons_aBrokenNetworkCutsOffOneGateway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{"redis": redisBlock(server), "circuitBreaker": block{"failureThreshold": 5, "resetTimeout": "1h", "minGateways": 3}}
	var others []*traefik
	for range 3 {
		others = append(others, startTraefik(t, options{upstream: up, plugin: plugin}))
	}
	nowhere := &upstream{address: freeAddress(t)}
	broken := startTraefik(t, options{upstream: nowhere, plugin: plugin})
	for range 10 {
		require.Equal(t, map[int]int{200: 30}, burst(30, "/proxy/ok", others...))
		broken.get("/proxy/ok")
	}
	require.Equal(t, 503, broken.get("/proxy/ok").status)
	require.NotEmpty(t, broken.events("circuit open for this gateway alone"))
	require.Equal(t, map[int]int{200: 60}, burst(60, "/proxy/ok", others...))
	require.Equal(t, "closed", server.Hash(breakerKey)["state"])
}
