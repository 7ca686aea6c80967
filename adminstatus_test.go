package resilience

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// shopIn returns what a status shows of the only middleware.
func shopIn(t *testing.T, admin http.Handler) map[string]interface{} {
	all := statusIn(t, admin)["middlewares"].([]interface{})
	require.Len(t, all, 1)
	return all[0].(map[string]interface{})
}

func TestStatus_countsGrantsAndLeases(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, limits := range []map[string]*LimitConfig{nil, {"more": {Capacity: "1000"}}} {
			newProcess(t, 0)
			handler, _ := newGateway(t, &Config{Name: nameOf(t), Redis: redis, RateLimit: &RateLimitConfig{Capacity: "1000", RefillRate: "1", RefillPeriod: "1h", Limits: limits}})
			admin := console(t)
			require.Equal(t, 0.0, shopIn(t, admin)["leases"])
			for i := 0; i < 10; i++ {
				require.Equal(t, 200, getAs(handler, "192.0.2."+strconv.Itoa(i%5)))
			}
			require.Equal(t, 5.0, shopIn(t, admin)["leases"])
		}
	})
}

func TestStatus_showsTheCircuit(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Name: nameOf(t), Redis: redis, CircuitBreaker: failures("2")})
		admin := console(t)
		circuit := shopIn(t, admin)["circuit"].(map[string]interface{})
		require.Equal(t, "closed", circuit["state"])
		require.Empty(t, circuit["recent"])
		up.will(status(500))
		statuses(handler, 2)
		waitFor(t, func() bool { return get(handler) == 503 })
		circuit = shopIn(t, admin)["circuit"].(map[string]interface{})
		require.Equal(t, "open", circuit["state"])
		recent := circuit["recent"].([]interface{})
		require.Len(t, recent, 1)
		change := recent[0].(map[string]interface{})
		require.Equal(t, "closed", change["from"])
		require.Equal(t, "open", change["to"])
		require.InDelta(t, 3600, circuit["gateway"].(map[string]interface{})["secondsUntilProbe"].(float64), 60)
		shared, found := circuit["redis"].(map[string]interface{})
		require.Equal(t, redis != nil, found)
		if found {
			require.Equal(t, "open", shared["state"])
		}
	})
}

func TestStatus_showsTheStore(t *testing.T) {
	newProcess(t, 0)
	server := redistest.Start(t)
	handler, _ := newGateway(t, &Config{Name: "shop", Redis: at(server.Addr()), RateLimit: tokens("1000")})
	admin := console(t)
	require.Equal(t, 200, get(handler))
	redis := shopIn(t, admin)["redis"].(map[string]interface{})
	require.Equal(t, server.Addr(), redis["address"])
	require.Equal(t, true, redis["up"])
	require.Greater(t, redis["latencySeconds"], 0.0)
	server.Kill()
	get(handler)
	require.Equal(t, false, shopIn(t, admin)["redis"].(map[string]interface{})["up"])
}

func TestStatus_showsTheClientsRefusedMost(t *testing.T) {
	newProcess(t, 0)
	const secret = "an-api-key-5f3a9c"
	byKey, _ := newGateway(t, &Config{Name: "shop", RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1h",
		SourceCriterion: &SourceCriterionConfig{RequestHeaderName: "X-Api-Key"}}})
	admin := console(t)
	for i := 0; i < 8; i++ {
		ask(byKey, asking{path: "/", header: map[string]string{"X-Api-Key": secret}})
	}
	gatewayClock.advance(1500 * time.Millisecond)
	for i := 0; i < 3; i++ {
		ask(byKey, asking{path: "/", header: map[string]string{"X-Api-Key": secret}})
	}
	w := ask(admin, asking{path: "/resilience/status"})
	require.NotContains(t, w.Body.String(), secret)
	most := shopIn(t, admin)["mostRefused"].([]interface{})
	require.Len(t, most, 1)
	client := most[0].(map[string]interface{})
	require.Equal(t, identity.Hashed("header:"+secret), client["key"])
	require.GreaterOrEqual(t, client["refused"], 8.0)
	require.LessOrEqual(t, client["refused"], 10.0)

	// The key that is shown finds the bucket.
	bucket := ask(admin, asking{path: "/resilience/buckets/" + client["key"].(string)})
	require.Equal(t, 200, bucket.Code, bucket.Body.String())
	require.Contains(t, bucket.Body.String(), `"limited":true`)
	require.NotContains(t, bucket.Body.String(), secret)
}

func TestTopClients_areBounded(t *testing.T) {
	c := newTopClients()
	for i := 0; i < 2000; i++ {
		c.add("ip:"+strconv.Itoa(i), "default", 1, 0)
		c.add("ip:often", "default", 2, 0)
		require.LessOrEqual(t, len(c.present), maxTopClients)
	}
	most := mostOf(c.copies(1), 3)
	require.Len(t, most, 3)
	require.Equal(t, "ip:often", most[0].key)
	require.Equal(t, int64(4000), most[0].count)
	require.Equal(t, "ip:often", mostOf(c.copies(topPeriod+1), 3)[0].key, "in the period before")
	require.Empty(t, mostOf(c.copies(3*topPeriod), 3))
}

