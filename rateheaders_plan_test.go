package resilience

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// shownHeaders returns the headers that say what is left, in words: those of the draft, then the older ones.
func shownHeaders(header http.Header) string {
	text := ""
	for _, name := range []string{"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} {
		if header.Get(name) != "" {
			text += " | " + header.Get(name)
		}
	}
	return text
}

// limitOf is a limit for all requests, or for those with a path.
func limitOf(capacity, rate, period string, paths ...string) *LimitConfig {
	limit := &LimitConfig{Capacity: capacity, RefillRate: rate, RefillPeriod: period}
	if len(paths) > 0 {
		limit.Match = &MatchConfig{Paths: paths}
	}
	return limit
}

// forEverybody gives all requests one bucket of a limit.
func forEverybody(limit *LimitConfig) *LimitConfig {
	limit.SourceCriterion = &SourceCriterionConfig{All: "true"}
	return limit
}

func TestRateHeaders_ofPlans(t *testing.T) {
	type step struct {
		requests string
		status   int
		headers  string // "": none
	}
	const three = ` | "default";q=5;w=18000, "hourly";q=3;w=10800, "everyone";q=9;w=32400`
	limits := func() map[string]*LimitConfig {
		return map[string]*LimitConfig{"hourly": limitOf("3", "1", "1h"), "everyone": forEverybody(limitOf("9", "1", "1h"))}
	}
	for _, row := range []struct {
		name  string
		limit RateLimitConfig
		steps []step
	}{
		{"the tightest of three limits", RateLimitConfig{Capacity: "5", RefillRate: "1", RefillPeriod: "1h", Limits: limits()}, []step{
			{"GET /", 200, three + ` | "hourly";r=2;t=3600 | 3 | 2 | 3600`},
			{"GET /", 200, three + ` | "hourly";r=1;t=3600 | 3 | 1 | 7200`},
			{"GET /", 200, three + ` | "hourly";r=0;t=3600 | 3 | 0 | 10800`},
			{"GET /", 429, three + ` | "hourly";r=0;t=3600 | 3 | 0 | 10800`},
			{"GET /, from 192.0.2.2", 200, three + ` | "hourly";r=2;t=3600 | 3 | 2 | 3600`},
			{"GET /, from 192.0.2.2", 200, three + ` | "hourly";r=1;t=3600 | 3 | 1 | 7200`},
			{"GET /, from 192.0.2.3", 200, three + ` | "hourly";r=2;t=3600 | 3 | 2 | 3600`},
			{"GET /, from 192.0.2.4", 200, three + ` | "hourly";r=2;t=3600 | 3 | 2 | 3600`},
			{"GET /, from 192.0.2.5", 200, three + ` | "everyone";r=1;t=3600 | 9 | 1 | 28800`},
			{"GET /, from 192.0.2.6", 200, three + ` | "everyone";r=0;t=3600 | 9 | 0 | 32400`},
			{"GET /, from 192.0.2.7", 429, three + ` | "everyone";r=0;t=3600 | 9 | 0 | 32400`},
			{"GET /, from 192.0.2.2", 429, three + ` | "everyone";r=0;t=3600 | 9 | 0 | 32400`},
		}},
		{"only the limits that apply", RateLimitConfig{Capacity: "5", RefillRate: "1", RefillPeriod: "1h",
			Limits: map[string]*LimitConfig{"logins": limitOf("2", "1", "1h", "/login")}}, []step{
			{"GET /", 200, ` | "default";q=5;w=18000 | "default";r=4;t=3600 | 5 | 4 | 3600`},
			{"GET /login", 200, ` | "default";q=5;w=18000, "logins";q=2;w=7200 | "logins";r=1;t=3600 | 2 | 1 | 3600`},
			{"GET /", 200, ` | "default";q=5;w=18000 | "default";r=2;t=3600 | 5 | 2 | 10800`},
		}},
		{"of two with as many tokens, the slower one", RateLimitConfig{Capacity: "3", RefillRate: "1", RefillPeriod: "1m",
			Limits: map[string]*LimitConfig{"hourly": limitOf("3", "1", "1h")}}, []step{
			{"GET /", 200, ` | "default";q=3;w=180, "hourly";q=3;w=10800 | "hourly";r=2;t=3600 | 3 | 2 | 3600`},
		}},
		{"the longest wait", RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h",
			Limits: map[string]*LimitConfig{"short": limitOf("2", "1", "1m"), "everyone": forEverybody(limitOf("2", "1", "2h"))}}, []step{
			{"GET /", 200, ` | "default";q=2;w=7200, "short";q=2;w=120, "everyone";q=2;w=14400 | "everyone";r=1;t=7200 | 2 | 1 | 7200`},
			{"GET /", 200, ` | "default";q=2;w=7200, "short";q=2;w=120, "everyone";q=2;w=14400 | "everyone";r=0;t=7200 | 2 | 0 | 14400`},
			{"GET /", 429, ` | "default";q=2;w=7200, "short";q=2;w=120, "everyone";q=2;w=14400 | "everyone";r=0;t=7200 | 2 | 0 | 14400`},
			{"GET /", 429, ` | "default";q=2;w=7200, "short";q=2;w=120, "everyone";q=2;w=14400 | "everyone";r=0;t=7200 | 2 | 0 | 14400`},
		}},
		{"a tier", RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h", Tiers: map[string]*TierConfig{
			"partners": {Match: &MatchConfig{ClientIPs: []string{"203.0.113.0/24"}}, Capacity: "8"},
			"internal": {Match: &MatchConfig{ClientIPs: []string{"10.0.0.0/8"}}, Unlimited: "true"},
			"banned":   {Match: &MatchConfig{Headers: map[string]string{"User-Agent": "*badbot*"}}, Deny: "true"}}}, []step{
			{"GET /, from 203.0.113.7", 200, ` | "partners";q=8;w=28800 | "partners";r=7;t=3600 | 8 | 7 | 3600`},
			{"GET /", 200, ` | "default";q=2;w=7200 | "default";r=1;t=3600 | 2 | 1 | 3600`},
			{"GET /, from 10.0.0.1", 200, ""},
			{"GET /, User-Agent: badbot", 403, ""},
		}},
		{"costs", RateLimitConfig{Capacity: "10", RefillRate: "1", RefillPeriod: "1h", Cost: &CostConfig{Header: "X-Cost", Max: "10"}}, []step{
			{"GET /, X-Cost: 4", 200, ` | "default";q=10;w=36000 | "default";r=6;t=3600 | 10 | 6 | 14400`},
			{"GET /, X-Cost: 4", 200, ` | "default";q=10;w=36000 | "default";r=2;t=3600 | 10 | 2 | 28800`},
			{"GET /, X-Cost: 4", 429, ` | "default";q=10;w=36000 | "default";r=0;t=7200 | 10 | 0 | 28800`},
			{"GET /", 200, ` | "default";q=10;w=36000 | "default";r=1;t=3600 | 10 | 1 | 32400`},
			{"GET /", 200, ` | "default";q=10;w=36000 | "default";r=0;t=3600 | 10 | 0 | 36000`},
			{"GET /", 429, ` | "default";q=10;w=36000 | "default";r=0;t=3600 | 10 | 0 | 36000`},
			{"GET /, X-Cost: 4", 429, ` | "default";q=10;w=36000 | "default";r=0;t=14400 | 10 | 0 | 36000`},
		}},
		{"a dry run", RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h", DryRun: "true"}, []step{
			{"GET /", 200, ` | "default";q=1;w=3600 | "default";r=0;t=3600 | 1 | 0 | 3600`},
			{"GET /", 200, ` | "default";q=1;w=3600 | "default";r=0;t=3600 | 1 | 0 | 3600`},
		}},
	} {
		row := row
		for _, on := range []string{"always", "refused"} {
			on := on
			t.Run(row.name+" "+on, func(t *testing.T) {
				forEachStore(t, func(t *testing.T, redis *RedisConfig) {
					limit := row.limit
					limit.ResponseHeaders, limit.ResponseHeadersOn = "both", on
					handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: &limit, CircuitBreaker: failures("5")})
					for i, step := range row.steps {
						_, w := asked{requests: step.requests, times: 1}.ask(handler)
						require.Equal(t, step.status, w.Code, "step %d", i)
						want := step.headers
						if on == "refused" && step.status == 200 {
							want = ""
						}
						require.Equal(t, want, shownHeaders(w.Header()), "step %d: %s", i, step.requests)
					}
				})
			})
		}
	}
}

