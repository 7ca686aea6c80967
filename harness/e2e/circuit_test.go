package e2e

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// opened starts two gateways that both know of a circuit which is open for an hour.
func opened(t *testing.T, server *redistest.Server) (one, two *traefik) {
	t.Helper()
	up := startUpstream(t)
	plugin := block{
		"redis":          redisBlock(server),
		"rateLimit":      block{"capacity": 100000, "refillRate": 100000},
		"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"},
	}
	one = startTraefik(t, options{upstream: up, plugin: plugin})
	two = startTraefik(t, options{upstream: up, plugin: plugin})
	require.Equal(t, 500, one.get("/proxy/fail").status)
	require.Equal(t, 503, two.get("/proxy/ok").status)
	return one, two
}

func TestCircuit_aDeletedKeyClosesIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, two := opened(t, server)
	for range 20 { // as under traffic
		require.Equal(t, map[int]int{503: 40}, burst(40, "/proxy/ok", one, two))
		time.Sleep(100 * time.Millisecond)
	}
	server.Do("DEL", breakerKey)
	begun := time.Now()
	for _, g := range []*traefik{one, two} {
		require.Eventually(t, func() bool { return g.get("/proxy/ok").status == 200 }, 4*time.Second, 20*time.Millisecond)
	}
	t.Logf("closed after %s", time.Since(begun).Round(10*time.Millisecond))
	time.Sleep(2 * time.Second)
	require.Equal(t, map[int]int{200: 40}, burst(40, "/proxy/ok", one, two), "and it stays so")
}

func TestCircuit_staysOpenIfRedisComesBackEmpty(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{0, 2 * time.Second} {
		t.Run("away for "+pause.String(), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			one, two := opened(t, server)
			server.Kill()
			begun := time.Now()
			for time.Since(begun) < pause {
				require.Equal(t, map[int]int{503: 2}, burst(2, "/proxy/ok", one, two))
				time.Sleep(50 * time.Millisecond)
			}
			server.Run()
			for range 60 {
				require.Equal(t, map[int]int{503: 2}, burst(2, "/proxy/ok", one, two))
				time.Sleep(50 * time.Millisecond)
			}
			require.Equal(t, "open", server.Hash(breakerKey)["state"])
			for _, g := range []*traefik{one, two} {
				require.Empty(t, g.events("circuit closed"))
				require.Regexp(t, "^3[45]..$", g.get("/proxy/ok").header.Get("Retry-After"), "the rest of its time")
			}
		})
	}
}

func TestCircuit_aReloadShortensTheResetTimeout(t *testing.T) {
	t.Parallel()
	withAndWithout(t, func(t *testing.T, server *redistest.Server) {
		up := startUpstream(t)
		config := func(resetTimeout string) block {
			plugin := block{"name": "circuit", "circuitBreaker": block{"failureThreshold": 1, "resetTimeout": resetTimeout}}
			if server != nil {
				plugin["redis"] = redisBlock(server)
			}
			return block{
				"middlewares": block{"circuit": block{"plugin": block{"resilience": plugin}}},
				"routers": block{"circuit": block{
					"rule": "Path(`/ok`) || Path(`/fail`)", "entryPoints": []string{"web"}, "middlewares": []string{"circuit"}, "service": "upstream",
				}},
			}
		}
		g := startReloadable(t, up, config("1h"))
		require.Equal(t, 500, g.get("/fail").status)
		require.Equal(t, 503, g.get("/ok").status)
		require.Equal(t, "3600", g.get("/ok").header.Get("Retry-After"))
		g.reload(config("2s"))
		begun := time.Now()
		require.Eventually(t, func() bool { return g.get("/ok").status == 200 }, 6*time.Second, 20*time.Millisecond)
		t.Logf("closed after %s", time.Since(begun).Round(10*time.Millisecond))
	})
}
