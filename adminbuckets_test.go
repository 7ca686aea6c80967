package resilience

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// refusedMost is a client in the list of those refused most.
type refusedMost struct{ key, limit string }

// mostRefusedIn returns the list of a middleware in the status.
func mostRefusedIn(t *testing.T, admin http.Handler, name string) []refusedMost {
	all := []refusedMost{}
	for _, one := range statusIn(t, admin)["middlewares"].([]interface{}) {
		m := one.(map[string]interface{})
		if m["name"].(string) != name {
			continue
		}
		for _, client := range m["mostRefused"].([]interface{}) {
			c := client.(map[string]interface{})
			all = append(all, refusedMost{c["key"].(string), c["limit"].(string)})
		}
	}
	return all
}

// bucketAnswer looks a client up, or deletes its bucket, as the list shows it.
func bucketAnswer(t *testing.T, admin http.Handler, method, name string, client refusedMost) map[string]interface{} {
	path := "/resilience/buckets/" + client.key + "?middleware=" + url.QueryEscape(name) + "&limit=" + client.limit
	w := ask(admin, asking{method: method, path: path, header: map[string]string{"X-Resilience": "1"}})
	require.Equal(t, 200, w.Code, w.Body.String())
	var answer map[string]interface{}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
	return answer
}

// tenantRequest is a request that has a value of each key source.
func tenantRequest() *http.Request {
	r := httptest.NewRequest("GET", "/login?tenant=acme", nil)
	r.Header.Set("X-Tenant", "acme corp")
	r.Header.Set("X-Region", "north")
	r.Header.Set("Cookie", "session=5f3a9c")
	r.Header.Set("Authorization", "Bearer e30.eyJzdWIiOiJhY21lIn0.c2ln") // {"sub":"acme"}
	return r
}

// keySources are a key source of each kind.
var keySources = map[string]SourceCriterionConfig{
	"address":   {IPStrategy: &IPStrategyConfig{}},
	"header":    {RequestHeaderName: "X-Tenant"},
	"host":      {RequestHost: "true"},
	"method":    {RequestMethod: "true"},
	"cookie":    {RequestCookieName: "session"},
	"query":     {RequestQueryName: "tenant"},
	"claim":     {RequestJWTClaim: "sub"},
	"path":      {RequestPath: "/{page}"},
	"headers":   {RequestHeaderName: "X-Tenant,X-Region"},
	"composite": {RequestHeaderName: "X-Tenant", RequestCookieName: "session"},
	"missing":   {RequestHeaderName: "X-Nobody"},
	"instead":   {RequestHeaderName: "X-Nobody", MissingSource: "address"},
}

// What the list shows can be looked up and deleted as it is shown, whichever source the key is from.
func TestBuckets_ofWhatTheListShows(t *testing.T) {
	login := &MatchConfig{Paths: []string{"/login"}}
	for name, source := range keySources {
		name, source := name, source
		for _, row := range []struct {
			name  string
			limit RateLimitConfig
			by    string
		}{
			{"limit", RateLimitConfig{SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Region"}, Capacity: "1000",
				Limits: map[string]*LimitConfig{"tenants": {Capacity: "2", RefillRate: "1", RefillPeriod: "1h", SourceCriterion: &source}}}, "tenants"},
			{"block", RateLimitConfig{SourceCriterion: &source, Capacity: "2", RefillRate: "1", RefillPeriod: "1h"}, "default"},
			{"limit of the block's source", RateLimitConfig{SourceCriterion: &source, Capacity: "1000",
				Limits: map[string]*LimitConfig{"logins": {Capacity: "2", RefillRate: "1", RefillPeriod: "1h", Match: login}}}, "logins"},
		} {
			row := row
			t.Run(name+" of the "+row.name, func(t *testing.T) {
				forEachStore(t, func(t *testing.T, redis *RedisConfig) {
					refusedClientIsFound(t, &Config{Name: nameOf(t), Redis: redis, RateLimit: &row.limit}, row.by)
				})
			})
		}
	}
}

