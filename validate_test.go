package resilience

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

func mustRead(t *testing.T, config *Config) *settings {
	s, err := readConfig(config, "gateway@file")
	require.NoError(t, err)
	return s
}

// everyBlock enables all parts and sets no value.
func everyBlock() *Config {
	return &Config{
		Redis:          &RedisConfig{Address: "redis:6379", TLS: &TLSConfig{}},
		RateLimit:      &RateLimitConfig{SourceCriterion: &SourceCriterionConfig{IPStrategy: &IPStrategyConfig{}}},
		CircuitBreaker: &CircuitBreakerConfig{},
		Health:         &HealthConfig{},
	}
}

func TestRead_omitsPartsWithoutABlock(t *testing.T) {
	s := mustRead(t, &Config{})

	require.True(t, s.limit == nil)
	require.True(t, s.policy == nil)
	require.Equal(t, "", s.health)
	require.Equal(t, "", s.redis.Address)
	require.Len(t, s.parts, 0)
	require.Len(t, s.warnings, 0)
}

func TestRead_defaults(t *testing.T) {
	for _, row := range []struct {
		name  string
		check func(t *testing.T, s *settings)
	}{
		{"name", func(t *testing.T, s *settings) { require.Equal(t, "gateway", s.name) }},
		{"redis.username", func(t *testing.T, s *settings) { require.Equal(t, "", s.redis.Username) }},
		{"redis.password", func(t *testing.T, s *settings) { require.Equal(t, "", s.redis.Password) }},
		{"redis.db", func(t *testing.T, s *settings) { require.Equal(t, 0, s.redis.DB) }},
		{"redis.tls", func(t *testing.T, s *settings) { require.True(t, s.redis.TLS == nil) }},
		{"redis.timeout", func(t *testing.T, s *settings) { require.Equal(t, 100*time.Millisecond, s.redis.Timeout) }},
		{"redis.dialTimeout", func(t *testing.T, s *settings) { require.Equal(t, time.Second, s.redis.DialTimeout) }},
		{"redis.maxConnAge", func(t *testing.T, s *settings) { require.Equal(t, 5*time.Minute, s.redis.MaxConnAge) }},
		{"redis.keyPrefix", func(t *testing.T, s *settings) { require.Equal(t, "resilience", s.redis.KeyPrefix) }},
		{"redis.onError", func(t *testing.T, s *settings) { require.Equal(t, "local", s.onError) }},
		{"rateLimit", func(t *testing.T, s *settings) {
			require.Equal(t, byDefault(ratelimit.NewLimit(100, 10, time.Second)), s.limit)
		}},
		{"rateLimit.sourceCriterion", func(t *testing.T, s *settings) { require.Equal(t, identity.Source{}, s.keySource) }},
		{"circuitBreaker", func(t *testing.T, s *settings) {
			require.Equal(t, breaker.NewPolicy(5, 30*time.Second, 2, 2, 10*time.Second), s.policy)
		}},
		{"health.path", func(t *testing.T, s *settings) { require.Equal(t, "/health", s.health) }},
		{"warnings", func(t *testing.T, s *settings) { require.Len(t, s.warnings, 0) }},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			row.check(t, mustRead(t, everyBlock()))
		})
	}
}

// Templates write an empty or blank text for a variable that is not set.
func TestRead_treatsBlankAsTheDefault(t *testing.T) {
	s := mustRead(t, &Config{
		Redis: &RedisConfig{Address: " ", DB: " ", Timeout: " ", DialTimeout: " ", TLS: &TLSConfig{Enabled: " "}},
		RateLimit: &RateLimitConfig{Capacity: " ", RefillRate: " ", RefillPeriod: " ", StandingLease: " ",
			SourceCriterion: &SourceCriterionConfig{RequestHost: " ", RequestHeaderName: " ", RequestMethod: " ", RequestPath: " ",
				RequestCookieName: " ", RequestQueryName: " ", RequestJWTClaim: " ", All: " ", MissingSource: " ",
				IPStrategy: &IPStrategyConfig{Depth: " ", ExcludedIPs: []string{}, IPv6Subnet: " "}}},
		CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: " ", ResetTimeout: " ", HalfOpenSuccessThreshold: " ",
			HalfOpenMaxProbes: " ", ProbeTimeout: " "},
	})

	require.Equal(t, "", s.redis.Address)
	require.Equal(t, 0, s.redis.DB)
	require.Equal(t, 100*time.Millisecond, s.redis.Timeout)
	require.Equal(t, time.Second, s.redis.DialTimeout)
	require.True(t, s.redis.TLS == nil)
	require.Equal(t, byDefault(ratelimit.NewLimit(100, 10, time.Second)), s.limit)
	require.Equal(t, identity.Source{}, s.keySource)
	require.Equal(t, breaker.NewPolicy(5, 30*time.Second, 2, 2, 10*time.Second), s.policy)
	require.Len(t, s.warnings, 0)
}

