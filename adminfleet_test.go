package resilience

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

func TestFleet_gatewaysFindEachOther(t *testing.T) {
	newProcess(t, 0)
	server := redistest.Start(t)
	handler, _ := newGateway(t, &Config{Name: "shop", RateLimit: tokens("1000"), Redis: at(server.Addr())})
	admin := console(t)
	require.Equal(t, 200, get(handler))
	waitFor(t, func() bool { return len(server.Hash("resilience:{shop}:fleet")) == 1 })
	// Another gateway, one that has ended, and what is no registration.
	future := time.Now().Add(10 * time.Second).UnixMilli()
	server.Do("HSET", "resilience:{shop}:fleet", "00ab", decimal(future)+",1.2.3,other,-250,host-2", "00cd", "1000,1.2.3,x,0,host-3",
		"00ef", decimal(future)+",a text", "not an id", decimal(future)+",1,2,3,4")
	shared := processRegistry.shown()[0]
	waitFor(t, shared.fleet.begin) // the registration in the background has ended
	shared.register(shared.settingsID(), time.Second)
	fleet := shopIn(t, admin)["fleet"].(map[string]interface{})
	require.Equal(t, true, fleet["settingsDiffer"])
	gateways := fleet["gateways"].([]interface{})
	require.Len(t, gateways, 2)
	found := false
	for _, one := range gateways {
		gateway := one.(map[string]interface{})
		if gateway["self"] == true {
			require.Equal(t, gatewayID, gateway["id"])
			continue
		}
		found = true
		require.Equal(t, "00ab", gateway["id"])
		require.Equal(t, "host-2", gateway["host"])
		require.Equal(t, "1.2.3", gateway["version"])
		require.Equal(t, -0.25, gateway["clockOffsetSeconds"])
		require.Equal(t, true, gateway["settingsDiffer"])
	}
	require.True(t, found)
	require.Equal(t, 2.0, scrape(t, admin)[`resilience_gateways{middleware="shop"}`])
	require.Len(t, server.Hash("resilience:{shop}:fleet"), 2)
	require.Zero(t, server.Int("EXISTS", "resilience:{shop}:gateways"), "that key is for registrations of another kind")
}

// What decides about requests is compared, also where the settings in words are the same.
func TestFleet_comparesAllThatDecides(t *testing.T) {
	byIP, byKey := &SourceCriterionConfig{IPStrategy: &IPStrategyConfig{Depth: "1"}}, &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}
	tier := func(address string) *RateLimitConfig {
		return &RateLimitConfig{Tiers: map[string]*TierConfig{"bad": {Match: &MatchConfig{ClientIPs: []string{address}}, Deny: "true"}}}
	}
	limit := func(chargeStatus string) *RateLimitConfig {
		return &RateLimitConfig{Limits: map[string]*LimitConfig{"logins": {Capacity: "5", ChargeStatus: chargeStatus}}}
	}
	for _, row := range []struct {
		name          string
		first, second *Config
		differ        bool
	}{
		{"the same", &Config{RateLimit: tokens("5")}, &Config{RateLimit: tokens("5")}, false},
		{"written otherwise", &Config{RateLimit: &RateLimitConfig{RefillPeriod: "60s"}}, &Config{RateLimit: &RateLimitConfig{RefillPeriod: "1m"}}, false},
		{"another number", &Config{RateLimit: tokens("5")}, &Config{RateLimit: tokens("6")}, true},
		{"another source", &Config{RateLimit: &RateLimitConfig{SourceCriterion: byIP}}, &Config{RateLimit: &RateLimitConfig{SourceCriterion: byKey}}, true},
		{"a tier of other clients", &Config{RateLimit: tier("192.0.2.1")}, &Config{RateLimit: tier("192.0.2.2")}, true},
		{"another status is charged", &Config{RateLimit: limit("401")}, &Config{RateLimit: limit("403")}, true},
	} {
		ids := []string{}
		for _, config := range []*Config{row.first, row.second} {
			newProcess(t, 0)
			config.Name = "shop"
			newGateway(t, config)
			ids = append(ids, processRegistry.shown()[0].settingsID())
		}
		require.Equal(t, row.differ, ids[0] != ids[1], row.name)
		newProcess(t, 0)
		newGateway(t, row.first)
		newGateway(t, row.second)
		require.Equal(t, row.differ, shopIn(t, console(t))["settingsDiffer"], row.name+", in one gateway")
	}
}

func TestFleet_withoutRedisIsThisGateway(t *testing.T) {
	newProcess(t, 0)
	newGateway(t, &Config{Name: "shop", RateLimit: tokens("1000")})
	admin := console(t)
	require.Equal(t, 1.0, scrape(t, admin)[`resilience_gateways{middleware="shop"}`])
	require.Len(t, shopIn(t, admin)["fleet"].(map[string]interface{})["gateways"], 1)
}

func TestFleet_isBounded(t *testing.T) {
	server := redistest.Start(t)
	for i := int64(0); i < 300; i++ {
		server.Do("HSET", "many", decimal(1000+i), decimal(time.Now().Add(10*time.Second).UnixMilli())+",1,2,3,4")
	}
	s := store.New(store.Settings{Address: server.Addr(), Timeout: time.Second, DialTimeout: time.Second}, func(error) {})
	defer s.Close()
	call := &store.Call{Script: fleetScript, Number: 1, Words: []string{
		store.Word("many"), store.Word("aa"), store.Word("16000"), store.Word("1,2,3,4"), store.Word(decimal(maxFleet)),
	}}
	require.NoError(t, s.Run([]*store.Call{call}, time.Now().Add(5*time.Second)))
	require.Equal(t, maxFleet+1, len(strings.Fields(call.Answer)))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
