package resilience

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// force changes a circuit through admin. what is its name and what is done, and a query.
func force(admin http.Handler, what string) int {
	return ask(admin, asking{method: "POST", path: "/resilience/circuits/" + what, header: map[string]string{"X-Resilience": "1"}}).Code
}

// forcedIn returns what the status shows of a circuit that was made by hand; nil: it was not.
func forcedIn(t *testing.T, admin http.Handler) map[string]interface{} {
	forced, _ := shopIn(t, admin)["circuit"].(map[string]interface{})["forced"].(map[string]interface{})
	return forced
}

// What an operator does on one gateway holds on the other within 100 ms, for one that starts later, and until it ends by itself.
func TestForced_openHoldsForTheFleet(t *testing.T) {
	server := redistest.Start(t)
	redis := at(server.Addr())
	config := &Config{Name: "shop", Redis: redis, RateLimit: tokens("100000"), CircuitBreaker: rules(func(c *CircuitBreakerConfig) {
		c.HalfOpenSuccessThreshold = "1"
	})}
	newProcess(t, 0)
	one, _ := newGateway(t, config)
	adminOfOne := console(t)
	newProcess(t, 0)
	two, second := newGateway(t, config)
	adminOfTwo := console(t)
	require.Equal(t, []int{200, 200}, []int{get(one), get(two)})

	require.Equal(t, 200, force(adminOfOne, "shop/open?for=10m&reason=a+repair"))
	require.Equal(t, 503, get(one))
	advance(100 * time.Millisecond)
	w := send(two, "GET", "/")
	require.Equal(t, 503, w.Code)
	require.Equal(t, "600", w.Header().Get("Retry-After"))
	require.Equal(t, 1, second.count())
	for _, admin := range []http.Handler{adminOfOne, adminOfTwo} {
		forced := forcedIn(t, admin)
		require.Equal(t, "open", forced["state"])
		require.Equal(t, "a repair", forced["reason"])
		require.InDelta(t, 600, forced["secondsLeft"], 10)
		require.NotEmpty(t, forced["until"])
	}

	newProcess(t, 0) // a restart
	restarted, _ := newGateway(t, config)
	adminOfRestarted := console(t)
	require.Equal(t, 503, get(restarted))
	require.Equal(t, "a repair", forcedIn(t, adminOfRestarted)["reason"])

	elapse(t, redis, 10*time.Minute)
	waitFor(t, func() bool { return get(two) == 200 }, "the first request is a probe, which closes it")
	require.Nil(t, forcedIn(t, adminOfOne))
	waitFor(t, func() bool { return get(one) == 200 })
}

func TestForced_closedHoldsForTheFleet(t *testing.T) {
	server := redistest.Start(t)
	config := &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: failures("1")}
	newProcess(t, 0)
	one, up := newGateway(t, config)
	admin := console(t)
	newProcess(t, 0)
	two, other := newGateway(t, config)
	up.will(status(500))
	other.will(status(500))
	require.Equal(t, []int{500, 503}, statuses(one, 2))
	require.Equal(t, 503, get(two))
	require.Equal(t, 200, force(admin, "shop/close?for=1h"))
	waitFor(t, func() bool { return get(two) == 500 })
	require.Equal(t, []int{500, 500, 500}, statuses(one, 3), "whatever fails")
	require.Equal(t, "closed", forcedIn(t, admin)["state"])
	require.Equal(t, 200, force(admin, "shop/auto"))
	require.Nil(t, forcedIn(t, admin))
	require.Equal(t, 500, get(one))
	waitFor(t, func() bool { return get(one) == 503 }, "failures count again")
}

// A gateway's own circuit does not refuse what an operator lets in, and is closed like the fleet's.
func TestForced_closedHoldsForTheOwnCircuits(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	config := failures("1")
	config.MinGateways = "2"
	handler, up := newGateway(t, &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: config})
	admin := console(t)
	up.will(status(500))
	require.Equal(t, []int{500, 503}, statuses(handler, 2))
	require.Equal(t, 200, force(admin, "shop/close?for=1h"))
	require.Equal(t, []int{500, 500, 500}, statuses(handler, 3))
	require.Equal(t, 200, force(admin, "shop/auto"))
	require.Equal(t, []int{500, 503}, statuses(handler, 2), "failures count again")
}

func TestForced_withoutRedis(t *testing.T) {
	newProcess(t, 0)
	handler, _ := newGateway(t, &Config{Name: "shop", CircuitBreaker: failures("1")})
	admin := console(t)
	require.Equal(t, 200, force(admin, "shop/open?reason=here+alone"))
	require.Equal(t, 503, get(handler))
	require.Equal(t, "here alone", forcedIn(t, admin)["reason"])
	require.InDelta(t, 600, forcedIn(t, admin)["secondsLeft"], 5, "ten minutes, unless the request says for")
	require.Equal(t, 200, force(admin, "shop/auto"))
	require.Equal(t, 200, get(handler))
}

func TestForced_whileRedisIsUnavailable(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, _ := newGateway(t, &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: failures("1")})
	admin := console(t)
	require.Equal(t, 200, get(handler))
	server.Kill()
	require.Equal(t, 503, force(admin, "shop/open"), "it would not hold for the fleet")
	require.Equal(t, 200, get(handler))
}

func TestForced_aKeyWithForeignData(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	newGateway(t, &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: failures("1")})
	admin := console(t)
	server.Do("RPUSH", "resilience:{shop}:breaker", "theirs")
	require.Equal(t, 409, force(admin, "shop/open"))
}