func TestBuckets_ofAllLimits(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		limits := map[string]*LimitConfig{
			"together": {Capacity: "50"},
			"logins":   {Capacity: "2", Match: &MatchConfig{Paths: []string{"/login"}}},
			"everyone": {Capacity: "60", SourceCriterion: &SourceCriterionConfig{All: "true"}},
		}
		handler, _ := newGateway(t, &Config{Name: nameOf(t), Redis: redis, RateLimit: &RateLimitConfig{Capacity: "10", RefillRate: "1", RefillPeriod: "1h", Limits: limits}})
		admin := console(t)
		for i := 0; i < 3; i++ {
			send(handler, "GET", "/login")
		}
		get(handler)
		for _, row := range []struct {
			limit                   string
			capacity, tokens, taken int
		}{{"", 10, 7, 3}, {"default", 10, 7, 3}, {"together", 50, 47, 3}, {"logins", 2, 0, 2}, {"everyone", 60, 57, 3}} {
			w := ask(admin, asking{path: "/resilience/buckets/ip:192.0.2.1?limit=" + row.limit})
			require.Equal(t, 200, w.Code, w.Body.String())
			require.Contains(t, w.Body.String(), `"capacity":`+strconv.Itoa(row.capacity)+`,`)
			require.Contains(t, w.Body.String(), `"tokens":`+strconv.Itoa(row.tokens), row.limit)
		}
		other := ask(admin, asking{path: "/resilience/buckets/ip:198.51.100.1"})
		require.Contains(t, other.Body.String(), `"tokens":10`)
		require.Contains(t, other.Body.String(), `"stored":false`)
	})
}

func TestBuckets_aDeletedOneLetsTheClientIn(t *testing.T) {
	for _, limits := range []map[string]*LimitConfig{nil, {"more": {Capacity: "100"}}} {
		limits := limits
		forEachStore(t, func(t *testing.T, redis *RedisConfig) {
			handler, _ := newGateway(t, &Config{Name: nameOf(t), Redis: redis, RateLimit: &RateLimitConfig{Capacity: "3", RefillRate: "1", RefillPeriod: "1h", Limits: limits}})
			admin := console(t)
			require.Equal(t, []int{200, 200, 200, 429, 429}, statuses(handler, 5))
			remove := asking{method: "DELETE", path: "/resilience/buckets/ip:192.0.2.1?reason=a+mistake", header: map[string]string{"X-Resilience": "1"}}
			require.Equal(t, 200, ask(admin, remove).Code)
			require.Equal(t, []int{200, 200, 200, 429}, statuses(handler, 4))
		})
	}
}

func TestBuckets_refuseWhatOtherSitesCanSend(t *testing.T) {
	newProcess(t, 0)
	newGateway(t, &Config{Name: "shop", RateLimit: tokens("3")})
	admin := console(t)
	for _, row := range []struct {
		name   string
		header map[string]string
		status int
	}{
		{"no header", nil, 403},
		{"a form", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 403},
		{"a text", map[string]string{"Content-Type": "text/plain"}, 403},
		{"another site", map[string]string{"X-Resilience": "1", "Origin": "https://evil.example"}, 403},
		{"another site, as the browser says", map[string]string{"X-Resilience": "1", "Sec-Fetch-Site": "cross-site"}, 403},
		{"a frame", map[string]string{"X-Resilience": "1", "Origin": "null"}, 403},
		{"the page", map[string]string{"X-Resilience": "1", "Origin": "http://example.com", "Sec-Fetch-Site": "same-origin"}, 200},
		{"a program", map[string]string{"Content-Type": "application/json; charset=utf-8"}, 200},
	} {
		w := ask(admin, asking{method: "DELETE", path: "/resilience/buckets/ip:192.0.2.1", header: row.header})
		require.Equal(t, row.status, w.Code, row.name)
	}
	require.Equal(t, 405, ask(admin, asking{method: "POST", path: "/resilience/buckets/ip:192.0.2.1", header: map[string]string{"X-Resilience": "1"}}).Code)
}

func TestBuckets_wrongLookups(t *testing.T) {
	newProcess(t, 0)
	admin := console(t)
	require.Equal(t, 404, ask(admin, asking{path: "/resilience/buckets/ip:192.0.2.1"}).Code, "there is no middleware")
	newGateway(t, &Config{Name: "shop", RateLimit: tokens("3")})
	newGateway(t, &Config{Name: "blog", RateLimit: tokens("3")})
	newGateway(t, &Config{Name: "open", CircuitBreaker: failures("3")})
	long := "/resilience/buckets/ip:" + string(bytes.Repeat([]byte("x"), 300))
	for _, row := range []struct {
		path   string
		status int
	}{
		{"/resilience/buckets/ip:192.0.2.1", 404},
		{"/resilience/buckets/ip:192.0.2.1?middleware=nobody", 404},
		{"/resilience/buckets/ip:192.0.2.1?middleware=shop&limit=none", 404},
		{"/resilience/buckets/ip:192.0.2.1?middleware=open", 404},
		{"/resilience/buckets/192.0.2.1?middleware=shop", 400},
		{"/resilience/buckets/:x?middleware=shop", 400},
		{"/resilience/buckets/?middleware=shop", 400},
		{long + "?middleware=shop", 400},
		{"/resilience/buckets/path:/a/../b%2Fc?middleware=shop", 200},
		{"/resilience/buckets/ip:192.0.2.1?middleware=blog", 200},
	} {
		r := httptest.NewRequest("GET", row.path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		require.Equal(t, row.status, w.Code, row.path)
	}
}

func TestBuckets_aReasonIsOnlyText(t *testing.T) {
	require.Equal(t, "a b  \"level\":\"error\" x", plainText("a b\r\n\"level\":\"error\"\u2028x"))
	require.Len(t, plainText(string(bytes.Repeat([]byte("ä"), 300))), 200)
}
