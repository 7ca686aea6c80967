package resilience

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

// The bucket holds 10 tokens and gets one each 2 seconds. Redis is asked for each of so few.
func TestRateHeaders_ofEachRequest(t *testing.T) {
	const admitted, limited = 200, 429
	steps := []struct {
		wait                     time.Duration
		status                   int
		rateLimit                string
		limit, remaining, resets string
	}{
		{0, admitted, `"default";r=2;t=2`, "3", "2", "2"},
		{0, admitted, `"default";r=1;t=2`, "3", "1", "4"},
		{0, admitted, `"default";r=0;t=2`, "3", "0", "6"},
		{0, limited, `"default";r=0;t=2`, "3", "0", "6"},
		{500 * time.Millisecond, limited, `"default";r=0;t=2`, "3", "0", "6"},
		{500 * time.Millisecond, limited, `"default";r=0;t=1`, "3", "0", "5"},
		{3 * time.Second, admitted, `"default";r=1;t=2`, "3", "1", "4"},
		{time.Minute, admitted, `"default";r=2;t=2`, "3", "2", "2"},
	}
	for _, which := range []string{"none", "ratelimit", "x-ratelimit", "both"} {
		for _, on := range []string{"", "always", "refused"} {
			for _, breaks := range []bool{false, true} {
				which, on, breaks := which, on, breaks
				t.Run(which+" "+on+" "+strconv.FormatBool(breaks), func(t *testing.T) {
					newProcess(t, 0)
					clock := newStoppedClock(t)
					config := &Config{RateLimit: &RateLimitConfig{
						Capacity: "3", RefillRate: "1", RefillPeriod: "2s", ResponseHeaders: which, ResponseHeadersOn: on}}
					if breaks {
						config.CircuitBreaker = failures("5")
					}
					handler, _ := newGateway(t, config)
					for i, step := range steps {
						clock.advance(step.wait)
						w := send(handler, "GET", "/")
						require.Equal(t, step.status, w.Code, i)
						want := http.Header{}
						if on != "refused" || step.status == limited {
							if which == "ratelimit" || which == "both" {
								want["Ratelimit-Policy"] = []string{`"default";q=3;w=6`}
								want["Ratelimit"] = []string{step.rateLimit}
							}
							if which == "x-ratelimit" || which == "both" {
								want["X-Ratelimit-Limit"] = []string{step.limit}
								want["X-Ratelimit-Remaining"] = []string{step.remaining}
								want["X-Ratelimit-Reset"] = []string{step.resets}
							}
						}
						got := http.Header{}
						for _, name := range []string{"Ratelimit-Policy", "Ratelimit", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
							if values := w.Result().Header[name]; values != nil {
								got[name] = values
							}
						}
						require.Equal(t, want, got, i)
					}
				})
			}
		}
	}
}

// Two gateways serve one client in turns. Whatever either says is left, there is at least as much: the tokens in Redis and the leases.
func TestRateHeaders_areNeverAboveTheTruth(t *testing.T) {
	redis := redistest.Start(t)
	for _, capacity := range []int{20, 400} {
		capacity := capacity
		t.Run(strconv.Itoa(capacity), func(t *testing.T) {
			var gateways []http.Handler
			for i := 0; i < 2; i++ {
				newProcess(t, 0)
				handler, _ := newGateway(t, &Config{Name: "fleet" + strconv.Itoa(capacity), Redis: at(redis.Addr()), RateLimit: &RateLimitConfig{
					Capacity: strconv.Itoa(capacity), RefillRate: "1", RefillPeriod: "1h", ResponseHeaders: "x-ratelimit"}})
				gateways = append(gateways, handler)
			}
			known := 0
			for n := 1; n <= capacity*3/4; n++ {
				w := send(gateways[n%7%2], "GET", "/")
				require.Equal(t, 200, w.Code, n)
				left, err := strconv.Atoi(w.Header().Get("X-RateLimit-Remaining"))
				require.NoError(t, err)
				require.LessOrEqual(t, left, capacity-n, "after %d requests", n)
				if left == capacity-n {
					known++
				}
			}
			require.Greater(t, known, 0, "some are exact")
			if capacity == 20 {
				require.Equal(t, 15, known, "where there are no leases, all are")
			}
		})
	}
}

// A gateway reports the tokens that it holds itself, up to a number. The first request with a number takes the slow path, which prepares the
// values for the requests that follow.
func TestRateHeaders_ofTheTokensThatAGatewayHolds(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		newProcess(t, 0)
		newStoppedClock(t)
		config := &Config{RateLimit: &RateLimitConfig{Capacity: "1000000", RefillRate: "1000", ResponseHeaders: "both"}}
		if breaks {
			config.CircuitBreaker = failures("5")
		}
		m, _ := newInstance(t, config)
		m.setChecks(false)
		for _, row := range []struct {
			tokens            int64
			remaining, resets string
		}{
			{1, "0", "1000"},
			{2, "1", "1000"},
			{1001, "1000", "999"},
			{4097, "4096", "996"},
			{4098, "4096", "996"},
			{100000, "4096", "996"},
		} {
			for _, path := range []string{"slow", "fast"} {
				now := m.now()
				g := &ratelimit.Grant{Tokens: row.tokens, Until: now + 1000000}
				m.mu.Lock()
				m.cache.Grants["192.0.2.1:1234"] = g
				m.mu.Unlock()
				w := send(m.handler, "GET", "/")
				require.Equal(t, 200, w.Code)
				require.Equal(t, row.tokens-1, g.Tokens)
				require.Equal(t, row.remaining, w.Header().Get("X-RateLimit-Remaining"), "%s, %d", path, row.tokens)
				require.Equal(t, row.resets, w.Header().Get("X-RateLimit-Reset"), "%s, %d", path, row.tokens)
				require.Equal(t, `"default";r=`+row.remaining+";t=1", w.Header().Get("RateLimit"), "%s, %d", path, row.tokens)
			}
		}
	}
}

// A gateway that decides without Redis tells what it knows.
func TestRateHeaders_withoutRedis(t *testing.T) {
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
			limit := tokens("3")
			limit.ResponseHeaders = "both"
			handler, _ := newGateway(t, &Config{Redis: &RedisConfig{Address: closedPort, OnError: row.onError}, RateLimit: limit})
			for i, want := range row.want {
				require.Equal(t, want, send(handler, "GET", "/").Header().Get("X-RateLimit-Remaining"), i)
			}
		})
	}
}