// refusedClientIsFound has a client refused after two requests, looks it up as the list shows it, and lets it in.
func refusedClientIsFound(t *testing.T, config *Config, by string) {
	log := captureLog(t)
	handler, _ := newGateway(t, config)
	admin := console(t)
	for _, status := range []int{200, 200, 429, 429, 429} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, tenantRequest())
		require.Equal(t, status, w.Code)
	}
	most := mostRefusedIn(t, admin, config.Name)
	require.Len(t, most, 1, "the same client, from memory and by Redis")
	client := most[0]
	require.Equal(t, by, client.limit)

	found := bucketAnswer(t, admin, "GET", config.Name, client)
	require.Equal(t, true, found["limited"], found)
	require.Equal(t, true, found["stored"], found)
	require.Equal(t, 2.0, found["capacity"], found)
	require.Equal(t, true, bucketAnswer(t, admin, "DELETE", config.Name, client)["deleted"])
	require.Equal(t, false, bucketAnswer(t, admin, "DELETE", config.Name, client)["deleted"], "there is none any more")
	require.Equal(t, false, bucketAnswer(t, admin, "GET", config.Name, client)["limited"])
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, tenantRequest())
	require.Equal(t, 200, w.Code)
	require.Equal(t, true, bucketAnswer(t, admin, "DELETE", config.Name, client)["deleted"])
	log.eventually(t, 2, `"message":"bucket deleted"`)
	require.Equal(t, 0, log.count(`"message":"penalty ended"`))
}

// The limit for everybody is looked up for the client that it refused, and refuses many.
func TestBuckets_theListShowsClientsOfALimitForEverybody(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		everyone := slow("2")
		everyone.SourceCriterion = &SourceCriterionConfig{All: "true"}
		handler, _ := newGateway(t, &Config{Name: nameOf(t), Redis: redis, RateLimit: &RateLimitConfig{Capacity: "1000", Limits: map[string]*LimitConfig{"everyone": everyone}}})
		admin := console(t)
		require.Equal(t, []int{200, 200, 429}, statuses(handler, 3))
		client := refusedMost{"ip:192.0.2.1", "everyone"}
		require.Equal(t, []refusedMost{client}, mostRefusedIn(t, admin, nameOf(t)))
		require.Equal(t, true, bucketAnswer(t, admin, "GET", nameOf(t), client)["limited"])
	})
}

// penalisedClient returns a gateway that penalises the client 192.0.2.1.
func penalisedClient(t *testing.T, config *Config) http.Handler {
	config.Name = nameOf(t)
	handler, _ := newGateway(t, config)
	waitFor(t, func() bool { limit, _ := refusedBy(handler, anyRequest()); return limit == "penalty" })
	return handler
}

func TestBuckets_showAndEndAPenalty(t *testing.T) {
	for _, limit := range []string{"default", "penalty"} {
		limit := limit
		t.Run(limit, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) {
				log := captureLog(t)
				config := penalised(redis, RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h"})
				admin := console(t)
				handler := penalisedClient(t, config)
				require.Contains(t, mostRefusedIn(t, admin, nameOf(t)), refusedMost{"ip:192.0.2.1", "penalty"})
				client := refusedMost{"ip:192.0.2.1", limit}

				found := bucketAnswer(t, admin, "GET", nameOf(t), client)
				require.InDelta(t, 58, found["penaltySeconds"], 3)
				require.Equal(t, true, found["limited"])
				require.Equal(t, 2.0, found["capacity"])
				require.Equal(t, 0.0, bucketAnswer(t, admin, "GET", nameOf(t), refusedMost{"ip:" + otherClient, limit})["penaltySeconds"])

				ended := bucketAnswer(t, admin, "DELETE", nameOf(t), client)
				require.Equal(t, true, ended["penaltyEnded"])
				require.Equal(t, true, ended["deleted"])
				require.Equal(t, []int{200, 200, 429}, statuses(handler, 3), "at once, with a full bucket")
				require.Equal(t, 0.0, bucketAnswer(t, admin, "GET", nameOf(t), client)["penaltySeconds"])
				require.Equal(t, false, bucketAnswer(t, admin, "DELETE", nameOf(t), client)["penaltyEnded"])
				log.eventually(t, 1, `"message":"penalty ended"`)

				// The next penalty is the first again.
				waitFor(t, func() bool { by, _ := refusedBy(handler, anyRequest()); return by == "penalty" })
				_, wait := refusedBy(handler, anyRequest())
				require.InDelta(t, 58, wait, 3)
			})
		})
	}
}

