package resilience

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Retry-After regards all limits that refuse a request: each step is a request, and who refuses it for how long.
func TestPlans_retryAfterRegardsAllLimits(t *testing.T) {
	type step struct{ request, body string } // "": it is admitted
	everyone := forEverybody(limitOf("1", "1", "1h", "/a"))
	for _, row := range []struct {
		name  string
		limit RateLimitConfig
		steps []step
	}{
		{"another limit has tokens, but fewer than the request costs", RateLimitConfig{Cost: &CostConfig{Header: "X-Cost", Max: "3"}, Limits: map[string]*LimitConfig{
			"short": limitOf("3", "1", "20m", "/a"), "long": forEverybody(limitOf("5", "1", "1h"))}}, []step{
			{"GET /a, X-Cost: 3", ""}, {"GET /a", "short 1200"}, {"GET /a, X-Cost: 3", "long 3600"}, {"GET /a, X-Cost: 3", "long 3600"}}},
		{"a charge that was given back", RateLimitConfig{Cost: &CostConfig{Header: "X-Cost", Max: "2"}, Limits: map[string]*LimitConfig{
			"short": limitOf("2", "1", "20m"), "failures": {Capacity: "2", RefillRate: "1", RefillPeriod: "3h", ChargeStatus: "500"}}}, []step{
			{"GET /, X-Cost: 2", ""}, {"GET /", "short 1200"}, {"GET /, X-Cost: 2", "short 2400"}}},
		{"a tier's requests have emptied a limit", RateLimitConfig{Capacity: "9", RefillRate: "1", RefillPeriod: "1h",
			Tiers:  map[string]*TierConfig{"gold": {Match: &MatchConfig{Headers: map[string]string{"X-Tier": "gold"}}, Capacity: "5"}},
			Limits: map[string]*LimitConfig{"slow": limitOf("2", "1", "3h"), "everyone": everyone}}, []step{
			{"GET /a, from 192.0.2.7", ""}, {"GET /a, from 192.0.2.7", "everyone 3600"},
			{"GET /, X-Tier: gold", ""}, {"GET /, X-Tier: gold", ""}, {"GET /a", "slow 10800"}, {"GET /a", "slow 10800"}}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				limit := row.limit
				handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: &limit, Answers: &AnswersConfig{RateLimited: &AnswerConfig{Body: "{limit} {retryAfter}"}}})
				for i, step := range row.steps {
					_, w := asked{requests: step.request, times: 1}.ask(handler)
					name, after, _ := strings.Cut(w.Body.String(), " ")
					if step.body == "" {
						require.Equal(t, 200, w.Code, "step %d", i)
						continue
					}
					wantName, want, _ := strings.Cut(step.body, " ")
					require.Equal(t, wantName, name, "step %d", i)
					seconds, err := strconv.Atoi(after)
					require.NoError(t, err)
					wanted, err := strconv.Atoi(want)
					require.NoError(t, err)
					require.InDelta(t, wanted, seconds, 4, "step %d", i)
				}
			})
		})
	}
}

// A client is refused from memory by one limit and then by another: the log counts the refusals of each.
func TestPlans_theLogCountsTheRefusalsOfEachLimit(t *testing.T) {
	newProcess(t, 0)
	clock := newClock(t)
	limit := RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"everyone": forEverybody(limitOf("3", "1", "3h"))}}
	m, _ := newInstance(t, &Config{Redis: at(redistest.Start(t).Addr()), RateLimit: &limit})
	require.Equal(t, []int{200, 200, 429, 429, 429, 429}, statuses(m.handler, 6))
	require.Equal(t, 200, getAs(m.handler, otherClient))
	require.Equal(t, 429, getAs(m.handler, otherClient), "the limit for everybody is empty")
	require.Equal(t, []int{429, 429, 429}, statuses(m.handler, 3))
	clock.advance(2 * time.Minute)
	for _, one := range []struct {
		limit  string
		before int
	}{{"default", 3}, {"everyone", 2}} {
		before, due := m.refusals.due(limitExceeded+" "+one.limit+" ip:192.0.2.1", m.now())
		require.True(t, due)
		require.Equal(t, one.before, before+notCounted(m, one.limit), one.limit)
	}
}

// notCounted returns the refusals by a limit that are counted with a plan and not in the log yet.
func notCounted(m *Middleware, limit string) (count int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, known := range m.plans {
		if known.empty != nil && known.empty.Noted == limit {
			count += int(known.empty.Refused)
		}
	}
	return count
}
