package resilience

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// oneLimit is a block with its own limit and one further limit.
func oneLimit(name string, limit *LimitConfig) *RateLimitConfig {
	return &RateLimitConfig{Capacity: "10", Limits: map[string]*LimitConfig{name: limit}}
}

// tiers is a block with tiers.
func tiers(byName map[string]*TierConfig) *RateLimitConfig {
	return &RateLimitConfig{Capacity: "10", Tiers: byName}
}

// matching is a limit of requests.
func matching(match MatchConfig) *RateLimitConfig {
	return oneLimit("some", &LimitConfig{Capacity: "5", Match: &match})
}

func costs(cost CostConfig) *RateLimitConfig { return &RateLimitConfig{Capacity: "200", Cost: &cost} }

func charges(statuses string) *RateLimitConfig {
	return oneLimit("logins", &LimitConfig{Capacity: "5", ChargeStatus: statuses})
}

func unknown(key string) map[string]interface{} { return map[string]interface{}{key: "1"} }

// many returns n limits.
func many(n int) map[string]*LimitConfig {
	made := map[string]*LimitConfig{}
	for i := 0; i < n; i++ {
		made[fmt.Sprintf("limit%02d", i)] = &LimitConfig{Capacity: "5"}
	}
	return made
}

func TestRules_refuses(t *testing.T) {
	some := &MatchConfig{Paths: []string{"/a"}}
	for _, row := range []struct {
		name  string
		limit *RateLimitConfig
		want  []string // each problem, in order
	}{
		{"no name", oneLimit("", limitOf("5", "1", "1s")), []string{
			`rateLimit.limits."": "" is not a name of letters, digits, _ and -, at most 32`}},
		{"a name with other characters", oneLimit("a b\n", limitOf("5", "1", "1s")), []string{
			`rateLimit.limits."a b\n": "a b\n" is not a name of letters, digits, _ and -, at most 32`}},
		{"a name with a dot", oneLimit("a.b", limitOf("5", "1", "1s")), []string{
			`rateLimit.limits.a.b: "a.b" is not a name of letters, digits, _ and -, at most 32`}},
		{"a name that is too long", oneLimit(strings.Repeat("x", 33), limitOf("5", "1", "1s")), []string{
			`rateLimit.limits.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" is not a name of letters, digits, _ and -, at most 32`}},
		{"the block's own name", oneLimit("default", limitOf("5", "1", "1s")), []string{
			`rateLimit.limits.default: this is the name of the block's own limit; write another name`}},
		{"the block's own name in another case", oneLimit("Default", limitOf("5", "1", "1s")), []string{
			`rateLimit.limits.Default: this is the name of the block's own limit; write another name`}},
		{"names that differ in case only", &RateLimitConfig{Limits: map[string]*LimitConfig{"hourly": limitOf("5", "1", "1s"), "Hourly": limitOf("5", "1", "1s")}}, []string{
			`rateLimit.limits.hourly: the limit "Hourly" has this name too; write another name for one of them`}},
		{"a limit and a tier of one name", &RateLimitConfig{Limits: map[string]*LimitConfig{"partners": limitOf("5", "1", "1s")}, Tiers: map[string]*TierConfig{"partners": {Match: some, Deny: "true"}}}, []string{
			`rateLimit.tiers.partners: the limit "partners" has this name too; write another name for one of them`}},
		{"a limit and a tier of one name in another case", &RateLimitConfig{Limits: map[string]*LimitConfig{"partners": limitOf("5", "1", "1s")}, Tiers: map[string]*TierConfig{"Partners": {Match: some, Deny: "true"}}}, []string{
			`rateLimit.tiers.Partners: the limit "partners" has this name too; write another name for one of them`}},
		{"tiers whose names differ in case only", tiers(map[string]*TierConfig{"a": {Match: some, Deny: "true"}, "A": {Match: &MatchConfig{Methods: []string{"GET"}}, Deny: "true"}}), []string{
			`rateLimit.tiers.a: the tier "A" has this name too; write another name for one of them`}},
		{"a tier named like the block's own limit", tiers(map[string]*TierConfig{"default": {Match: some, Deny: "true"}}), []string{
			`rateLimit.tiers.default: this is the name of the block's own limit; write another name`}},
		{"too many limits", &RateLimitConfig{Limits: many(17)}, []string{
			`rateLimit.limits: 17 limits; write at most 16`}},
		{"a limit that changes nothing", oneLimit("more", &LimitConfig{}), []string{
			`rateLimit.limits.more: it changes nothing; write capacity and refillRate, sourceCriterion, match or chargeStatus`}},
		{"a limit that is empty", oneLimit("more", nil), []string{
			`rateLimit.limits.more: it changes nothing; write capacity and refillRate, sourceCriterion, match or chargeStatus`}},
		{"a key that does not exist", oneLimit("more", &LimitConfig{Capacity: "5", Unknown: unknown("refilRate")}), []string{
			`rateLimit.limits.more.refilRate: there is no such key; did you mean "refillRate"?`}},
		{"a key that is nothing like one", oneLimit("more", &LimitConfig{Capacity: "5", Unknown: unknown("x\ny")}), []string{
			`rateLimit.limits.more."x\ny": there is no such key; valid keys: capacity, refillRate, refillPeriod, sourceCriterion, match, chargeStatus`}},
		{"a key of a tier", tiers(map[string]*TierConfig{"a": {Match: some, Deny: "true", Unknown: unknown("prio")}}), []string{
			`rateLimit.tiers.a.prio: there is no such key; did you mean "priority"?`}},
		{"a key of a match", matching(MatchConfig{Paths: []string{"/a"}, Unknown: unknown("path")}), []string{
			`rateLimit.limits.some.match.path: there is no such key; did you mean "paths"?`}},
		{"a key of a cost", costs(CostConfig{Header: "X-Cost", Unknown: unknown("headers")}), []string{
			`rateLimit.cost.headers: there is no such key; did you mean "header"?`}},
		{"a key of a source", oneLimit("more", &LimitConfig{SourceCriterion: &SourceCriterionConfig{All: "true", Unknown: unknown("requestHeader")}}), []string{
			`rateLimit.limits.more.sourceCriterion.requestHeader: there is no such key; did you mean "requestHeaderName"?`}},
		{"wrong numbers, all at once", oneLimit("more", &LimitConfig{Capacity: "0", RefillRate: "0.5", RefillPeriod: "1 fortnight"}), []string{
			`rateLimit.limits.more.capacity: "0" is not a whole number from 1 to 1000000000`,
			`rateLimit.limits.more.refillRate: "0.5" is not a whole number from 1 to 1000000000; for a fraction of a token make refillPeriod longer`,
			`rateLimit.limits.more.refillPeriod: "1 fortnight" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`}},
		{"numbers that cannot be counted", oneLimit("more", &LimitConfig{Capacity: "1000000000", RefillRate: "7", RefillPeriod: "365d"}), []string{
			`rateLimit.limits.more: capacity 1000000000, refillRate 7 and refillPeriod 8760h0m0s are more than can be counted exactly; write the same rate as another fraction: capacity times refillPeriod must stay below 2^53 microseconds when refillRate and refillPeriod are divided by what they have in common`}},
		{"a source that excludes another", oneLimit("more", &LimitConfig{SourceCriterion: &SourceCriterionConfig{All: "true", RequestHost: "true"}}), []string{
			`rateLimit.limits.more.sourceCriterion: all gives all requests one bucket, and excludes requestHost; leave out one or the other`}},
		{"a source that is never missing", oneLimit("more", &LimitConfig{SourceCriterion: &SourceCriterionConfig{All: "true", MissingSource: "deny"}}), []string{
			`rateLimit.limits.more.sourceCriterion.missingSource: "deny" has no effect, as every request has this source; leave it out`}},
		{"an unknown missingSource", oneLimit("more", &LimitConfig{SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "refuse"}}), []string{
			`rateLimit.limits.more.sourceCriterion.missingSource: "refuse" is not one of shared, address, pass and deny`}},
		{"a status that does not exist", charges("600"), []string{
			`rateLimit.limits.logins.chargeStatus: "600" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`}},
		{"statuses in the wrong order", charges("499-400"), []string{
			`rateLimit.limits.logins.chargeStatus: "499-400" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`}},
		{"a class of statuses", charges("401, 5xx"), []string{
			`rateLimit.limits.logins.chargeStatus: "5xx" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`}},
		{"a status left out", charges("401,,403"), []string{
			`rateLimit.limits.logins.chargeStatus: "" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`}},
		{"a range without an end", charges("400-"), []string{
			`rateLimit.limits.logins.chargeStatus: "400-" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`}},
		{"a negative status", charges("-1"), []string{
			`rateLimit.limits.logins.chargeStatus: "-1" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`}},
		{"a match that names nothing", matching(MatchConfig{}), []string{
			`rateLimit.limits.some.match: it names nothing, and so is for all requests; write paths, methods, hosts, headers or clientIPs, or leave it out`}},
		{"a match with an empty entry", matching(MatchConfig{Paths: []string{"/a", " "}}), []string{
			`rateLimit.limits.some.match.paths: an entry is empty; write a value there, or leave the entry out`}},
		{"a path without a slash", matching(MatchConfig{Paths: []string{"login"}}), []string{
			`rateLimit.limits.some.match.paths: "login" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`}},
		{"a path with a query", matching(MatchConfig{Paths: []string{"/search?q=*"}}), []string{
			`rateLimit.limits.some.match.paths: "/search?q=*" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`}},
		{"an encoded path", matching(MatchConfig{Paths: []string{"/a%20b"}}), []string{
			`rateLimit.limits.some.match.paths: "/a%20b" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`}},
		{"a path with captures", matching(MatchConfig{Paths: []string{"/api/{tenant}/*"}}), []string{
			`rateLimit.limits.some.match.paths: "/api/{tenant}/*" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`}},
		{"an expression", matching(MatchConfig{Paths: []string{"^/api/.*$"}}), []string{
			`rateLimit.limits.some.match.paths: "^/api/.*$" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`}},
		{"a path that is no text", matching(MatchConfig{Paths: []string{"/\xff"}}), []string{
			`rateLimit.limits.some.match.paths: "/\xff" is not valid UTF-8`}},
		{"a path that is too long", matching(MatchConfig{Paths: []string{"/" + strings.Repeat("x", 512)}}), []string{
			`rateLimit.limits.some.match.paths: an entry has 513 bytes; write at most 512`}},
		{"too many paths", matching(MatchConfig{Paths: strings.Split(strings.Repeat("/a ", 65)[:194], " ")}), []string{
			`rateLimit.limits.some.match.paths: 65 entries; write at most 64`}},
		{"a method in lower case", matching(MatchConfig{Methods: []string{"post"}}), []string{
			`rateLimit.limits.some.match.methods: "post" is not a method in upper case, such as "POST"`}},
		{"a pattern as a method", matching(MatchConfig{Methods: []string{"*"}}), []string{
			`rateLimit.limits.some.match.methods: "*" is not a method in upper case, such as "POST"`}},
		{"a host with a port", matching(MatchConfig{Hosts: []string{"shop.example:8080"}}), []string{
			`rateLimit.limits.some.match.hosts: "shop.example:8080" is not a host without a port, such as "*.example.com"`}},
		{"a URL as a host", matching(MatchConfig{Hosts: []string{"https://shop.example"}}), []string{
			`rateLimit.limits.some.match.hosts: "https://shop.example" is not a host without a port, such as "*.example.com"`}},
		{"a header without a name", matching(MatchConfig{Headers: map[string]string{"": "*"}}), []string{
			`rateLimit.limits.some.match.headers: "" is not the name of a header, such as "User-Agent"`}},
		{"a header with a wrong name", matching(MatchConfig{Headers: map[string]string{"X Key\n": "*"}}), []string{
			`rateLimit.limits.some.match.headers: "X Key\n" is not the name of a header, such as "User-Agent"`}},
		{"the host as a header", matching(MatchConfig{Headers: map[string]string{"host": "*.example"}}), []string{
			`rateLimit.limits.some.match.headers: the host is not among the headers; write hosts instead`}},
		{"a header twice", matching(MatchConfig{Headers: map[string]string{"X-Key": "a", "x-key": "b"}}), []string{
			`rateLimit.limits.some.match.headers: "X-Key" and "x-key" are the same header; write it once`}},
		{"a header without a pattern", matching(MatchConfig{Headers: map[string]string{"X-Key": ""}}), []string{
			`rateLimit.limits.some.match.headers.X-Key: the pattern is empty; write * for any value`}},
		{"a client that is no address", matching(MatchConfig{ClientIPs: []string{"10.0.0.0/8", "10.0.0.256", "localhost", "10.0.0.0/33"}}), []string{
			`rateLimit.limits.some.match.clientIPs: "10.0.0.256" is not an IP address or a network, such as "10.0.0.0/8"`,
			`rateLimit.limits.some.match.clientIPs: "localhost" is not an IP address or a network, such as "10.0.0.0/8"`,
			`rateLimit.limits.some.match.clientIPs: "10.0.0.0/33" is not an IP address or a network, such as "10.0.0.0/8"`}},
		{"a tier that changes nothing", tiers(map[string]*TierConfig{"a": {Match: some}}), []string{
			`rateLimit.tiers.a: it changes nothing; write capacity and refillRate, or unlimited, or deny`}},
		{"a tier that is empty", tiers(map[string]*TierConfig{"a": nil}), []string{
			`rateLimit.tiers.a: it changes nothing; write capacity and refillRate, or unlimited, or deny`}},
		{"a tier with numbers that is denied", tiers(map[string]*TierConfig{"a": {Match: some, Deny: "true", Capacity: "5"}}), []string{
			`rateLimit.tiers.a: a tier that is unlimited or denied has no numbers; leave out capacity, refillRate and refillPeriod, or unlimited and deny`}},
		{"a tier with numbers that is unlimited", tiers(map[string]*TierConfig{"a": {Match: some, Unlimited: "true", RefillRate: "5"}}), []string{
			`rateLimit.tiers.a: a tier that is unlimited or denied has no numbers; leave out capacity, refillRate and refillPeriod, or unlimited and deny`}},
		{"a tier that is unlimited and denied", tiers(map[string]*TierConfig{"a": {Match: some, Unlimited: "true", Deny: "true"}}), []string{
			`rateLimit.tiers.a: unlimited and deny exclude each other; write one of them`}},
		{"a tier that is neither true nor false", tiers(map[string]*TierConfig{"a": {Match: some, Deny: "yes please"}}), []string{
			`rateLimit.tiers.a.deny: "yes please" is neither true nor false; write "true" or "false"`}},
		{"a priority that is no number", tiers(map[string]*TierConfig{"a": {Match: some, Deny: "true", Priority: "first"}}), []string{
			`rateLimit.tiers.a.priority: "first" is not a whole number from -1000000000 to 1000000000`}},
		{"a tier behind one for all requests", tiers(map[string]*TierConfig{"all": {Capacity: "5", Priority: "2"}, "some": {Match: some, Deny: "true", Priority: "1"}}), []string{
			`rateLimit.tiers.some: it can never apply, as the tier "all" comes before it and has no match, and so is for all requests; give that one a match or a lower priority`}},
		{"a tier behind one for all requests, by name", tiers(map[string]*TierConfig{"a": {Capacity: "5"}, "b": {Match: some, Deny: "true"}}), []string{
			`rateLimit.tiers.b: it can never apply, as the tier "a" comes before it and has no match, and so is for all requests; give that one a match or a lower priority`}},
		{"a tier behind one with a priority in another form", tiers(map[string]*TierConfig{"b": {Capacity: "5", Priority: "10.000000"}, "a": {Match: some, Deny: "true"}}), []string{
			`rateLimit.tiers.a: it can never apply, as the tier "b" comes before it and has no match, and so is for all requests; give that one a match or a lower priority`}},
		{"a tier behind one with the same match", tiers(map[string]*TierConfig{"a": {Match: &MatchConfig{Methods: []string{"PUT", "POST"}}, Deny: "true"}, "b": {Match: &MatchConfig{Methods: []string{"POST", "PUT"}}, Capacity: "5"}}), []string{
			`rateLimit.tiers.b: it can never apply, as the tier "a" comes before it and has the same match; write another match for one of them`}},
		{"a cost of nothing", costs(CostConfig{Max: "5"}), []string{
			`rateLimit.cost: it names nothing, and so every request costs 1; write header, methods or paths, or leave it out`}},
		{"a cost above the highest", costs(CostConfig{Max: "5", Methods: map[string]string{"POST": "6"}}), []string{
			`rateLimit.cost.methods.POST: "6" is not a whole number from 1 to 5`}},
		{"a cost of 0", costs(CostConfig{Paths: map[string]string{"/search": "0"}}), []string{
			`rateLimit.cost.paths./search: "0" is not a whole number from 1 to 100`}},
		{"a cost of a wrong method", costs(CostConfig{Methods: map[string]string{"post": "2"}}), []string{
			`rateLimit.cost.methods: "post" is not a method in upper case, such as "POST"`}},
		{"a cost of a wrong path", costs(CostConfig{Paths: map[string]string{"search": "2"}}), []string{
			`rateLimit.cost.paths: "search" is not a pattern of a decoded path, that begins with / or * and has none of ? # % { }, such as "/api/*"`}},
		{"a cost by a wrong header", costs(CostConfig{Header: "X Cost"}), []string{
			`rateLimit.cost.header: "X Cost" is not the name of a header, such as "X-Cost"`}},
		{"a cost by the host", costs(CostConfig{Header: "HOST"}), []string{
			`rateLimit.cost.header: the host is not among the headers; write another header`}},
		{"a highest cost that is no number", costs(CostConfig{Header: "X-Cost", Max: "many"}), []string{
			`rateLimit.cost.max: "many" is not a whole number from 1 to 1000000`}},
		{"costs above capacities", &RateLimitConfig{Capacity: "10", Cost: &CostConfig{Header: "X-Cost"}, Limits: map[string]*LimitConfig{"more": {Capacity: "99"}, "enough": {Capacity: "100"}}, Tiers: map[string]*TierConfig{"a": {Match: some, Capacity: "50"}}}, []string{
			`rateLimit.capacity: 10 is less than the cost 100 that a request may have, so that it could never pass; write at least 100, or a lower cost`,
			`rateLimit.limits.more.capacity: 99 is less than the cost 100 that a request may have, so that it could never pass; write at least 100, or a lower cost`,
			`rateLimit.tiers.a.capacity: 50 is less than the cost 100 that a request may have, so that it could never pass; write at least 100, or a lower cost`}},
		{"a path that costs more than the capacity", &RateLimitConfig{Capacity: "10", Cost: &CostConfig{Paths: map[string]string{"/search": "20"}}}, []string{
			`rateLimit.capacity: 10 is less than the cost 20 that a request may have, so that it could never pass; write at least 20, or a lower cost`}},
		{"a dry run that is neither true nor false", &RateLimitConfig{DryRun: "maybe"}, []string{
			`rateLimit.dryRun: "maybe" is neither true nor false; write "true" or "false"`}},
		{"several blocks at once", &RateLimitConfig{Capacity: "x", DryRun: "2", Limits: map[string]*LimitConfig{"a": {Capacity: "y", ChargeStatus: "z"}, "b": nil}, Tiers: map[string]*TierConfig{"c": {Match: &MatchConfig{Methods: []string{"get"}}}}, Cost: &CostConfig{}, Unknown: unknown("limit")}, []string{
			`rateLimit.limit: there is no such key; did you mean "limits"?`,
			`rateLimit.capacity: "x" is not a whole number from 1 to 1000000000`,
			`rateLimit.dryRun: "2" is neither true nor false; write "true" or "false"`,
			`rateLimit.limits.a.capacity: "y" is not a whole number from 1 to 1000000000`,
			`rateLimit.limits.a.chargeStatus: "z" is not a status or a range of statuses from 100 to 599, such as "401" or "500-599"`,
			`rateLimit.limits.b: it changes nothing; write capacity and refillRate, sourceCriterion, match or chargeStatus`,
			`rateLimit.tiers.c.match.methods: "get" is not a method in upper case, such as "POST"`,
			`rateLimit.cost: it names nothing, and so every request costs 1; write header, methods or paths, or leave it out`}},
		{"a header with a pattern that is no text", matching(MatchConfig{Headers: map[string]string{"X-Key": "\xff"}}), []string{
			`rateLimit.limits.some.match.headers.X-Key: "\xff" is not valid UTF-8`}},
		{"an address with a port", matching(MatchConfig{Hosts: []string{"[::1]:80"}}), []string{
			`rateLimit.limits.some.match.hosts: "[::1]:80" is not a host without a port, such as "*.example.com"`}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			_, err := readConfig(&Config{RateLimit: row.limit}, "gateway@file")

			require.Error(t, err)
			want := row.want[0]
			if len(row.want) > 1 {
				want = fmt.Sprintf("%d problems:", len(row.want))
				for i, problem := range row.want {
					want += fmt.Sprintf(" (%d) %s", i+1, problem)
				}
			}
			require.Equal(t, want, err.Error())
		})
	}
}