func anyRequestOf(address string) *http.Request {
	r := anyRequest()
	r.RemoteAddr = address + ":1234"
	return r
}

// A gateway that reads the latest penalties learns that one has ended.
func TestBuckets_anEndedPenaltyEndsElsewhere(t *testing.T) {
	server := redistest.Start(t)
	config := penalised(at(server.Addr()), RateLimitConfig{Capacity: "2", RefillRate: "1", RefillPeriod: "1h"})
	config.Name = nameOf(t)
	newProcess(t, 0)
	other, _ := newGateway(t, config)
	newProcess(t, 0)
	admin := console(t)
	penalisedClient(t, config)
	limit, _ := refusedBy(other, anyRequest())
	require.Equal(t, "penalty", limit)
	bucketAnswer(t, admin, "DELETE", nameOf(t), refusedMost{"ip:192.0.2.1", "penalty"})
	waitFor(t, func() bool {
		refusedBy(other, anyRequestOf(otherClient)) // its refusals are reported
		limit, _ := refusedBy(other, anyRequest())
		return limit != "penalty"
	})
}

// A key of another source is another client's: it may have the same value.
func TestBuckets_thePenaltyIsOfTheBlocksSource(t *testing.T) {
	newProcess(t, 0)
	tenants := slow("1000")
	tenants.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Tenant"}
	config := penalised(nil, RateLimitConfig{SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Key", MissingSource: "address"}, Capacity: "2", RefillPeriod: "1h",
		Limits: map[string]*LimitConfig{"tenants": tenants}})
	admin := console(t)
	penalisedClient(t, config)
	require.Greater(t, bucketAnswer(t, admin, "GET", nameOf(t), refusedMost{"address:192.0.2.1", "default"})["penaltySeconds"], 50.0)
	require.Equal(t, 0.0, bucketAnswer(t, admin, "GET", nameOf(t), refusedMost{"address:192.0.2.1", "tenants"})["penaltySeconds"])
}

// A block without an own limit has penalties, too.
func TestBuckets_aPenaltyWithoutAnOwnLimit(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		tenants := slow("2")
		tenants.SourceCriterion = &SourceCriterionConfig{RequestHeaderName: "X-Tenant"}
		admin := console(t)
		handler := penalisedClient(t, penalised(redis, RateLimitConfig{Limits: map[string]*LimitConfig{"tenants": tenants}}))
		client := refusedMost{"ip:192.0.2.1", "penalty"}
		require.Contains(t, mostRefusedIn(t, admin, nameOf(t)), client)
		found := bucketAnswer(t, admin, "GET", nameOf(t), client)
		require.Equal(t, true, found["limited"])
		require.NotContains(t, found, "capacity", "there is no bucket")
		ended := bucketAnswer(t, admin, "DELETE", nameOf(t), client)
		require.Equal(t, true, ended["penaltyEnded"])
		require.Equal(t, false, ended["deleted"])
		limit, _ := refusedBy(handler, anyRequest())
		require.Equal(t, "tenants", limit)
	})
}

// The page looks up what a row of the list shows: each limit of the list is one that it offers.
func TestBuckets_theStatusOffersThePenalty(t *testing.T) {
	newProcess(t, 0)
	newGateway(t, penalised(nil, RateLimitConfig{Capacity: "2"}))
	w := ask(console(t), asking{path: "/resilience/status"})
	require.Contains(t, w.Body.String(), `"limits":["default","penalty"]`)
	require.Equal(t, 1, strings.Count(w.Body.String(), `"penalty"`))
}
