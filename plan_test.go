package resilience

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// asked is a number of equal requests, and the statuses that they get.
type asked struct {
	requests string // "METHOD path", then "Name: value" and "from address", separated by ", "
	times    int
	admitted int
	status   int // of the others
}

// ask sends the requests and returns how many were admitted, and the answer to the last one.
func (a asked) ask(handler http.Handler) (admitted int, last *httptest.ResponseRecorder) {
	parts := strings.Split(a.requests, ", ")
	method, path, _ := strings.Cut(parts[0], " ")
	for i := 0; i < a.times; i++ {
		r := httptest.NewRequest(method, path, nil)
		for _, part := range parts[1:] {
			colon := strings.Index(part, ": ")
			if colon < 0 {
				r.RemoteAddr = strings.TrimPrefix(part, "from ") + ":1234"
			} else {
				r.Header.Set(part[:colon], part[colon+2:])
			}
		}
		last = httptest.NewRecorder()
		handler.ServeHTTP(last, r)
		if last.Code == http.StatusOK {
			admitted++
		}
	}
	return admitted, last
}

// slow is a limit that does not refill during a test.
func slow(capacity string) *LimitConfig {
	return &LimitConfig{Capacity: capacity, RefillRate: "1", RefillPeriod: "1h"}
}

func TestPlans_decide(t *testing.T) {
	const limited, denied = 429, 403
	everyone := slow("5")
	everyone.SourceCriterion = &SourceCriterionConfig{All: "true"}
	logins := slow("2")
	logins.Match = &MatchConfig{Paths: []string{"/login"}, Methods: []string{"POST"}}
	byHost := slow("3")
	byHost.SourceCriterion = &SourceCriterionConfig{RequestHost: "true"}
	perKey := slow("2")
	perKey.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "deny"}
	passKey := slow("2")
	passKey.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "pass"}
	for _, row := range []struct {
		name  string
		limit RateLimitConfig
		steps []asked
	}{
		{"a second limit of the same client", RateLimitConfig{Capacity: "10", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"hourly": slow("4")}}, []asked{
			{"GET /", 6, 4, limited}, {"GET /, from 192.0.2.9", 3, 3, limited}}},
		{"limits without one of the block's own", RateLimitConfig{RefillPeriod: "1h", Limits: map[string]*LimitConfig{"a": slow("7"), "b": slow("3")}}, []asked{
			{"GET /", 6, 3, limited}}},
		{"a limit for everybody", RateLimitConfig{Capacity: "4", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"everyone": everyone}}, []asked{
			{"GET /", 6, 4, limited}, {"GET /, from 192.0.2.9", 3, 1, limited}}},
		{"a refused request takes nothing from the other limits", RateLimitConfig{Capacity: "3", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"everyone": everyone}}, []asked{
			{"GET /", 50, 3, limited}, {"GET /, from 192.0.2.9", 3, 2, limited}}},
		{"a limit by another source", RateLimitConfig{Capacity: "9", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"host": byHost}}, []asked{
			{"GET http://a.example/", 2, 2, limited}, {"GET http://a.example/, from 192.0.2.9", 2, 1, limited}, {"GET http://b.example/", 2, 2, limited}}},
		{"a limit for some requests", RateLimitConfig{Capacity: "9", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"logins": logins}}, []asked{
			{"POST /login", 3, 2, limited}, {"GET /login", 3, 3, limited}, {"POST /other", 5, 4, limited}}},
		{"a limit whose source may be missing, denied", RateLimitConfig{Capacity: "9", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"key": perKey}}, []asked{
			{"GET /", 2, 0, denied}, {"GET /, X-Key: a", 3, 2, limited}, {"GET /, X-Key: b", 1, 1, limited}}},
		{"a limit whose source may be missing, passed", RateLimitConfig{Capacity: "4", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"key": passKey}}, []asked{
			{"GET /, X-Key: a", 3, 2, limited}, {"GET /", 5, 2, limited}}},
		{"tiers", RateLimitConfig{Capacity: "1", RefillPeriod: "1h", Tiers: map[string]*TierConfig{
			"partners": {Priority: "10", Match: &MatchConfig{ClientIPs: []string{"203.0.113.0/24"}}, Capacity: "3"},
			"internal": {Match: &MatchConfig{ClientIPs: []string{"10.0.0.0/8"}}, Unlimited: "true"},
			"banned":   {Match: &MatchConfig{Headers: map[string]string{"User-Agent": "*badbot*"}}, Deny: "true"},
		}}, []asked{
			{"GET /", 2, 1, limited}, {"GET /, from 203.0.113.7", 5, 3, limited}, {"GET /, from 10.1.1.1", 20, 20, limited},
			{"GET /, User-Agent: a badbot/2", 2, 0, denied}, {"GET /, User-Agent: badbot, from 203.0.113.7", 1, 0, limited}}},
		{"a tier replaces the block's own limit only", RateLimitConfig{Capacity: "1", RefillPeriod: "1h", Limits: map[string]*LimitConfig{"hourly": slow("4")},
			Tiers: map[string]*TierConfig{"partners": {Match: &MatchConfig{ClientIPs: []string{"203.0.113.0/24"}}, Capacity: "9"}}}, []asked{
			{"GET /", 2, 1, limited}, {"GET /, from 203.0.113.7", 9, 4, limited}}},
		{"a client that is in a tier for some requests has one bucket of each other limit", RateLimitConfig{Capacity: "9", RefillPeriod: "1h",
			Limits: map[string]*LimitConfig{"hourly": slow("5")},
			Tiers:  map[string]*TierConfig{"gold": {Match: &MatchConfig{Headers: map[string]string{"X-Plan": "gold"}}, Capacity: "7"}}}, []asked{
			{"GET /", 2, 2, limited}, {"GET /, X-Plan: gold", 2, 2, limited}, {"GET /", 3, 1, limited}, {"GET /, X-Plan: gold", 1, 0, limited}}},
		{"cost by header, path and method", RateLimitConfig{Capacity: "20", RefillPeriod: "1h", Cost: &CostConfig{
			Header: "X-Cost", Max: "10", Methods: map[string]string{"POST": "5"}, Paths: map[string]string{"/search": "8"}}}, []asked{
			{"GET /, X-Cost: 9", 1, 1, limited}, {"GET /search", 1, 1, limited}, {"POST /", 1, 0, limited}, {"GET /", 9, 3, limited},
			{"GET /, X-Cost: 11, from 192.0.2.9", 25, 20, limited}, {"GET /, X-Cost: -1, from 192.0.2.8", 25, 20, limited}}},
		{"a dry run refuses nothing", RateLimitConfig{Capacity: "2", RefillPeriod: "1h", DryRun: "true", Tiers: map[string]*TierConfig{
			"banned": {Match: &MatchConfig{Headers: map[string]string{"User-Agent": "*badbot*"}}, Deny: "true"}}}, []asked{
			{"GET /", 9, 9, limited}, {"GET /, User-Agent: badbot", 2, 2, limited}}},
	} {
		row := row
		forEachStore(t, func(t *testing.T, redis *RedisConfig) {
			limit := row.limit
			handler, up := newGateway(t, &Config{Redis: redis, RateLimit: &limit, CircuitBreaker: failures("5")})
			total := 0
			for i, step := range row.steps {
				admitted, last := step.ask(handler)
				require.Equal(t, step.admitted, admitted, "%s: step %d: %s", row.name, i, step.requests)
				total += admitted
				if admitted < step.times {
					require.Equal(t, step.status, last.Code, "%s: step %d: %s", row.name, i, step.requests)
				}
			}
			require.Equal(t, total, up.count(), row.name)
		})
	}
}