// What labels deliver has blanks after the commas of lists, and what files deliver has fractions of whole numbers.
func TestRules_reads(t *testing.T) {
	s := mustRead(t, &Config{RateLimit: &RateLimitConfig{
		Capacity: "20.000000", RefillRate: " 10 ", DryRun: "1",
		Limits: map[string]*LimitConfig{
			"logins": {Capacity: "5", RefillPeriod: "1m", ChargeStatus: " 401, 403,500 - 599 ", Match: &MatchConfig{
				Paths: []string{"/login", " /api/*"}, Methods: []string{"POST", " PUT"}, Hosts: []string{"Shop.Example.", " [::0001]", "::ffff:192.0.2.1"},
				Headers: map[string]string{"x-key": " *a* "}, ClientIPs: []string{"10.1.2.3/8", " ::ffff:192.0.2.1", "::ffff:192.0.2.0/120"}}},
			"everyone": forEverybody(&LimitConfig{}),
			"hourly":   {RefillPeriod: "1h"},
		},
		Tiers: map[string]*TierConfig{
			"b":      {Match: &MatchConfig{Methods: []string{"GET"}}, Capacity: "50"},
			"a":      {Match: &MatchConfig{Methods: []string{"HEAD"}}, Deny: "true"},
			"last":   {Priority: "-1", Unlimited: "true"},
			"first":  {Priority: "10.000000", Match: &MatchConfig{Methods: []string{"PUT"}}, RefillRate: "5"},
			"second": {Priority: " 9 ", Match: &MatchConfig{Methods: []string{"POST"}}, Unlimited: "1"},
		},
		Cost: &CostConfig{Header: "x-cost", Max: "5.0", Methods: map[string]string{"POST": "3.000000"}, Paths: map[string]string{"/a*": "1", "/a/b*": "2", "/b": "4"}},
	}})

	require.True(t, s.dryRun)
	require.Equal(t, int64(20), ratelimit.Capacity(s.rules.Own))
	require.Equal(t, []string{"rate limit: 20 at once, 10 each 1s", "limit everyone: 20 at once, 10 each 1s", "limit hourly: 20 at once, 10 each 1h0m0s",
		"limit logins: 5 at once, 10 each 1m0s", "tier first: 20 at once, 5 each 1s", "tier second: unlimited", "tier a: denied", "tier b: 50 at once, 10 each 1s",
		"tier last: unlimited", "cost: up to 5", "rate limit: dry run, nothing is refused", "state in this process"}, s.parts)
	logins := s.rules.Limits[2]
	require.Equal(t, []policy.StatusRange{{First: 401, Last: 401}, {First: 403, Last: 403}, {First: 500, Last: 599}}, logins.Charge.Ranges)
	require.Equal(t, policy.Match{
		Paths: []string{"/login", "/api/*"}, Methods: []string{"POST", "PUT"}, Hosts: []string{"shop.example", "::1", "192.0.2.1"},
		Headers:   map[string]string{"X-Key": "*a*"},
		ClientIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.0/24")},
	}, logins.Match)
	require.True(t, logins.Source == nil)
	require.True(t, s.rules.Limits[0].Source.All)
	require.Equal(t, "X-Cost", s.rules.Cost.Header)
	require.Equal(t, map[string]int64{"POST": 3}, s.rules.Cost.Methods)
	require.Equal(t, []policy.PathCost{{Pattern: "/a/b*", Cost: 2}, {Pattern: "/a*", Cost: 1}, {Pattern: "/b", Cost: 4}}, s.rules.Cost.Paths)
}

