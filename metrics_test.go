package resilience

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// scrape returns the metrics of a handler with admin, by name and labels.
func scrape(t *testing.T, handler http.Handler) map[string]float64 {
	w := ask(handler, asking{path: "/resilience/metrics"})
	require.Equal(t, 200, w.Code)
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8", w.Header().Get("Content-Type"))
	samples := map[string]float64{}
	for _, line := range strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		blank := strings.LastIndex(line, " ")
		value, err := strconv.ParseFloat(line[blank+1:], 64)
		require.NoError(t, err, line)
		_, twice := samples[line[:blank]]
		require.False(t, twice, line)
		samples[line[:blank]] = value
	}
	return samples
}

// decided returns what a scrape counts as decided about the requests of a middleware, without zeros.
func decided(samples map[string]float64, middleware string) map[string]int {
	counts := map[string]int{}
	for _, decision := range decisionNames {
		n := samples[`resilience_requests_total{middleware="`+middleware+`",decision="`+decision+`"}`]
		if n != 0 {
			counts[decision] = int(n)
		}
	}
	return counts
}

// console returns a handler with admin in the present process.
func console(t *testing.T) http.Handler {
	handler, _ := newGateway(t, &Config{Name: "console", Admin: &AdminConfig{}})
	return handler
}

func TestMetrics_countEachRequestOnce(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range []struct {
			name   string
			config Config
		}{
			{"by address", Config{RateLimit: tokens("150")}},
			{"by address, with a circuit", Config{RateLimit: tokens("150"), CircuitBreaker: failures("1000000")}},
			{"by header", Config{RateLimit: &RateLimitConfig{Capacity: "150", RefillRate: "1", RefillPeriod: "1h",
				SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Key"}}, CircuitBreaker: failures("1000000")}},
			{"with response headers", Config{RateLimit: &RateLimitConfig{Capacity: "150", RefillRate: "1", RefillPeriod: "1h", ResponseHeaders: "both"}}},
			{"with further limits", Config{RateLimit: &RateLimitConfig{Capacity: "150", RefillRate: "1", RefillPeriod: "1h",
				Limits: map[string]*LimitConfig{"more": {Capacity: "1000"}}}}},
			{"a large limit", Config{RateLimit: tokens("100000"), CircuitBreaker: failures("1000000")}},
			{"only a circuit", Config{CircuitBreaker: failures("1000000")}},
		} {
			row := row
			t.Run(row.name, func(t *testing.T) {
				config := row.config
				config.Name = readName(&problems{}, "", nameOf(t)+row.name)
				config.Redis = redis
				handler, up := newGateway(t, &config)
				admin := console(t)
				load := newLoad()
				load.start(handler, 8, 100)
				before := 0
				for i := 0; i < 20; i++ { // scrapes meanwhile never count down
					now := decided(scrape(t, admin), config.Name)
					sum := now["admitted"] + now["limited"]
					require.GreaterOrEqual(t, sum, before)
					before = sum
				}
				statuses := load.wait()
				samples := scrape(t, admin)
				got := decided(samples, config.Name)
				require.Equal(t, statuses[200], got["admitted"])
				require.Equal(t, statuses[429], got["limited"])
				require.Equal(t, up.count(), got["admitted"])
				require.Equal(t, 800, got["admitted"]+got["limited"])
				if config.RateLimit != nil {
					require.Equal(t, float64(statuses[429]), samples[`resilience_limited_total{middleware="`+config.Name+`",limit="default"}`])
				}
			})
		}
	})
}

func TestMetrics_ofTheCircuit(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		name := nameOf(t)
		handler, up := newGateway(t, &Config{Name: name, Redis: redis, CircuitBreaker: failures("3")})
		admin := console(t)
		require.Equal(t, 200, get(handler))
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(500)
		}))
		require.Equal(t, []int{500, 500, 500}, statuses(handler, 3))
		waitFor(t, func() bool { return get(handler) == 503 })
		before := decided(scrape(t, admin), name)["circuit_open"]
		for i := 0; i < 50; i++ {
			require.Equal(t, 503, get(handler))
		}
		samples := scrape(t, admin)
		got := decided(samples, name)
		require.Equal(t, before+50, got["circuit_open"])
		require.Equal(t, up.count(), got["admitted"])
		labels := `{middleware="` + name + `",`
		require.Equal(t, 1.0, samples[`resilience_circuit_state`+labels+`state="open"}`])
		require.Equal(t, 0.0, samples[`resilience_circuit_state`+labels+`state="closed"}`])
		require.Equal(t, 1.0, samples[`resilience_circuit_transitions_total`+labels+`from="closed",to="open"}`])
		require.Equal(t, float64(up.count()-1), samples[`resilience_upstream_failures_total`+labels+`class="status"}`])
	})
}

