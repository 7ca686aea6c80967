package resilience

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// requireProblem requires that a configuration is refused with this message.
func requireProblem(t *testing.T, config *Config, message string) {
	t.Helper()
	_, err := readConfig(config, "gateway@file")
	require.EqualError(t, err, message)
}

func TestRead_reportsInvalidNumbers(t *testing.T) {
	const capacity = " is not a whole number from 1 to 1000000000"
	for _, row := range []struct {
		name    string
		config  *Config
		message string
	}{
		{"a word", limited("capacity", "many"), `rateLimit.capacity: "many"` + capacity},
		{"zero", limited("capacity", "0"), `rateLimit.capacity: "0"` + capacity},
		{"negative", limited("capacity", "-5"), `rateLimit.capacity: "-5"` + capacity},
		{"too large", limited("capacity", "1000000001"), `rateLimit.capacity: "1000000001"` + capacity},
		{"too large for any machine", limited("capacity", "99999999999999999999"), `rateLimit.capacity: "99999999999999999999"` + capacity},
		{"a fraction", limited("capacity", "1.5"), `rateLimit.capacity: "1.5"` + capacity},
		{"with an exponent", limited("capacity", "1e3"), `rateLimit.capacity: "1e3"` + capacity},
		{"with a unit", limited("capacity", "100r"), `rateLimit.capacity: "100r"` + capacity},
		{"a template that was not filled in", limited("capacity", "<no value>"), `rateLimit.capacity: "<no value>"` + capacity},
		{"a rate that is a fraction, as files deliver it", limited("refillRate", "0.500000"),
			`rateLimit.refillRate: "0.500000" is not a whole number from 1 to 1000000000; ` +
				`for a fraction of a token make refillPeriod longer`},
		{"a rate of nothing", limited("refillRate", "0"),
			`rateLimit.refillRate: "0" is not a whole number from 1 to 1000000000`},
		{"capacity times period", &Config{RateLimit: &RateLimitConfig{Capacity: "10425", RefillRate: "7", RefillPeriod: "240h"}},
			"rateLimit: capacity 10425, refillRate 7 and refillPeriod 240h0m0s are more than can be counted exactly; " +
				"write the same rate as another fraction: capacity times refillPeriod must stay below 2^53 microseconds " +
				"when refillRate and refillPeriod are divided by what they have in common"},
		{"depth", sourced(IPStrategyConfig{Depth: "-1"}),
			`rateLimit.sourceCriterion.ipStrategy.depth: "-1" is not a whole number from 0 to 1000`},
		{"a subnet with its slash", sourced(IPStrategyConfig{IPv6Subnet: "/64"}),
			`rateLimit.sourceCriterion.ipStrategy.ipv6Subnet: "/64" is not a whole number from 1 to 128`},
		{"a subnet of nothing", sourced(IPStrategyConfig{IPv6Subnet: "0"}),
			`rateLimit.sourceCriterion.ipStrategy.ipv6Subnet: "0" is not a whole number from 1 to 128`},
		{"a subnet of more than an address", sourced(IPStrategyConfig{IPv6Subnet: "129"}),
			`rateLimit.sourceCriterion.ipStrategy.ipv6Subnet: "129" is not a whole number from 1 to 128`},
		{"failures", &Config{CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "0"}},
			`circuitBreaker.failureThreshold: "0" is not a whole number from 1 to 1000000000`},
		{"successes", &Config{CircuitBreaker: &CircuitBreakerConfig{HalfOpenSuccessThreshold: "half"}},
			`circuitBreaker.halfOpenSuccessThreshold: "half" is not a whole number from 1 to 1000000000`},
		{"probes", &Config{CircuitBreaker: &CircuitBreakerConfig{HalfOpenSuccessThreshold: "5000", HalfOpenMaxProbes: "5000"}},
			`circuitBreaker.halfOpenMaxProbes: "5000" is not a whole number from 1 to 1000`},
		{"database", &Config{Redis: &RedisConfig{DB: "cache"}},
			`redis.db: "cache" is not a whole number from 0 to 1000000`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, row.config, row.message)
		})
	}
}

