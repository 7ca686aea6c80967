package resilience

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A request of a new client waits for no Redis: it passes before Redis has its bucket, and even if Redis is gone.
func TestStanding_aNewClientWaitsForNoRedis(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	redis := at(server.Addr())
	redis.OnError = "deny"
	handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: &RateLimitConfig{Capacity: "1000", RefillRate: "10", StandingLease: "true"}})
	clients := 0
	next := func() string {
		clients++
		return fmt.Sprintf("192.0.2.%d", clients)
	}
	require.Eventually(t, func() bool {
		client := next()
		return getAs(handler, client) == 200 && server.Int("EXISTS", bucketOfClient(t, client)) == 0
	}, 10*time.Second, 50*time.Millisecond)
	last := fmt.Sprintf("192.0.2.%d", clients)
	require.Eventually(t, func() bool { return server.Int("EXISTS", bucketOfClient(t, last)) == 1 }, 5*time.Second, time.Millisecond, "it is reported")

	server.Kill()
	client := next()
	require.Equal(t, 200, getAs(handler, client))
	require.Equal(t, 503, getAs(handler, client), "there is one token")
}

// A route with further limits asks for each request, and keeps back the tokens of the gateways as well.
func TestStanding_aRouteWithFurtherLimits(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	config := func(limits map[string]*LimitConfig) *Config {
		return &Config{Name: "shared", Redis: at(server.Addr()), RateLimit: &RateLimitConfig{
			Capacity: "500", RefillRate: "5", RefillPeriod: "1s", StandingLease: "true", Limits: limits}}
	}
	plain, _ := newGateway(t, config(nil))
	several, _ := newGateway(t, config(map[string]*LimitConfig{"hourly": {Capacity: "1000", RefillRate: "1000", RefillPeriod: "1h"}}))
	require.Equal(t, 200, getAs(plain, "192.0.2.1"))
	const counts = "resilience:{shared}:gateways:count"
	require.Eventually(t, func() bool { return server.Int("EXISTS", counts) == 1 && server.Text("GET", counts)[0] == '1' }, 5*time.Second, time.Millisecond)

	require.Equal(t, 200, getAs(several, "192.0.2.2"))
	value := strings.Fields(server.Text("GET", "resilience:{shared}:bucket:ip:192.0.2.2"))
	require.Equal(t, "497000000", value[0], "one token is taken, one is leased, and one is kept back")
	require.Contains(t, value[2], "1000000+")
	require.Contains(t, value[len(value)-5], "|hourly", "the value has both levels")
}

// A gateway renews its registration while a route uses the limit. The registry tells the limiter when none does any more: the next route that
// uses it has the registration renewed at once.
func TestStanding_aReloadReleasesTheLimit(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	config := func(limits map[string]*LimitConfig) *Config {
		return &Config{Name: "shared", Redis: at(server.Addr()), RateLimit: &RateLimitConfig{
			Capacity: "10000", RefillRate: "1", RefillPeriod: "1s", StandingLease: "true", Limits: limits}}
	}
	ends := func() string {
		members := server.Do("ZRANGE", "resilience:{shared}:gateways", "0", "-1", "WITHSCORES")
		return fmt.Sprint(members)
	}
	changes := func(from string) {
		require.Eventually(t, func() bool { return ends() != from }, 10*time.Second, time.Millisecond)
	}
	ctx, reload := context.WithCancel(context.Background())
	plain := newHandler(t, ctx, &upstream{}, config(nil))
	newGateway(t, config(map[string]*LimitConfig{"hourly": {Capacity: "1000", RefillRate: "1000", RefillPeriod: "1h"}}))
	none := ends()
	require.Equal(t, 200, getAs(plain, "192.0.2.1"))
	changes(none)
	changes(ends()) // it is renewed after the wait of a second, and then after 28 s

	before := ends()
	reload()
	require.Eventually(t, func() bool { return handlersOf(processRegistry) == 1 }, 5*time.Second, time.Millisecond)
	newGateway(t, config(nil))
	changes(before)
}
