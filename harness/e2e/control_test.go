package e2e

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// askedAt is a request to a gateway, with when it was sent.
type askedAt struct {
	sent   time.Time
	status int
}

// askOften sends requests to a gateway, one after another, until the function that it returns is called.
func askOften(g *traefik, path string) (end func() []askedAt) {
	var all []askedAt
	var done sync.WaitGroup
	stop := make(chan struct{})
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			sent := time.Now()
			all = append(all, askedAt{sent, g.get(path).status})
		}
	})
	return func() []askedAt {
		close(stop)
		done.Wait()
		return all
	}
}

// between returns how many requests that were sent between two times had each status.
func between(all []askedAt, from, to time.Time) map[int]int {
	counts := map[int]int{}
	for _, one := range all {
		if one.sent.After(from) && one.sent.Before(to) {
			counts[one.status]++
		}
	}
	return counts
}

// A circuit that an operator opens on one gateway refuses on both within 100 ms, also on one that is started again, until its time is over.
func TestControl_aForcedCircuitRefusesOnBothGatewaysAndEnds(t *testing.T) {
	t.Parallel()
	const length = 8 * time.Second
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis": redisBlock(server), "rateLimit": block{"capacity": 1000000},
		"circuitBreaker": block{"failureThreshold": 5, "resetTimeout": "1h", "halfOpenSuccessThreshold": 1},
	}
	one := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	two := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	ends := []func() []askedAt{askOften(one, "/proxy/ok"), askOften(two, "/proxy/ok")}
	time.Sleep(time.Second)
	begun := time.Now()
	answer := one.admin("POST", "/circuits/gateway/open?for=8s&reason=a+drill", "X-Resilience", "1")
	opened := time.Now()
	require.Equal(t, 200, answer.status, answer.body)
	time.Sleep(2 * time.Second)
	restarted := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	if time.Since(begun) < length-time.Second { // on a slow machine it may have started too late
		require.Equal(t, 503, restarted.get("/proxy/ok").status)
		require.Equal(t, 200, one.admin("GET", "/status").status)
	}
	time.Sleep(time.Until(opened.Add(length + 2*time.Second)))
	for i, end := range ends {
		all := end()
		before := between(all, all[0].sent, begun)
		require.Greater(t, before[200], 50)
		require.Equal(t, before[200], before[200]+before[503], "before")
		during := between(all, opened.Add(100*time.Millisecond), begun.Add(length))
		t.Logf("gateway %d: %v before, %v from 100 ms after the change until its end, %v after", i+1, before, during, between(all, opened.Add(length+time.Second), time.Now()))
		require.Zero(t, during[200], "it refuses")
		require.Greater(t, during[503], 200)
		require.Zero(t, between(all, opened.Add(length+time.Second), time.Now())[503], "it has ended by itself")
	}
	require.Eventually(t, func() bool { return restarted.get("/proxy/ok").status == 200 }, soon, 50*time.Millisecond)
	var status struct {
		Middlewares []struct {
			Name    string
			Circuit struct{ Forced any }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(two.admin("GET", "/status").body), &status))
	for _, m := range status.Middlewares {
		require.Nil(t, m.Circuit.Forced, m.Name)
	}
}

// Deleting a client's bucket on one gateway lets the client in on both, for one full bucket in all.
func TestControl_aDeletedBucketLetsTheClientInOnBothGateways(t *testing.T) {
	t.Parallel()
	const capacity = 40
	up := startUpstream(t)
	plugin := block{"redis": redisBlock(redistest.Start(t)), "rateLimit": block{"capacity": capacity, "refillRate": 1, "refillPeriod": "1h"}}
	one := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	two := startWithAdmin(t, up, plugin, block{"path": "/resilience"})
	require.Equal(t, capacity, burst(3*capacity, "/proxy/ok", one, two)[200])
	for _, g := range []*traefik{one, two} {
		require.Equal(t, 429, g.get("/proxy/ok").status)
	}
	deleted := one.admin(http.MethodDelete, "/buckets/ip:127.0.0.1?middleware=gateway&reason=a+mistake", "X-Resilience", "1")
	begun := time.Now()
	require.Equal(t, 200, deleted.status, deleted.body)
	admitted := 0
	for _, g := range []*traefik{two, one} {
		for g.get("/proxy/ok").status != 200 {
			require.Less(t, time.Since(begun), 2*time.Second, "it is let in within a second")
			time.Sleep(5 * time.Millisecond)
		}
		admitted++
		t.Logf("let in after %s", time.Since(begun).Round(time.Millisecond))
	}
	require.Equal(t, capacity, admitted+burst(3*capacity, "/proxy/ok", one, two)[200], "one full bucket, and no more")
	require.Equal(t, 2*capacity, up.stats().Requests)
}
