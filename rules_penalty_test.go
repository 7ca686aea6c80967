package resilience

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRead_penalty(t *testing.T) {
	for _, row := range []struct {
		name    string
		limit   RateLimitConfig
		problem string // "": none
		part    string
	}{
		{"the defaults", RateLimitConfig{Penalty: &PenaltyConfig{}}, "", "penalty: 20 refusals within 1m0s, for 1m0s up to 1h0m0s"},
		{"a long time", RateLimitConfig{Penalty: &PenaltyConfig{Time: "2h"}}, "", "penalty: 20 refusals within 2h0m0s, for 2h0m0s up to 2h0m0s"},
		{"a longest time below the first", RateLimitConfig{Penalty: &PenaltyConfig{Time: "2m", MaxTime: "1m"}},
			"rateLimit.penalty.maxTime: 1m0s is less than time, 2m0s, which the first penalty lasts; write at least that", ""},
		{"no refusals", RateLimitConfig{Penalty: &PenaltyConfig{Refusals: "0"}},
			`rateLimit.penalty.refusals: "0" is not a whole number from 1 to 1000000000`, ""},
		{"an unknown key", RateLimitConfig{Penalty: &PenaltyConfig{Unknown: map[string]interface{}{"maxtime": "1h", "refusal": 1}}},
			`2 problems: (1) rateLimit.penalty.maxtime: there is no such key; did you mean "maxTime"? (2) rateLimit.penalty.refusal: there is no such key; did you mean "refusals"?`, ""},
		{"one client", RateLimitConfig{SourceCriterion: &SourceCriterionConfig{All: "true"}, Penalty: &PenaltyConfig{}},
			"rateLimit.penalty: all requests are one client by sourceCriterion.all, and so would be refused together; write another sourceCriterion", ""},
		{"a limit with its name", RateLimitConfig{Limits: map[string]*LimitConfig{"penalty": {}}},
			"rateLimit.limits.penalty: refusals during a penalty have this name; write another name", ""},
	} {
		limit := row.limit
		s, err := readConfig(&Config{RateLimit: &limit}, "gateway@file")
		if row.problem != "" {
			require.EqualError(t, err, row.problem, row.name)
			continue
		}
		require.NoError(t, err, row.name)
		require.Contains(t, s.parts, row.part, row.name)
	}
}

// penalised is a limit that names itself in refusals, and penalises a client after three.
func penalised(redis *RedisConfig, limit RateLimitConfig) *Config {
	limit.Penalty = &PenaltyConfig{Refusals: "3", Time: "1m", MaxTime: "3m"}
	return &Config{Redis: redis, RateLimit: &limit, Answers: &AnswersConfig{RateLimited: &AnswerConfig{Body: "{limit}"}}}
}

// refusedBy sends a request and returns the limit that refuses it, "" if none does, and Retry-After.
func refusedBy(handler http.Handler, r *http.Request) (string, int) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusTooManyRequests {
		return "", 0
	}
	wait, _ := strconv.Atoi(w.Header().Get("Retry-After"))
	return w.Body.String(), wait
}

func anyRequest() *http.Request { return httptest.NewRequest("GET", "/", nil) }

func TestPenalty_refusesTheClientThatIsRefusedAgainAndAgain(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, _ := newGateway(t, penalised(redis, RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h"}))
		require.Equal(t, []int{200, 200}, statuses(handler, 2))
		for i := 0; i < 3; i++ {
			limit, wait := refusedBy(handler, anyRequest())
			require.Equal(t, "default", limit)
			require.Greater(t, wait, 3500)
		}
		waitFor(t, func() bool { limit, _ := refusedBy(handler, anyRequest()); return limit == "penalty" })
		_, wait := refusedBy(handler, anyRequest())
		require.InDelta(t, 58, wait, 3)
		require.Equal(t, 200, getAs(handler, otherClient), "others are not concerned")
		if redis != nil {
			server := redistest.Connect(t, redis.Address)
			require.Equal(t, int64(1), server.Int("EXISTS", "resilience:{"+nameOf(t)+"}:penalty:ip:192.0.2.1"))
		}
	})
}

// In this process the clock is the test's.
func TestPenalty_growsAndEnds(t *testing.T) {
	newProcess(t, time.Hour)
	clock := newStoppedClock(t)
	handler, up := newGateway(t, penalised(nil, RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "10s"}))
	for _, length := range []int{60, 120, 180, 180} {
		require.Equal(t, []int{200, 429, 429, 429}, statuses(handler, 4))
		for second := 0; second < length; second += 20 {
			limit, wait := refusedBy(handler, anyRequest())
			require.Equal(t, "penalty", limit)
			require.Equal(t, length-second, wait, "refusals during a penalty do not make it longer")
			clock.advance(20 * time.Second)
		}
	}
	require.Equal(t, 4, up.count())
	clock.advance(6 * time.Minute)
	require.Equal(t, []int{200, 429, 429, 429}, statuses(handler, 4))
	_, wait := refusedBy(handler, anyRequest())
	require.Equal(t, 60, wait, "twice the length of the last penalty without one: it begins again")
}