// Retry-After is the longest wait among the limits that refuse, also when it comes from memory.
func TestPlans_retryAfterIsTheLongestWait(t *testing.T) {
	newProcess(t, 0)
	clock := newStoppedClock(t)
	for _, redis := range []*RedisConfig{nil, at(redistest.Start(t).Addr())} {
		limit := RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "20m",
			Limits: map[string]*LimitConfig{"everyone": forEverybody(limitOf("2", "1", "1h"))}}
		handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: &limit, Answers: &AnswersConfig{RateLimited: &AnswerConfig{Body: "{limit} in {retryAfter}"}}})
		require.Equal(t, []int{200, 200}, statuses(handler, 2))
		for i := 0; i < 5; i++ {
			w := send(handler, "GET", "/")
			require.Equal(t, 429, w.Code)
			wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
			require.NoError(t, err)
			require.InDelta(t, 3600, wait, 3)
			require.Equal(t, "everyone in "+strconv.Itoa(wait), w.Body.String())
			clock.advance(400 * time.Millisecond)
		}
	}
}

// Two gateways serve two clients in turns, under three limits. Whatever either says is left, there is at least as much.
func TestRateHeaders_ofPlansAreNeverAboveTheTruth(t *testing.T) {
	redis := redistest.Start(t)
	for _, factor := range []int{1, 20} {
		factor := factor
		t.Run(strconv.Itoa(factor), func(t *testing.T) {
			times := func(n int) string { return strconv.Itoa(n * factor) }
			gateways := []http.Handler{}
			for i := 0; i < 2; i++ {
				newProcess(t, 0)
				handler, _ := newGateway(t, &Config{Name: "plans" + strconv.Itoa(factor), Redis: at(redis.Addr()), RateLimit: &RateLimitConfig{
					Capacity: times(30), RefillRate: "1", RefillPeriod: "1h", ResponseHeaders: "x-ratelimit",
					Limits: map[string]*LimitConfig{"other": limitOf(times(20), "1", "1h"), "everyone": forEverybody(limitOf(times(35), "1", "1h"))}}})
				gateways = append(gateways, handler)
			}
			used, all, exact := map[string]int{}, 0, 0
			for n := 0; n < 24*factor; n++ {
				client := "192.0.2." + strconv.Itoa(n%3/2+1)
				_, w := asked{requests: "GET /, from " + client, times: 1}.ask(gateways[n%7%2])
				require.Equal(t, 200, w.Code, n)
				used[client]++
				all++
				truth := 20*factor - used[client]
				if rest := 35*factor - all; rest < truth {
					truth = rest
				}
				left, err := strconv.Atoi(w.Header().Get("X-RateLimit-Remaining"))
				require.NoError(t, err)
				require.LessOrEqual(t, left, truth, "after %d requests", n+1)
				if left == truth {
					exact++
				}
			}
			require.Greater(t, exact, 0)
			if factor == 1 {
				require.Equal(t, all, exact, "where there are no leases, all are exact")
			}
		})
	}
}