func TestRead_name(t *testing.T) {
	for _, row := range []struct {
		name       string
		config     string
		middleware string
		want       string
	}{
		{"given", "shop.v1_a@eu-1", "gateway@file", "shop.v1_a@eu-1"},
		{"of a middleware in a file", "", "gateway@file", "gateway"},
		{"of a middleware in Kubernetes", "", "ns-name@kubernetescrd", "ns-name"},
		{"without a provider", "", "gateway", "gateway"},
		{"with an @ in the name", "", "gateway@eu@file", "gateway@eu"},
		{"of 64 characters", "", ofLength(64) + "@file", ofLength(64)},
		{"too long for a key", "", ofLength(65) + "@file", identity.Hash(ofLength(65))},
		{"unsafe in a key", "", "gate{way}@file", identity.Hash("gate{way}")},
		{"none", "", "", identity.Hash("")},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, err := readConfig(&Config{Name: row.config}, row.middleware)

			require.NoError(t, err)
			require.Equal(t, row.want, s.name)
		})
	}
}

// A name may be hashed in Redis. Logs show the name.
func TestRead_labels(t *testing.T) {
	for _, row := range []struct{ config, middleware, want string }{
		{"shop", "gateway@file", "shop"},
		{"", "gateway@file", "gateway"},
		{"", "gate{way}@file", "gate{way}"},
		{"", ofLength(65) + "@file", ofLength(65)},
	} {
		s, err := readConfig(&Config{Name: row.config}, row.middleware)

		require.NoError(t, err)
		require.Equal(t, row.want, s.label)
	}
}

func ofLength(n int) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = 'a'
	}
	return string(text)
}

func TestRead_rateLimit(t *testing.T) {
	for _, row := range []struct {
		name   string
		config RateLimitConfig
		want   *ratelimit.Limit
	}{
		{"all given", RateLimitConfig{Capacity: "20", RefillRate: "5", RefillPeriod: "1m"}, ratelimit.NewLimit(20, 5, time.Minute)},
		{"as files deliver floats", RateLimitConfig{Capacity: "20.000000"}, ratelimit.NewLimit(20, 10, time.Second)},
		{"the smallest", RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1us"},
			ratelimit.NewLimit(1, 1, time.Microsecond)},
		{"the largest", RateLimitConfig{Capacity: "1000000000", RefillRate: "1000000000", RefillPeriod: "9s"},
			ratelimit.NewLimit(1000000000, 1000000000, 9*time.Second)},
		{"the largest that can be counted exactly", RateLimitConfig{Capacity: "10424", RefillPeriod: "240h"},
			ratelimit.NewLimit(10424, 10, 240*time.Hour)},
		{"the longest", RateLimitConfig{Capacity: "10", RefillPeriod: "240000h"}, ratelimit.NewLimit(10, 10, 240000*time.Hour)},
		{"a day", RateLimitConfig{Capacity: "10", RefillPeriod: "1d"}, ratelimit.NewLimit(10, 10, 24*time.Hour)},
		{"a million a day, which is one in 86,400 us", RateLimitConfig{Capacity: "1000000", RefillRate: "1000000", RefillPeriod: "24h"},
			ratelimit.NewLimit(1000000, 1, 86400*time.Microsecond)},
		{"a rate with less in common", RateLimitConfig{Capacity: "1000000", RefillRate: "1500", RefillPeriod: "10d"},
			ratelimit.NewLimit(1000000, 1, 576*time.Second)},
		{"a rate that is no fraction", RateLimitConfig{Capacity: "1000000000", RefillRate: "1000000000", RefillPeriod: "1000s"},
			ratelimit.NewLimit(1000000000, 1, time.Microsecond)},
		{"a fraction that need not be reduced", RateLimitConfig{Capacity: "100", RefillRate: "10", RefillPeriod: "1s"},
			ratelimit.NewLimit(100, 10, time.Second)},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, byDefault(row.want), mustRead(t, &Config{RateLimit: &row.config}).limit)
		})
	}
}