func TestMetrics_ofOtherDecisions(t *testing.T) {
	newProcess(t, 0)
	banned := map[string]*TierConfig{"banned": {Match: &MatchConfig{Paths: []string{"/banned"}}, Deny: "true"}}
	byName := map[string]*LimitConfig{"logins": {Capacity: "2", RefillRate: "1", RefillPeriod: "1h", Match: &MatchConfig{Paths: []string{"/login"}}}}
	gateway := func(name string, config Config) http.Handler {
		config.Name = name
		handler, _ := newGateway(t, &config)
		return handler
	}
	rules, _ := newGateway(t, &Config{Name: "rules", RateLimit: &RateLimitConfig{Capacity: "5", RefillRate: "1", RefillPeriod: "1h", Tiers: banned, Limits: byName}})
	dry := gateway("dry", Config{RateLimit: &RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h", DryRun: "true"}})
	deny := gateway("deny", Config{RateLimit: tokens("5"), Redis: &RedisConfig{Address: closedPort, OnError: "deny"}})
	local := gateway("local", Config{RateLimit: tokens("2"), Redis: &RedisConfig{Address: closedPort}})
	admin := console(t)
	for i := 0; i < 4; i++ {
		send(rules, "GET", "/login")
		send(rules, "GET", "/banned")
	}
	for i := 0; i < 5; i++ {
		get(rules)
		get(dry)
		get(deny)
		get(local)
	}
	samples := scrape(t, admin)
	require.Equal(t, map[string]int{"admitted": 5, "limited": 4, "denied": 4}, decided(samples, "rules"))
	require.Equal(t, 2.0, samples[`resilience_limited_total{middleware="rules",limit="logins"}`])
	require.Equal(t, 2.0, samples[`resilience_limited_total{middleware="rules",limit="default"}`])
	require.Equal(t, map[string]int{"admitted": 2, "would_limit": 3}, decided(samples, "dry"))
	require.Equal(t, map[string]int{"unavailable": 5}, decided(samples, "deny"))
	require.Equal(t, map[string]int{"admitted": 2, "limited": 3}, decided(samples, "local"))
	require.Equal(t, 0.0, samples[`resilience_redis_up{redis="`+closedPort+`"}`])
	fallbacks := samples[`resilience_fallback_decisions_total{middleware="deny"}`]
	require.Equal(t, 5.0, fallbacks)
	require.Equal(t, 0.0, samples[`resilience_fallback_decisions_total{middleware="rules"}`])
}

func TestMetrics_ofRedis(t *testing.T) {
	newProcess(t, 0)
	server := redistest.Start(t)
	handler, _ := newGateway(t, &Config{Name: "shop", RateLimit: tokens("100000"), Redis: at(server.Addr())})
	admin := console(t)
	for i := 0; i < 5; i++ {
		getAs(handler, "192.0.2."+strconv.Itoa(i+1))
	}
	samples := scrape(t, admin)
	labels := `{redis="` + server.Addr() + `"`
	calls := samples[`resilience_redis_calls_total`+labels+`,result="ok"}`]
	require.GreaterOrEqual(t, calls, 5.0)
	require.Equal(t, calls, samples[`resilience_redis_call_duration_seconds_count`+labels+`}`])
	require.Equal(t, calls, samples[`resilience_redis_call_duration_seconds_bucket`+labels+`,le="+Inf"}`])
	require.Equal(t, 1.0, samples[`resilience_redis_up`+labels+`}`])
	server.Kill()
	for i := 0; i < 5; i++ {
		getAs(handler, "192.0.3."+strconv.Itoa(i+1))
	}
	samples = scrape(t, admin)
	require.Equal(t, 0.0, samples[`resilience_redis_up`+labels+`}`])
	require.Equal(t, 5.0, samples[`resilience_fallback_decisions_total{middleware="shop"}`])
	require.Greater(t, samples[`resilience_redis_calls_total`+labels+`,result="unavailable"}`], 0.0)
}

func TestMetrics_surviveAReload(t *testing.T) {
	process := newProcess(t, 20*time.Millisecond)
	make := func() (shop, admin http.Handler, cancel context.CancelFunc) {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		shop = newHandler(t, ctx, &upstream{}, &Config{Name: "shop", RateLimit: tokens("100")})
		admin = newHandler(t, ctx, &upstream{}, &Config{Name: "console", Admin: &AdminConfig{}})
		return shop, admin, cancel
	}
	shop, _, cancel := make()
	require.Equal(t, 429, statuses(shop, 150)[149])
	cancel()
	again, admin, _ := make()
	statuses(shop, 5) // still in the way of requests
	statuses(again, 5)
	require.Equal(t, map[string]int{"admitted": 100, "limited": 60}, decided(scrape(t, admin), "shop"))
	waitFor(t, func() bool {
		process.mu.Lock()
		defer process.mu.Unlock()
		return process.engines["shop"].users == 1
	})
	require.Equal(t, map[string]int{"admitted": 100, "limited": 60}, decided(scrape(t, admin), "shop"), "the previous one is released")
	statuses(again, 5)
	require.Equal(t, map[string]int{"admitted": 100, "limited": 65}, decided(scrape(t, admin), "shop"))
}

func TestMetrics_sampleDurations(t *testing.T) {
	newProcess(t, 0)
	for _, config := range []*Config{
		{Name: "limit", RateLimit: tokens("100000")},
		{Name: "circuit", CircuitBreaker: failures("100")},
		{Name: "both", RateLimit: tokens("100000"), CircuitBreaker: failures("100")},
	} {
		handler, up := newGateway(t, config)
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gatewayClock.advance(3 * time.Millisecond) }))
		admin := console(t)
		count := `resilience_upstream_duration_seconds_count{middleware="` + config.Name + `"}`
		waitFor(t, func() bool {
			get(handler)
			return scrape(t, admin)[count] >= 3
		})
		samples := scrape(t, admin)
		require.Equal(t, 0.0, samples[`resilience_upstream_duration_seconds_bucket{middleware="`+config.Name+`",le="0.0025"}`])
		require.Equal(t, up.count(), decided(samples, config.Name)["admitted"])
	}
}

func TestMetrics_areNotCountedWithoutAdmin(t *testing.T) {
	newProcess(t, 0)
	m, _ := newInstance(t, &Config{RateLimit: tokens("3")})
	statuses(m.handler, 5)
	require.False(t, m.counting)
	require.Equal(t, fastCounts{}, m.tally.fast())
}
