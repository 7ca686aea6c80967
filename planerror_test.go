package resilience

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// Several limits while Redis is unavailable or slow, and across a reload.

func TestPlans_whileRedisIsUnavailable(t *testing.T) {
	tiered := planLimit("4", "90", "90")
	tiered.Tiers = map[string]*TierConfig{"here": {Match: &MatchConfig{ClientIPs: []string{"192.0.2.0/24"}}, Capacity: "2"}}
	costly := planLimit("8", "90", "90")
	costly.Cost = &CostConfig{Methods: map[string]string{"GET": "4"}}
	charged := tokens("90")
	charged.Limits = map[string]*LimitConfig{"found": chargedAt("3", "200")}
	spared := tokens("5")
	spared.Limits = map[string]*LimitConfig{"failed": chargedAt("2", "401")}
	denied := planLimit("4", "90", "90")
	denied.Tiers = map[string]*TierConfig{"here": {Match: &MatchConfig{ClientIPs: []string{"192.0.2.0/24"}}, Deny: "true"}}
	for _, row := range []struct {
		name, onError string
		limit         *RateLimitConfig
		want          []int
	}{
		{"local: the block's own limit", "local", planLimit("2", "90", "90"), []int{200, 200, 429, 429}},
		{"local: the second limit", "local", planLimit("90", "3", "90"), []int{200, 200, 200, 429}},
		{"local: the limit for everybody", "local", planLimit("90", "90", "1"), []int{200, 429, 429}},
		{"local: a tier", "local", tiered, []int{200, 200, 429}},
		{"local: a cost", "local", costly, []int{200, 200, 429}},
		{"local: a status that is charged", "local", charged, []int{200, 200, 200, 429}},
		{"local: a status that is not", "local", spared, []int{200, 200, 200, 200, 200, 429}},
		{"local: denied", "local", denied, []int{403, 403}},
		{"local: a dry run", "local", dryRun(planLimit("1", "90", "90")), []int{200, 200, 200}},
		{"allow", "allow", planLimit("1", "1", "1"), []int{200, 200, 200}},
		{"allow: denied", "allow", denied, []int{403, 403}},
		{"allow: a status that is charged", "allow", charged, []int{200, 200, 200, 200, 200}},
		{"deny", "deny", planLimit("2", "2", "2"), []int{503, 503}},
		{"deny: denied", "deny", denied, []int{403, 403}},
		{"deny: a dry run", "deny", dryRun(planLimit("1", "1", "1")), []int{200, 200, 200}},
	} {
		row := row
		for _, circuit := range []*CircuitBreakerConfig{nil, failures("5")} {
			if circuit != nil && row.onError == "deny" {
				continue // the circuit refuses
			}
			circuit := circuit
			t.Run(fmt.Sprint(row.name, ", with a breaker ", circuit != nil), func(t *testing.T) {
				newProcess(t, 0)
				handler, _ := newGateway(t, &Config{Redis: &RedisConfig{Address: closedPort, OnError: row.onError}, RateLimit: row.limit, CircuitBreaker: circuit})
				require.Equal(t, row.want, statuses(handler, len(row.want)))
			})
		}
	}
}

// chargedAt is a limit that takes tokens for some statuses, and does not refill during a test.
func chargedAt(capacity, statuses string) *LimitConfig {
	limit := slow(capacity)
	limit.ChargeStatus = statuses
	return limit
}

// Redis answers in time at some times and too late at others. Where onError is deny, no more is admitted than the limits give, by both gateways together, and each
// admitted request has its tokens. What late calls took is lost, and nothing else is.
func TestPlansFleet_whileRedisIsLate(t *testing.T) {
	server := redistest.Start(t)
	relay := redistest.NewRelay(t, server)
	redis := &RedisConfig{Address: relay.Addr(), Timeout: "40ms", OnError: "deny"}
	one, two, _, _ := gateways(t, &Config{Redis: redis, RateLimit: planLimit("70", "60", "300")})
	c := newClients()
	ended := func() bool { return getAs(one, "198.51.100.1") < 500 && getAs(two, "198.51.100.1") < 500 }
	for round := 0; round < 6; round++ {
		relay.Delay([]time.Duration{0, 60 * time.Millisecond}[round%2])
		c.start(one, 5, 6)
		c.start(two, 5, 6)
		c.done.Wait()
		relay.Delay(0)
		waitFor(t, ended, "Redis is asked again")
	}
	late := c.statuses[503]
	require.Greater(t, late, 0)
	require.Greater(t, c.statuses[200], 60, "%v", c.statuses)
	for i := 0; i < 2; i++ {
		c.start(one, 5, 70)
		c.start(two, 5, 70)
		c.done.Wait()
	}
	for address, admitted := range c.admitted {
		require.LessOrEqual(t, admitted, int64(60), address)
		taken := takenOf(t, server, bucketOfClient(t, address), "hourly", 60)
		require.LessOrEqual(t, taken, int64(60))
		require.GreaterOrEqual(t, taken, admitted, address)
		require.Equal(t, taken, takenOf(t, server, bucketOfClient(t, address), "default", 70), "what is taken of one level is taken of the other")
	}
	require.GreaterOrEqual(t, takenOf(t, server, everyoneOf(t), "everyone", 300), c.total())
	require.GreaterOrEqual(t, c.total()+int64(late)+100, int64(300), "%v", c.statuses)
}

func TestPlans_reloadAppliesNewLimits(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range []struct {
			name          string
			before, after *RateLimitConfig
			more          int // of ten requests, after five before the reload
		}{
			{"the same", planLimit("9", "8", "90"), planLimit("9", "8", "90"), 3},
			{"a lower second limit cuts its level", planLimit("90", "80", "90"), planLimit("90", "4", "90"), 4},
			{"a higher second limit keeps its level", planLimit("90", "6", "90"), planLimit("90", "60", "90"), 1},
			{"a lower limit for everybody", planLimit("90", "80", "90"), planLimit("90", "80", "2"), 2},
			{"further limits", tokens("8"), planLimit("8", "90", "2"), 2},
			{"further limits do not reset the block's own", tokens("8"), planLimit("8", "90", "90"), 3},
			{"no further limits", planLimit("8", "6", "6"), tokens("8"), 3},
		} {
			row := row
			t.Run(row.name, func(t *testing.T) {
				newProcess(t, time.Hour)
				ctx, reload := context.WithCancel(context.Background())
				before := newHandler(t, ctx, &upstream{}, &Config{Redis: redis, RateLimit: row.before})
				require.Equal(t, []int{200, 200, 200, 200, 200}, statuses(before, 5))
				reload()
				after, up := newGateway(t, &Config{Redis: redis, RateLimit: row.after})
				statuses(after, 10)
				require.Equal(t, row.more, up.count())
			})
		}
	})
}