// A block has its own limit unless only its limits have numbers.
func TestRules_ownLimit(t *testing.T) {
	further := map[string]*LimitConfig{"hourly": limitOf("5", "1", "1h")}
	for _, row := range []struct {
		name  string
		limit RateLimitConfig
		own   bool
	}{
		{"no numbers", RateLimitConfig{Limits: further}, false},
		{"blank numbers, as of templates", RateLimitConfig{Capacity: " ", RefillRate: " ", Limits: further}, false},
		{"only the period", RateLimitConfig{RefillPeriod: "1m", Limits: further}, false},
		{"the capacity", RateLimitConfig{Capacity: "7", Limits: further}, true},
		{"the rate", RateLimitConfig{RefillRate: "7", Limits: further}, true},
		{"no limits", RateLimitConfig{DryRun: "true"}, true},
		{"tiers only", RateLimitConfig{Tiers: map[string]*TierConfig{"a": {Unlimited: "true", Match: &MatchConfig{Methods: []string{"GET"}}}}}, true},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			limit := row.limit
			s := mustRead(t, &Config{RateLimit: &limit})
			require.Equal(t, row.own, s.rules.Own != nil)
			require.Equal(t, row.own, strings.HasPrefix(s.parts[0], "rate limit: "), s.parts[0])
		})
	}
}