func TestForced_refusesWhatOtherSitesCanSend(t *testing.T) {
	newProcess(t, 0)
	handler, _ := newGateway(t, &Config{Name: "shop", CircuitBreaker: failures("1")})
	admin := console(t)
	for _, row := range []struct {
		name   string
		method string
		header map[string]string
		status int
	}{
		{"no header", "POST", nil, 403},
		{"a form", "POST", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 403},
		{"another site", "POST", map[string]string{"X-Resilience": "1", "Origin": "https://evil.example"}, 403},
		{"another site, as the browser says", "POST", map[string]string{"X-Resilience": "1", "Sec-Fetch-Site": "cross-site"}, 403},
		{"GET", "GET", map[string]string{"X-Resilience": "1"}, 405},
		{"HEAD", "HEAD", map[string]string{"X-Resilience": "1"}, 405},
		{"PUT", "PUT", map[string]string{"X-Resilience": "1"}, 405},
		{"DELETE", "DELETE", map[string]string{"X-Resilience": "1"}, 405},
	} {
		w := ask(admin, asking{method: row.method, path: "/resilience/circuits/shop/open", header: row.header})
		require.Equal(t, row.status, w.Code, row.name)
		if row.status == 405 {
			require.Equal(t, "POST", w.Header().Get("Allow"), row.name)
		}
	}
	require.Equal(t, 200, get(handler))
	w := ask(admin, asking{method: "POST", path: "/resilience/circuits/shop/open", header: map[string]string{"Content-Type": "application/json"}})
	require.Equal(t, 200, w.Code, "a program")
	require.Equal(t, 503, get(handler))
}

func TestForced_whatIsRefused(t *testing.T) {
	newProcess(t, 0)
	admin := console(t)
	newGateway(t, &Config{Name: "shop", CircuitBreaker: failures("1")})
	newGateway(t, &Config{Name: "limits", RateLimit: tokens("1")})
	for _, row := range []struct {
		what   string
		status int
	}{
		{"nobody/open", 404}, {"limits/open", 404}, {"shop/explode", 404}, {"shop/", 404}, {"shop", 404}, {"/open", 404}, {"", 404},
		{strings.Repeat("x", 300) + "/open", 404}, {"shop/open?scope=here", 404},
		{"shop/open?for=10", 400}, {"shop/open?for=999ms", 400}, {"shop/open?for=-1m", 400}, {"shop/open?for=721h", 400}, {"shop/open?for=forever", 400},
		{"shop/open?for=1s", 200}, {"shop/close?for=720h", 200}, {"shop/auto", 200}, {"shop/auto", 200},
	} {
		require.Equal(t, row.status, force(admin, row.what), row.what)
	}
}

// A name of Traefik may hold slashes, and one of the configuration @, written as they are or encoded.
func TestForced_names(t *testing.T) {
	for _, row := range []struct{ configured, ofTraefik, name string }{
		{"shop@file", "", "shop@file"}, {"", "team/shop@kubernetescrd", "team/shop"}, {"", "a/open@file", "a/open"}, {"open", "", "open"},
		{"", "shop{way}@file", "shop{way}"},
	} {
		newProcess(t, 0)
		name := row.name
		ctx, cancel := context.WithCancel(context.Background())
		handler, err := New(ctx, &upstream{}, &Config{Name: row.configured, CircuitBreaker: failures("1")}, row.ofTraefik)
		require.NoError(t, err)
		admin := console(t)
		require.Equal(t, 200, force(admin, strings.NewReplacer("{", "%7B", "}", "%7D").Replace(name)+"/open"), name)
		require.Equal(t, 503, get(handler), name)
		require.Equal(t, 200, force(admin, url.PathEscape(name)+"/auto"), name)
		require.Equal(t, 200, get(handler), name)
		cancel()
	}
}

// A reason is only text, in the log, in Redis, and in the status.
func TestForced_aReasonIsOnlyText(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	log := captureLog(t)
	newGateway(t, &Config{Name: "shop", Redis: at(server.Addr()), CircuitBreaker: failures("1")})
	admin := console(t)
	reason := "x\r\n{\"level\":\"error\"}\x00" + string(bytes.Repeat([]byte("ä"), 300))
	require.Equal(t, 200, force(admin, "shop/open?for=1h&reason="+url.QueryEscape(reason)))
	shown := forcedIn(t, admin)["reason"].(string)
	require.Regexp(t, `^x  \{"level":"error"\} ä+$`, shown)
	require.LessOrEqual(t, len(shown), 200)
	require.Equal(t, shown, server.Hash("resilience:{shop}:breaker")["reason"])
	log.eventually(t, 1, `"message":"circuit opened by hand"`)
	log.eventually(t, 1, `"source":"127.0.0.1:1234"`)
	require.Equal(t, 0, log.count(`"level":"error"`))

	server.Do("HSET", "resilience:{shop}:breaker", "reason", "theirs\r\nalso\x01")
	require.Equal(t, "theirs  also ", forcedIn(t, admin)["reason"])
	require.Equal(t, 200, force(admin, "shop/close?reason=done"))
	log.eventually(t, 1, `"message":"circuit closed by hand"`)
	require.Equal(t, "done", forcedIn(t, admin)["reason"])
	require.Equal(t, 200, force(admin, "shop/auto"))
	log.eventually(t, 1, `"message":"circuit left to itself again"`)
}
