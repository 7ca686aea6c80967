package resilience

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// counted is an instance that counts, and the handler of admin.
func counted(t *testing.T, config *Config) (*Middleware, *upstream, http.Handler) {
	admin := console(t)
	m, up := newInstance(t, config)
	return m, up, admin
}

// Refusals from memory under a plan are counted once each, by the limit that refuses, whatever the request and the answer are.
func TestMetrics_refusalsFromMemoryCountOnce(t *testing.T) {
	for _, row := range []struct {
		name   string
		config Config
	}{
		{"alone", Config{}},
		{"with a circuit", Config{CircuitBreaker: failures("1000")}},
		{"with an answer", Config{Answers: &AnswersConfig{RateLimited: &AnswerConfig{Body: "{limit}"}}}},
		{"with headers", Config{RateLimit: &RateLimitConfig{ResponseHeaders: "both"}}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				config := row.config
				config.Name = "shop" + strconv.Itoa(len(t.Name()))
				config.Redis = redis
				headers := ""
				if config.RateLimit != nil {
					headers = config.RateLimit.ResponseHeaders
				}
				config.RateLimit = &RateLimitConfig{Capacity: "3", RefillRate: "1", RefillPeriod: "1h", ResponseHeaders: headers,
					Limits: map[string]*LimitConfig{"everyone": forEverybody(limitOf("5", "1", "3h"))}}
				m, up, admin := counted(t, &config)
				codes := map[int]int{}
				for i := 0; i < 20; i++ {
					codes[get(m.handler)]++
					r := httptest.NewRequest("POST", "/", strings.NewReader("a body"))
					w := httptest.NewRecorder()
					m.handler.ServeHTTP(w, r)
					codes[w.Code]++
				}
				for i := 0; i < 10; i++ {
					codes[getAs(m.handler, otherClient)]++
				}
				require.Equal(t, map[int]int{200: 5, 429: 45}, codes)
				samples := scrape(t, admin)
				require.Equal(t, map[string]int{"admitted": 5, "limited": 45}, decided(samples, config.Name))
				require.Equal(t, 5, up.count())
				byLimit := func(limit string) float64 {
					return samples[`resilience_limited_total{middleware="`+config.Name+`",limit="`+limit+`"}`]
				}
				require.Equal(t, 45.0, byLimit("default")+byLimit("everyone"))
				require.Equal(t, 37.0, byLimit("default"))
			})
		})
	}
}

// The list of clients knows of refusals from memory within a second or two.
func TestStatus_knowsRefusalsFromMemory(t *testing.T) {
	newProcess(t, 0)
	clock := newClock(t)
	m, _, admin := counted(t, &Config{Name: "shop", RateLimit: &RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h",
		Limits: map[string]*LimitConfig{"everyone": forEverybody(limitOf("300", "1", "3h"))}}})
	statuses(m.handler, 40)
	clock.advance(1100 * time.Millisecond)
	require.Equal(t, 429, get(m.handler))
	most := shopIn(t, admin)["mostRefused"].([]interface{})
	require.Len(t, most, 1)
	require.Equal(t, "ip:192.0.2.1", most[0].(map[string]interface{})["key"])
	require.Equal(t, 39.0, most[0].(map[string]interface{})["refused"])
}

func TestMetrics_ofPenalties(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := penalised(redis, RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h"})
		config.Name = nameOf(t)
		m, _, admin := counted(t, config)
		labels := `resilience_limited_total{middleware="` + config.Name + `",limit="`
		_, found := scrape(t, admin)[labels+`penalty"}`]
		require.True(t, found, "also before the first")
		refused := map[string]int{}
		waitFor(t, func() bool {
			limit, _ := refusedBy(m.handler, anyRequest())
			refused[limit]++
			return refused["penalty"] == 20
		})
		samples := scrape(t, admin)
		require.Equal(t, 2, refused[""])
		require.Equal(t, float64(refused["penalty"]), samples[labels+`penalty"}`])
		require.Equal(t, float64(refused["default"]), samples[labels+`default"}`])
		require.Equal(t, map[string]int{"admitted": 2, "limited": 20 + refused["default"]}, decided(samples, config.Name))
	})
}