func TestRead_reportsInvalidDurations(t *testing.T) {
	const limits = " is out of bounds; write a duration from 1us to 10000d, in whole microseconds"
	const units = " is not a duration; write a number and a unit: us, ms, s, m, h, d or w"
	for _, row := range []struct {
		name    string
		value   string
		message string
	}{
		{"no unit", "30", `"30" is not a duration, as it has no unit; if it is seconds, write "30s"`},
		{"no unit, but another number", "45", `"45" is not a duration, as it has no unit; if it is seconds, write "45s"`},
		{"no unit, as files deliver it", "30.000000", `"30.000000" is not a duration, as it has no unit; if it is seconds, write "30s"`},
		{"no unit, and a fraction", "1.500000", `"1.500000" is not a duration, as it has no unit; if it is seconds, write "1.5s"`},
		{"no unit, and nothing", "0.000000", `"0.000000"` + units},
		{"no unit, and too long", "9999999999", `"9999999999"` + units},
		{"no unit, and negative", "-5", `"-5"` + units},
		{"two units", "30ss", `"30ss"` + units},
		{"a unit that there is not", "1y", `"1y"` + units},
		{"a unit without a number", "d", `"d"` + units},
		{"two signs", "--1d", `"--1d"` + units},
		{"a number without an end", "1d12", `"1d12"` + units},
		{"days, and too long", "10001d", `"10001d"` + limits},
		{"weeks that no number holds", "99999999999w", `"99999999999w"` + units},
		{"weeks that overflow together", "15000w15000w", `"15000w15000w"` + units},
		{"a space, and days", "1 d", `"1 d" is not a duration; write "1d"`},
		{"a space", "30 s", `"30 s" is not a duration; write "30s"`},
		{"a word that is a number", "infinity", `"infinity"` + units},
		{"an exponent", "1e3", `"1e3"` + units},
		{"negative", "-5s", `"-5s"` + limits},
		{"nothing", "0s", `"0s"` + limits},
		{"nothing, without a unit", "0", `"0"` + limits},
		{"a day and nothing", "1d0", `"1d0"` + units},
		{"too short", "999ns", `"999ns"` + limits},
		{"too fine", "1.0005ms", `"1.0005ms"` + limits},
		{"too long", "240001h", `"240001h"` + limits},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, &Config{CircuitBreaker: &CircuitBreakerConfig{ResetTimeout: row.value}}, "circuitBreaker.resetTimeout: "+row.message)
		})
	}
}

func TestRead_reportsWhichDurationIsInvalid(t *testing.T) {
	for _, row := range []struct {
		config  *Config
		message string
	}{
		{limited("refillPeriod", "1 minute"), `rateLimit.refillPeriod: "1 minute" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`},
		{&Config{CircuitBreaker: &CircuitBreakerConfig{ProbeTimeout: "x"}},
			`circuitBreaker.probeTimeout: "x" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`},
		{&Config{Redis: &RedisConfig{Timeout: "50"}}, `redis.timeout: "50" is not a duration, as it has no unit; if it is milliseconds, write "50ms"`},
		{&Config{Redis: &RedisConfig{Timeout: "x"}}, `redis.timeout: "x" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`},
		{&Config{Redis: &RedisConfig{DialTimeout: "x"}},
			`redis.dialTimeout: "x" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`},
		{&Config{Redis: &RedisConfig{MaxConnAge: "999ms"}},
			`redis.maxConnAge: "999ms" is out of bounds; write a duration from 1s to 10000d, in whole microseconds`},
	} {
		requireProblem(t, row.config, row.message)
	}
}