// byDefault returns a limit as it is where the configuration does not say whether it has standing leases.
func byDefault(limit *ratelimit.Limit) *ratelimit.Limit {
	if standingByDefault {
		return ratelimit.WithStanding(limit)
	}
	return limit
}

func TestRead_standingLease(t *testing.T) {
	large, small := ratelimit.NewLimit(101, 10, time.Second), ratelimit.NewLimit(100, 10, time.Second)
	for _, row := range []struct {
		capacity, text string
		want           *ratelimit.Limit
	}{
		{"101", "", byDefault(large)},
		{"101", " ", byDefault(large)},
		{"101", "true", ratelimit.WithStanding(large)},
		{"101", "false", large},
		{"100", "true", small},
	} {
		t.Run(row.capacity+" "+row.text, func(t *testing.T) {
			config := &Config{RateLimit: &RateLimitConfig{Capacity: row.capacity, StandingLease: row.text}}
			require.Equal(t, row.want, mustRead(t, config).limit)
		})
	}
	requireProblem(t, &Config{RateLimit: &RateLimitConfig{StandingLease: "relaxed"}},
		`rateLimit.standingLease: "relaxed" is neither true nor false; write "true" or "false"`)
}

func TestRead_sourceCriterion(t *testing.T) {
	for _, row := range []struct {
		name   string
		config SourceCriterionConfig
		want   identity.Source
	}{
		{"none", SourceCriterionConfig{}, identity.Source{}},
		{"a header", SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}, identity.Source{Header: "X-Api-Key"}},
		{"a header, but not the host", SourceCriterionConfig{RequestHeaderName: "X-Api-Key", RequestHost: "false"},
			identity.Source{Header: "X-Api-Key"}},
		{"the host", SourceCriterionConfig{RequestHost: "true"}, identity.Source{Host: true}},
		{"two headers", SourceCriterionConfig{RequestHeaderName: "X-Tenant , X-User"}, identity.Source{Header: "X-Tenant,X-User"}},
		{"an address and a method", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{}, RequestMethod: "true"},
			identity.Source{Address: true, Method: true}},
		{"everything", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{Depth: "1"}, RequestHeaderName: "X-A", RequestHost: "1", RequestMethod: "1",
			RequestPath: "/{a}", RequestCookieName: "c", RequestQueryName: "q", RequestJWTClaim: "sub", MissingSource: "deny"},
			identity.Source{Address: true, Depth: 1, Header: "X-A", Host: true, Method: true, Path: "/{a}", Cookie: "c", Query: "q", Claim: "sub",
				Missing: identity.MissingDeny}},
		{"all", SourceCriterionConfig{All: "true"}, identity.Source{All: true}},
		{"all, with the default of missingSource", SourceCriterionConfig{All: "true", MissingSource: "shared"}, identity.Source{All: true}},
		{"every default written out", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{Depth: "0"}, RequestHost: "false", RequestMethod: "false",
			All: "false", MissingSource: "shared"}, identity.Source{}},
		{"a depth", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{Depth: "2"}}, identity.Source{Depth: 2}},
		{"a subnet", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{IPv6Subnet: "64"}}, identity.Source{IPv6Subnet: 64}},
		{"excluded networks", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{
			ExcludedIPs: []string{"10.1.2.3/8", " 192.168.1.7", "2001:db8::/32", "::1", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104"}}},
			identity.Source{Excluded: []netip.Prefix{
				netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.1.7/32"),
				netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::1/128"),
				netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8"),
			}}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s := mustRead(t, &Config{RateLimit: &RateLimitConfig{SourceCriterion: &row.config}})

			require.Equal(t, row.want, s.keySource)
		})
	}
}

func TestRead_durations(t *testing.T) {
	for _, row := range []struct {
		text string
		want time.Duration
	}{
		{"1us", time.Microsecond},
		{"1µs", time.Microsecond},
		{"1.5s", 1500 * time.Millisecond},
		{"1m30s", 90 * time.Second},
		{"+2h", 2 * time.Hour},
		{"1d", 24 * time.Hour},
		{"2w", 14 * 24 * time.Hour},
		{"1d12h", 36 * time.Hour},
		{"1w2d3h4m5s6ms7us", 9*24*time.Hour + 3*time.Hour + 4*time.Minute + 5*time.Second + 6007*time.Microsecond},
		{"1.5d", 36 * time.Hour},
		{"0.5w", 84 * time.Hour},
		{"12h1d", 36 * time.Hour},
		{"10000d", 240000 * time.Hour},
	} {
		row := row
		t.Run(row.text, func(t *testing.T) {
			r := &problems{}

			require.Equal(t, row.want, r.duration("x", row.text, time.Microsecond, time.Second))
			require.NoError(t, r.err())
		})
	}
}