// A gateway that decides without Redis tells what it knows.
func TestRateHeaders_ofPlansWithoutRedis(t *testing.T) {
	for _, row := range []struct {
		onError string
		want    []string
	}{
		{"local", []string{"2", "1", "0", "0"}},
		{"allow", []string{"", "", "", ""}},
		{"deny", []string{"", "", "", ""}},
	} {
		row := row
		t.Run(row.onError, func(t *testing.T) {
			newProcess(t, 0)
			limit := tokens("5")
			limit.ResponseHeaders = "both"
			limit.Limits = map[string]*LimitConfig{"other": slow("3")}
			handler, _ := newGateway(t, &Config{Redis: &RedisConfig{Address: closedPort, OnError: row.onError}, RateLimit: limit})
			for i, want := range row.want {
				require.Equal(t, want, send(handler, "GET", "/").Header().Get("X-RateLimit-Remaining"), i)
			}
		})
	}
}

// The message that operators look for is the same for all limits. The limit has its own field.
func TestLog_namesTheLimitThatRefuses(t *testing.T) {
	for _, row := range []struct {
		name, dryRun string
		lines        []string
	}{
		{"refused", "", []string{
			`"client":"ip:192.0.2.1","decision":"limited","level":"info","limit":"hourly","message":"refused: rate limit exceeded"`,
			`"client":"ip:192.0.2.1","decision":"denied","level":"info","message":"refused: denied"`}},
		{"not refused in a dry run", "true", []string{
			`"client":"ip:192.0.2.1","decision":"would_limit","level":"info","limit":"hourly","message":"would refuse: rate limit exceeded (dry run)"`,
			`"client":"ip:192.0.2.1","decision":"would_limit","level":"info","message":"would refuse: denied (dry run)"`}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				log := captureLog(t)
				limit := tokens("5")
				limit.DryRun = row.dryRun
				limit.Limits = map[string]*LimitConfig{"hourly": slow("1")}
				limit.Tiers = map[string]*TierConfig{"banned": {Match: &MatchConfig{Headers: map[string]string{"User-Agent": "*badbot*"}}, Deny: "true"}}
				handler, _ := newGateway(t, &Config{Redis: redis, RateLimit: limit})
				statuses(handler, 5)
				asked{requests: "GET /, User-Agent: badbot", times: 3}.ask(handler)
				for _, line := range row.lines {
					log.eventually(t, 1, line)
				}
				log.flush(t)
				require.Equal(t, 2, log.count(`"refusedBefore":"0"`))
				require.Equal(t, 1, log.count(`"rule":"banned"`))
			})
		})
	}
}