func TestRead_reportsUnknownKeys(t *testing.T) {
	misspelt := func(key string) map[string]interface{} {
		return map[string]interface{}{key: "1"}
	}
	for _, row := range []struct {
		name    string
		config  *Config
		message string
	}{
		{"at the top", &Config{Unknown: misspelt("rateLimits")},
			`rateLimits: there is no such key; did you mean "rateLimit"?`},
		{"in redis", &Config{Redis: &RedisConfig{Unknown: misspelt("adress")}},
			`redis.adress: there is no such key; did you mean "address"?`},
		{"in tls", &Config{Redis: &RedisConfig{TLS: &TLSConfig{Enabled: "true", Unknown: misspelt("insecureskipverfy")}}},
			`redis.tls.insecureskipverfy: there is no such key; did you mean "insecureSkipVerify"?`},
		{"in rateLimit", &Config{RateLimit: &RateLimitConfig{Unknown: misspelt("refill_rate")}},
			`rateLimit.refill_rate: there is no such key; did you mean "refillRate"?`},
		{"in sourceCriterion", &Config{RateLimit: &RateLimitConfig{SourceCriterion: &SourceCriterionConfig{
			Unknown: misspelt("requestHeader")}}},
			`rateLimit.sourceCriterion.requestHeader: there is no such key; did you mean "requestHeaderName"?`},
		{"in ipStrategy", sourced(IPStrategyConfig{Unknown: misspelt("excludedIPS4")}),
			`rateLimit.sourceCriterion.ipStrategy.excludedIPS4: there is no such key; did you mean "excludedIPs"?`},
		{"in circuitBreaker", &Config{CircuitBreaker: &CircuitBreakerConfig{Unknown: misspelt("failureTreshold")}},
			`circuitBreaker.failureTreshold: there is no such key; did you mean "failureThreshold"?`},
		{"in health", &Config{Health: &HealthConfig{Unknown: misspelt("pth")}},
			`health.pth: there is no such key; did you mean "path"?`},
		{"a part of a key", &Config{RateLimit: &RateLimitConfig{Unknown: misspelt("period")}},
			`rateLimit.period: there is no such key; did you mean "refillPeriod"?`},
		{"another product's key", &Config{RateLimit: &RateLimitConfig{Unknown: misspelt("burst")}},
			"rateLimit.burst: there is no such key; valid keys: capacity, refillRate, refillPeriod, sourceCriterion, limits, tiers, cost, penalty, maxDelay, maxDelayed, dryRun, standingLease, responseHeaders, responseHeadersOn"},
		{"a key that belongs elsewhere", &Config{Unknown: misspelt("capacity")},
			"capacity: there is no such key; valid keys: name, redis, rateLimit, circuitBreaker, answers, health, admin"},
		{"two, in the order of their names", &Config{Unknown: map[string]interface{}{"redi": "1", "heath": "1"}},
			`2 problems: (1) heath: there is no such key; did you mean "health"? (2) redi: there is no such key; did you mean "redis"?`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, row.config, row.message)
		})
	}
}