func TestRead_circuitBreaker(t *testing.T) {
	for _, row := range []struct {
		name   string
		config CircuitBreakerConfig
		want   *breaker.Policy
	}{
		{"all given", CircuitBreakerConfig{FailureThreshold: "7", ResetTimeout: "10s", HalfOpenSuccessThreshold: "3",
			HalfOpenMaxProbes: "1", ProbeTimeout: "1m30s"}, breaker.NewPolicy(7, 10*time.Second, 3, 1, 90*time.Second)},
		{"as many probes as successes", CircuitBreakerConfig{HalfOpenSuccessThreshold: "4"},
			breaker.NewPolicy(5, 30*time.Second, 4, 4, 10*time.Second)},
		{"but no more than may be", CircuitBreakerConfig{HalfOpenSuccessThreshold: "5000"},
			breaker.NewPolicy(5, 30*time.Second, 5000, 1000, 10*time.Second)},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, mustRead(t, &Config{CircuitBreaker: &row.config}).policy)
		})
	}
}

func TestRead_hangTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, " ": 0, "0": 0, "0s": 0, "1s": time.Second, " 250ms ": 250 * time.Millisecond} {
		s := mustRead(t, &Config{CircuitBreaker: &CircuitBreakerConfig{HangTimeout: text}})
		require.Equal(t, want, s.hangTimeout, text)
		require.Equal(t, want > 0, strings.Contains(s.parts[0], "; no response headers within "), text)
	}
	for _, text := range []string{"-1s", "5", "x", "1ns"} {
		_, err := readConfig(&Config{CircuitBreaker: &CircuitBreakerConfig{HangTimeout: text}}, "gateway")
		require.Error(t, err, text)
		require.Contains(t, err.Error(), "circuitBreaker.hangTimeout", text)
	}
}

func TestRead_health(t *testing.T) {
	require.Equal(t, "/", mustRead(t, &Config{Health: &HealthConfig{Path: "/"}}).health)
	require.Equal(t, "/a/b.c", mustRead(t, &Config{Health: &HealthConfig{Path: "/a/b.c"}}).health)
}

func TestRead_describesTheParts(t *testing.T) {
	require.Equal(t, []string{
		"rate limit: 100 at once, 10 each 1s",
		"circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s",
		"health at /health",
		"redis redis:6379, db 0, on error: local",
	}, mustRead(t, everyBlock()).parts)
	require.Equal(t, []string{"rate limit: 1000000 at once, 1000000 each 24h0m0s", "state in this process"},
		mustRead(t, &Config{RateLimit: &RateLimitConfig{Capacity: "1000000", RefillRate: "1000000", RefillPeriod: "1d"}}).parts,
		"as it was written, and not as it is counted")
}

// A limit in reduced numbers admits the same requests at the same times.
func TestRead_reducedRateAdmitsTheSameRequests(t *testing.T) {
	wide, narrow := ratelimit.NewLimit(3, 1000, 1000*time.Second), ratelimit.NewLimit(3, 1, time.Second)
	table := ratelimit.New(ratelimit.Settings{Now: func() int64 { return 0 }})
	for now, step := int64(1), int64(1); now < 60000000; step++ {
		require.Equal(t, ratelimit.AllowLocal(table, "wide", wide, now), ratelimit.AllowLocal(table, "narrow", narrow, now), "at %d us", now)
		now += step * 7919 % 700000
	}
}

// A limit of a million a day fits into a bucket in Redis.
func TestRead_reducedRateIsStoredInRedis(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, _ := newGateway(t, &Config{Redis: at(server.Addr()),
		RateLimit: &RateLimitConfig{Capacity: "1000000", RefillRate: "1000000", RefillPeriod: "1d"}})

	for i := 0; i < 50; i++ { // a full bucket is not kept in Redis: it refills in 4 s, not in 86 ms
		require.Equal(t, 200, get(handler))
	}
	period, _, _ := strings.Cut(strings.Fields(server.Text("GET", bucketOf(t)))[2], "+") // the joins follow
	require.Equal(t, "86400", period, "a token is 86,400 units")
}