func TestPenalty_isForTheClientNotForTheIdentity(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		logins := slow("1")
		logins.Match = &MatchConfig{Paths: []string{"/login"}}
		handler, _ := newGateway(t, penalised(redis, RateLimitConfig{Capacity: "1000", Limits: map[string]*LimitConfig{"logins": logins},
			Tiers: map[string]*TierConfig{"health": {Match: &MatchConfig{Paths: []string{"/ready"}}, Unlimited: "true"}}}))
		for i := 0; i < 4; i++ {
			send(handler, "GET", "/login")
		}
		waitFor(t, func() bool { limit, _ := refusedBy(handler, anyRequest()); return limit == "penalty" })
		require.Equal(t, 429, send(handler, "GET", "/login").Code)
		require.Equal(t, 200, send(handler, "GET", "/ready").Code, "unlimited is unlimited")
	})
}

func TestPenalty_isNotForWhatOthersUsedUp(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		everyone := &LimitConfig{Capacity: "3", RefillRate: "1", RefillPeriod: "30m", SourceCriterion: &SourceCriterionConfig{All: "true"}}
		handler, _ := newGateway(t, penalised(redis, RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h",
			Limits: map[string]*LimitConfig{"everyone": everyone}}))
		require.Equal(t, 200, get(handler))
		require.Equal(t, 200, getAs(handler, otherClient))
		require.Equal(t, 200, getAs(handler, otherClient))
		for i := 0; i < 9; i++ {
			limit, _ := refusedBy(handler, anyRequest())
			require.Equal(t, "everyone", limit, "the client itself has a token")
		}
		other := anyRequest()
		other.RemoteAddr = otherClient + ":1234"
		waitFor(t, func() bool { limit, _ := refusedBy(handler, other); return limit == "penalty" }, "it has used up its own")
		limit, _ := refusedBy(handler, anyRequest())
		require.Equal(t, "everyone", limit, "its refusals would have been reported before")
	})
}

func TestPenalty_ofADryRunRefusesNothing(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := penalised(redis, RateLimitConfig{Capacity: "1", RefillPeriod: "1h", DryRun: "true"})
		handler, _ := newGateway(t, config)
		for _, code := range statuses(handler, 9) {
			require.Equal(t, 200, code)
		}
	})
}

// The other gateway holds a lease, and its fast path admits the client until it learns of the penalty.
func TestPenalty_endsLeasesElsewhere(t *testing.T) {
	server := redistest.Start(t)
	logins := slow("1")
	logins.Match = &MatchConfig{Paths: []string{"/login"}}
	config := penalised(at(server.Addr()), RateLimitConfig{Capacity: "100000", RefillRate: "100000", Limits: map[string]*LimitConfig{"logins": logins}})
	one, two, _, _ := gateways(t, config)
	for i := 0; i < 20; i++ {
		require.Equal(t, 200, get(two))
	}
	for i := 0; i < 4; i++ {
		send(one, "GET", "/login")
	}
	begun := time.Now()
	waitFor(t, func() bool { limit, _ := refusedBy(two, anyRequest()); return limit == "penalty" })
	require.Less(t, time.Since(begun), time.Second, "it takes about two reports, each within 100 ms")
	limit, _ := refusedBy(one, anyRequest())
	require.Equal(t, "penalty", limit)
}

// While Redis is unavailable this process counts.
func TestPenalty_withoutRedis(t *testing.T) {
	newProcess(t, time.Hour)
	handler, _ := newGateway(t, penalised(at(closedPort), RateLimitConfig{Capacity: "1", RefillPeriod: "1h"}))
	waitFor(t, func() bool { limit, _ := refusedBy(handler, anyRequest()); return limit == "penalty" })
}

func TestPenalty_survivesAReload(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := penalised(redis, RateLimitConfig{Capacity: "1", RefillPeriod: "1h"})
		before, _ := newGateway(t, config)
		waitFor(t, func() bool { limit, _ := refusedBy(before, anyRequest()); return limit == "penalty" })
		after, _ := newGateway(t, config)
		limit, _ := refusedBy(after, anyRequest())
		require.Equal(t, "penalty", limit)
	})
}