func TestMetrics_ofRequestsThatWait(t *testing.T) {
	newProcess(t, time.Hour)
	newStoppedClock(t)
	config := delayed(nil, "10s", "35s", "2")
	config.Name = "shop"
	m, up, admin := counted(t, config)
	w := newWaiters(t, m)
	require.Equal(t, 200, get(m.handler))
	cancelA := w.start("a")
	cancelB := w.start("b")
	require.Equal(t, 429, get(m.handler))
	samples := scrape(t, admin)
	require.Equal(t, 2.0, samples[`resilience_waiting_requests{middleware="shop"}`])
	require.Equal(t, 2.0, shopIn(t, admin)["waiting"])
	require.Equal(t, map[string]int{"admitted": 1, "limited": 1}, decided(samples, "shop"), "they are not decided yet")
	cancelA()
	cancelB()
	w.done.Wait()
	samples = scrape(t, admin)
	require.Equal(t, map[string]int{"admitted": 1, "limited": 1, "left": 2}, decided(samples, "shop"))
	require.Equal(t, 0.0, samples[`resilience_waiting_requests{middleware="shop"}`])
	require.Equal(t, 1, up.count())
}

func TestMetrics_ofRequestsThatHaveWaited(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := delayed(redis, "700ms", "20s", "")
		config.Name = nameOf(t)
		m, up, admin := counted(t, config)
		w := newWaiters(t, m)
		require.Equal(t, 200, get(m.handler))
		w.start("a")
		w.start("b")
		require.Equal(t, []string{"a 200", "b 200"}, w.wait())
		require.Equal(t, map[string]int{"admitted": 3}, decided(scrape(t, admin), config.Name))
		require.Equal(t, 3, up.count())
		require.Equal(t, int64(0), ratelimit.Delayed(m.limiter))
	})
}

// A dry run of the breaker counts what it would have refused, each request once, also where a limit has one too.
func TestMetrics_ofADryRunOfTheBreaker(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range []struct {
			name  string
			limit *RateLimitConfig
			want  map[string]int
		}{
			{"alone", nil, map[string]int{"admitted": 1, "would_open": 10}},
			{"with a limit", tokens("6"), map[string]int{"admitted": 1, "would_open": 5, "limited": 5}},
			{"with a limit's dry run", &RateLimitConfig{Capacity: "6", RefillRate: "1", RefillPeriod: "1h", DryRun: "true"},
				map[string]int{"admitted": 1, "would_open": 10}},
		} {
			row := row
			t.Run(row.name, func(t *testing.T) {
				name := nameOf(t)
				m, up, admin := counted(t, &Config{Name: name, Redis: redis, RateLimit: row.limit, CircuitBreaker: &CircuitBreakerConfig{
					FailureThreshold: "1", ResetTimeout: "1h", DryRun: "true"}})
				up.will(status(500))
				require.Equal(t, 500, get(m.handler))
				require.Equal(t, "open", circuitOf(m))
				up.will(nil)
				statuses(m.handler, 10)
				samples := scrape(t, admin)
				require.Equal(t, row.want, decided(samples, name))
				require.Equal(t, up.count(), row.want["admitted"]+row.want["would_open"])
				require.Equal(t, 1.0, samples[`resilience_circuit_state{middleware="`+name+`",state="open"}`])
			})
		}
	})
}