func TestRead_reportsInvalidKeySources(t *testing.T) {
	const path = "rateLimit.sourceCriterion."
	const pattern = `; write a pattern such as "/api/{tenant}/*"`
	const name = " is not a name of at most 128 bytes without blanks and without any of = & ; , #"
	const useless = " has no effect, as every request has this source; leave it out"
	for _, row := range []struct {
		name    string
		config  SourceCriterionConfig
		message string
	}{
		{"all and a header", SourceCriterionConfig{All: "true", RequestHeaderName: "X-Api-Key"},
			"rateLimit.sourceCriterion: all gives all requests one bucket, and excludes requestHeaderName; leave out one or the other"},
		{"all and two others", SourceCriterionConfig{All: "true", IPStrategy: &IPStrategyConfig{}, RequestMethod: "true"},
			"rateLimit.sourceCriterion: all gives all requests one bucket, and excludes ipStrategy, requestMethod; leave out one or the other"},
		{"all, neither true nor false", SourceCriterionConfig{All: "everybody"}, path + `all: "everybody" is neither true nor false; write "true" or "false"`},
		{"an empty name among headers", SourceCriterionConfig{RequestHeaderName: "X-A,,X-B"},
			path + "requestHeaderName: an entry is empty; write the name of a header there, or leave the entry out"},
		{"a header twice", SourceCriterionConfig{RequestHeaderName: "X-A, x-a"}, path + `requestHeaderName: "x-a" is there twice; write each header once`},
		{"nine headers", SourceCriterionConfig{RequestHeaderName: "a,b,c,d,e,f,g,h,i"}, path + "requestHeaderName: 9 headers; write at most 8"},
		{"a method", SourceCriterionConfig{RequestMethod: "POST"}, path + `requestMethod: "POST" is neither true nor false; write "true" or "false"`},
		{"a path without a name", SourceCriterionConfig{RequestPath: "/api/*"}, path + `requestPath: "/api/*" holds none or more than eight of {name}` + pattern},
		{"a path without its slash", SourceCriterionConfig{RequestPath: "api/{a}"}, path + `requestPath: "api/{a}" does not begin with /` + pattern},
		{"a path with a query", SourceCriterionConfig{RequestPath: "/{a}?b"},
			path + `requestPath: "/{a}?b" holds one of ? # % = or a blank; a pattern is a decoded path, without a query` + pattern},
		{"a cookie with its value", SourceCriterionConfig{RequestCookieName: "a=b"}, path + `requestCookieName: "a=b" is not the name of a cookie, such as "session"`},
		{"a parameter with its value", SourceCriterionConfig{RequestQueryName: "a=b"}, path + `requestQueryName: "a=b"` + name},
		{"a claim with a blank", SourceCriterionConfig{RequestJWTClaim: "my claim"}, path + `requestJWTClaim: "my claim"` + name},
		{"an unknown missingSource", SourceCriterionConfig{RequestHost: "true", MissingSource: "block"},
			path + `missingSource: "block" is not one of shared, address, pass and deny`},
		{"missingSource of all", SourceCriterionConfig{All: "true", MissingSource: "deny"}, path + `missingSource: "deny"` + useless},
		{"missingSource of the connection", SourceCriterionConfig{MissingSource: "address"}, path + `missingSource: "address"` + useless},
		{"missingSource of address and method", SourceCriterionConfig{RequestMethod: "true", IPStrategy: &IPStrategyConfig{}, MissingSource: "pass"},
			path + `missingSource: "pass"` + useless},
		{"all problems at once", SourceCriterionConfig{RequestPath: "/x", RequestCookieName: "a b", MissingSource: "never", Unknown: map[string]interface{}{"requestPaht": "1"}},
			`4 problems: (1) rateLimit.sourceCriterion.requestPaht: there is no such key; did you mean "requestPath"?` +
				` (2) rateLimit.sourceCriterion.requestPath: "/x" holds none or more than eight of {name}` + pattern +
				` (3) rateLimit.sourceCriterion.requestCookieName: "a b" is not the name of a cookie, such as "session"` +
				` (4) rateLimit.sourceCriterion.missingSource: "never" is not one of shared, address, pass and deny`},
		{"header with a colon", SourceCriterionConfig{RequestHeaderName: "X-Api-Key:"},
			`rateLimit.sourceCriterion.requestHeaderName: "X-Api-Key:" is not the name of a header, such as "X-Api-Key"`},
		{"header with a space", SourceCriterionConfig{RequestHeaderName: "Api Key"},
			`rateLimit.sourceCriterion.requestHeaderName: "Api Key" is not the name of a header, such as "X-Api-Key"`},
		{"header that is none", SourceCriterionConfig{RequestHeaderName: "host"},
			"rateLimit.sourceCriterion.requestHeaderName: the host is not among the headers; write requestHost: true instead"},
		{"neither true nor false", SourceCriterionConfig{RequestHost: "yes"},
			`rateLimit.sourceCriterion.requestHost: "yes" is neither true nor false; write "true" or "false"`},
		{"excluded host", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{ExcludedIPs: []string{"10.0.0.1", "proxy"}}},
			`rateLimit.sourceCriterion.ipStrategy.excludedIPs: "proxy" is not an IP address or a network, such as "10.0.0.0/8"`},
		{"an empty entry among the excluded", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{ExcludedIPs: []string{"", "10.0.0.1"}}},
			"rateLimit.sourceCriterion.ipStrategy.excludedIPs: an entry is empty; write an address or a network there, or leave the entry out"},
		{"a blank as the only one", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{ExcludedIPs: []string{" "}}},
			"rateLimit.sourceCriterion.ipStrategy.excludedIPs: an entry is empty; write an address or a network there, or leave the entry out"},
		{"excluded network", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{ExcludedIPs: []string{"10.0.0.0/33"}}},
			`rateLimit.sourceCriterion.ipStrategy.excludedIPs: "10.0.0.0/33" is not an IP address or a network, such as "10.0.0.0/8"`},
		{"excluded range", SourceCriterionConfig{IPStrategy: &IPStrategyConfig{ExcludedIPs: []string{"10.0.0.1-10.0.0.9"}}},
			`rateLimit.sourceCriterion.ipStrategy.excludedIPs: "10.0.0.1-10.0.0.9" is not an IP address or a network, such as "10.0.0.0/8"`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			requireProblem(t, &Config{RateLimit: &RateLimitConfig{SourceCriterion: &row.config}}, row.message)
		})
	}
}

