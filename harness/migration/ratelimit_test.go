package migration

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	inMemory  = "`rateLimit` in memory"
	withRedis = "`rateLimit` with `redis`"
	plugin    = "the plugin"
)

const pluginLimit = "plugin.resilience.rateLimit"

// patience is for tests that are not about a slow Redis: a busy machine must not make a gateway limit by itself.
var patience = under("plugin.resilience.redis", block{"timeout": "5s", "dialTimeout": "5s"})

// limiters returns the columns of the page's figures of the limiter, from the examples in the page.
func limiters(t *testing.T) (page, []system) {
	t.Helper()
	section := readPage(t, "docs/migration/traefik.md").section(t, "## rateLimit")
	before, after := section.section(t, "### Before").middleware(t), section.section(t, "### After").middleware(t)
	return section, []system{
		{inMemory, with(before, block{"rateLimit.redis": nil})},
		{withRedis, before},
		{plugin, with(after, patience)},
	}
}

// TestRateLimit_sideBySide loads the page's examples in the real Traefik and compares its figures.
func TestRateLimit_sideBySide(t *testing.T) {
	t.Parallel()
	section, systems := limiters(t)
	table := section.section(t, "### Measured").table(t)
	loads := []load{
		{
			row: "200 requests at once", // one first, since the limiter in memory may make a new client several buckets
			measure: func(t *testing.T, m measured) float64 {
				return passed(t, m, 1) + passed(t, m, 199)
			},
		},
		{
			row: "the bucket is emptied, the client waits 7 s and sends 200 more",
			measure: func(t *testing.T, m measured) float64 {
				_ = passed(t, m, 1) + passed(t, m, 199)
				time.Sleep(7 * time.Second)
				return passed(t, m, 1) + passed(t, m, 199)
			},
		},
		{
			row: "200 requests at once, over two routers",
			measure: func(t *testing.T, m measured) float64 {
				one := send(atOnce(2), func(i int) string { return []string{m.a, m.b}[i%2] })
				return one.passed() + send(atOnce(198), func(i int) string { return []string{m.a, m.b}[i%2] }).passed()
			},
		},
		{
			row: "`average: 0`, or no `rateLimit` block in the plugin: 100 requests",
			changes: map[string]block{
				inMemory:  {"rateLimit.average": 0},
				withRedis: {"rateLimit.average": 0},
				plugin:    {pluginLimit: nil},
			},
			measure: func(t *testing.T, m measured) float64 { return passed(t, m, 100) },
		},
	}
	disturbed := []load{
		{
			row: "200 requests at once, over two gateways",
			measure: func(t *testing.T, m measured) float64 {
				return send(atOnce(2), m.onEachGateway).passed() + send(atOnce(198), m.onEachGateway).passed()
			},
		},
		{
			row: "the bucket is emptied, Traefik reloads, and the client sends 100 more",
			measure: func(t *testing.T, m measured) float64 {
				_ = passed(t, m, 1) + passed(t, m, 99)
				m.stack.reload(t, "reload-"+m.name)
				return passed(t, m, 1) + passed(t, m, 99)
			},
		},
		{
			row: "Redis has ended: answers of 500 to 20 requests",
			measure: func(t *testing.T, m measured) float64 {
				m.stack.redis.Kill()
				return float64(send(atOnce(20), same(m.a)).status[http.StatusInternalServerError])
			},
		},
	}
	complete(t, table, loads, disturbed)
	t.Run("undisturbed", func(t *testing.T) {
		t.Parallel()
		compare(t, 1, table, systems, loads, false)
	})
	t.Run("disturbed", func(t *testing.T) {
		t.Parallel()
		compare(t, 2, table, systems, disturbed, true)
	})
}

// TestRateLimit_aStoppedRedis measures how long a request waits for a Redis that does not answer, with the defaults of both.
func TestRateLimit_aStoppedRedis(t *testing.T) {
	t.Parallel()
	section, systems := limiters(t)
	systems[2].middleware = section.section(t, "### After").middleware(t) // with the default timeout
	table := section.section(t, "### A Redis that does not answer").table(t)
	slowest := func(t *testing.T, m measured) *answers {
		m.stack.redis.Pause()
		got := send(atOnce(3), same(m.a))
		t.Log(got)
		return got
	}
	loads := []load{
		{
			row:     "seconds until the slowest is answered",
			measure: func(t *testing.T, m measured) float64 { return slowest(t, m).slowest.Seconds() },
		},
		{
			row: "answers of 500",
			measure: func(t *testing.T, m measured) float64 {
				return float64(slowest(t, m).status[http.StatusInternalServerError])
			},
		},
	}
	complete(t, table, loads)
	compare(t, 1, table, systems[1:], loads, false)
}

// TestRateLimit_burstOfOne compares burst: 1 with capacity: 1 and capacity: 2, for clients that send at exactly their rate.
func TestRateLimit_burstOfOne(t *testing.T) {
	t.Parallel()
	section, systems := limiters(t)
	table := section.section(t, "### burst: 1").table(t)
	const rate, every = 2, 500 * time.Millisecond
	own := with(systems[1].middleware, under("rateLimit", block{"average": rate, "period": "1s", "burst": 1}))
	ours := with(systems[2].middleware, under(pluginLimit, block{"refillRate": rate, "refillPeriod": "1s"}))
	systems = []system{
		{"`rateLimit`, `burst: 1`", own},
		{"`capacity: 1`", with(ours, under(pluginLimit, block{"capacity": 1}))},
		{"`capacity: 2`", with(ours, under(pluginLimit, block{"capacity": 2}))},
	}
	sending := func(times []time.Duration) func(t *testing.T, m measured) float64 {
		return func(t *testing.T, m measured) float64 {
			require.Equal(t, http.StatusNotFound, ask(m.a+"/warm")) // connects
			got := send(times, same(m.a))
			for tries := 1; got.latest > 60*time.Millisecond && tries < 4; tries++ { // the machine had no time for the client
				t.Logf("%v, and one was sent %v late: measured again", got, got.latest)
				time.Sleep(2 * time.Second) // the bucket fills up
				got = send(times, same(m.a))
			}
			t.Log(got)
			return got.passed()
		}
	}
	loads := []load{
		{row: "20 requests, one every 500 ms", measure: sending(evenly(20, every))},
		{row: "20 requests, one every 500 ms, but each second one 100 ms early", measure: sending(unevenly(20, every, 100*time.Millisecond))},
		{row: "80 requests, one every 125 ms: four times the rate", measure: sending(evenly(80, every/4))},
	}
	complete(t, table, loads)
	compare(t, 1, table, systems, loads, false)
}