func TestMetrics_ofARamp(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		name := nameOf(t)
		m, up, admin := counted(t, &Config{Name: name, Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
			FailureThreshold: "1", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1", Recovery: "ramp", RampDuration: "100m"}})
		up.will(status(500))
		require.Equal(t, 500, get(m.handler))
		elapse(t, redis, time.Hour)
		up.will(nil)
		waitFor(t, func() bool { return get(m.handler) == 200 }, "the probe")
		samples := scrape(t, admin)
		labels := `{middleware="` + name + `",`
		require.Equal(t, 1.0, samples[`resilience_circuit_state`+labels+`state="ramp"}`])
		require.Equal(t, 0.0, samples[`resilience_circuit_state`+labels+`state="half-open"}`])
		require.Equal(t, 1.0, samples[`resilience_circuit_transitions_total`+labels+`from="half-open",to="ramp"}`])
		circuit := shopIn(t, admin)["circuit"].(map[string]interface{})
		require.Equal(t, "ramp", circuit["state"])
		gateway := circuit["gateway"].(map[string]interface{})
		require.InDelta(t, 6000, gateway["secondsUntilClosed"], 60)
		require.Equal(t, 0.0, gateway["secondsUntilProbe"])
		if redis != nil {
			require.Equal(t, "ramp", circuit["redis"].(map[string]interface{})["state"])
		}
		before := decided(samples, name)
		codes := map[int]int{}
		for _, code := range statuses(m.handler, 30) {
			codes[code]++
		}
		require.Greater(t, codes[503], 20)
		got := decided(scrape(t, admin), name)
		require.Equal(t, codes[503], got["circuit_open"]-before["circuit_open"])
		require.Equal(t, codes[200], got["admitted"]-before["admitted"])
	})
}

func TestMetrics_ofTheOwnCircuit(t *testing.T) {
	newProcess(t, 0)
	config := failures("1")
	config.MinGateways = "2"
	m, up, admin := counted(t, &Config{Name: "shop", Redis: at(redistest.Start(t).Addr()), CircuitBreaker: config})
	up.will(status(500))
	require.Equal(t, []int{500, 503, 503}, statuses(m.handler, 3))
	samples := scrape(t, admin)
	require.Equal(t, 1.0, samples[`resilience_circuit_state{middleware="shop",state="closed"}`])
	require.Equal(t, 1.0, samples[`resilience_own_circuit_state{middleware="shop",state="open"}`])
	require.Equal(t, 0.0, samples[`resilience_own_circuit_state{middleware="shop",state="closed"}`])
	require.Equal(t, map[string]int{"admitted": 1, "circuit_open": 2}, decided(samples, "shop"))
	require.Equal(t, "open", shopIn(t, admin)["circuit"].(map[string]interface{})["own"].(map[string]interface{})["state"])
}

func TestStatus_saysWhichServerIsInUse(t *testing.T) {
	group := redistest.StartGroup(t, 2, 1, 5*time.Second)
	cluster := redistest.StartCluster(t, 3, false, 5*time.Second)
	master := group.Servers[0].Addr()
	owner := cluster.Owner("resilience:{shop}:breaker", cluster.Nodes[0]).Addr()
	sentinels := &RedisConfig{Address: group.Addresses(), Timeout: "5s", Sentinel: &SentinelConfig{Master: redistest.MasterName}}
	nodes := &RedisConfig{Address: cluster.Addresses(), Timeout: "5s", Cluster: "true"}
	for _, row := range []struct {
		redis  *RedisConfig
		kind   string
		server string
	}{
		{sentinels, "sentinel", master},
		{nodes, "cluster", owner},
	} {
		newProcess(t, 0)
		handler, _ := newGateway(t, &Config{Name: "shop", Redis: row.redis, RateLimit: tokens("1000")})
		admin := console(t)
		waitFor(t, func() bool {
			return get(handler) == 200 && shopIn(t, admin)["redis"].(map[string]interface{})["server"] == row.server
		})
		redis := shopIn(t, admin)["redis"].(map[string]interface{})
		require.Equal(t, row.kind, redis["topology"])
		require.Equal(t, row.redis.Address, redis["address"])
		require.Equal(t, true, redis["up"])
	}
}