func TestRead_reportsInvalidNameAndHealth(t *testing.T) {
	const name = " is not a name of letters, digits and . _ @ -, at most 64"
	const path = " is not a path that begins with / and holds no ?, # or space, such as \"/health\""
	for _, row := range []struct {
		config  *Config
		message string
	}{
		{&Config{Name: "my gateway"}, `name: "my gateway"` + name},
		{&Config{Name: "gate{way}"}, `name: "gate{way}"` + name},
		{&Config{Name: "gäte"}, `name: "gäte"` + name},
		{&Config{Name: "gate\r\nway"}, `name: "gate\r\nway"` + name},
		{&Config{Name: ofLength(65)}, `name: "` + ofLength(65) + `"` + name},
		{&Config{Health: &HealthConfig{Path: "health"}}, `health.path: "health"` + path},
		{&Config{Health: &HealthConfig{Path: "/health?full=1"}}, `health.path: "/health?full=1"` + path},
		{&Config{Health: &HealthConfig{Path: "/he alth"}}, `health.path: "/he alth"` + path},
	} {
		requireProblem(t, row.config, row.message)
	}
}

func TestRead_reportsAllProblemsAtOnce(t *testing.T) {
	_, err := readConfig(&Config{
		Name:           "my gateway",
		RateLimit:      &RateLimitConfig{Capacity: "0", RefillPeriod: "1"},
		CircuitBreaker: &CircuitBreakerConfig{Unknown: map[string]interface{}{"resetTimeot": "30s"}},
		Redis:          &RedisConfig{Address: "redis"},
	}, "gateway@file")

	require.EqualError(t, err, `5 problems:`+
		` (1) name: "my gateway" is not a name of letters, digits and . _ @ -, at most 64`+
		` (2) rateLimit.capacity: "0" is not a whole number from 1 to 1000000000`+
		` (3) rateLimit.refillPeriod: "1" is not a duration, as it has no unit; if it is seconds, write "1s"`+
		` (4) circuitBreaker.resetTimeot: there is no such key; did you mean "resetTimeout"?`+
		` (5) redis.address: "redis" is not a host and a port; write "redis:6379"`)
}

func limited(key, value string) *Config {
	config := &RateLimitConfig{}
	switch key {
	case "capacity":
		config.Capacity = value
	case "refillRate":
		config.RefillRate = value
	case "refillPeriod":
		config.RefillPeriod = value
	}
	return &Config{RateLimit: config}
}

func sourced(strategy IPStrategyConfig) *Config {
	return &Config{RateLimit: &RateLimitConfig{SourceCriterion: &SourceCriterionConfig{IPStrategy: &strategy}}}
}
