package resilience

import (
	"net/http"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRoundTrips_ofOneRequest(t *testing.T) {
	both := Config{RateLimit: tokens("90"), CircuitBreaker: failures("2")}
	probing := Config{CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "2", ResetTimeout: "1h", HalfOpenSuccessThreshold: "2"}}
	none := func(handler http.Handler, up *upstream, redis *RedisConfig) {}
	opens := func(handler http.Handler, up *upstream, redis *RedisConfig) {
		up.will(status(500))
		statuses(handler, 2)
		up.will(nil)
	}
	opensAndProbes := func(handler http.Handler, up *upstream, redis *RedisConfig) {
		opens(handler, up, redis)
		elapse(t, redis, time.Hour)
		require.Equal(t, 200, get(handler))
	}
	for _, row := range []struct {
		name   string
		config Config
		before func(handler http.Handler, up *upstream, redis *RedisConfig)
		sent   int64
	}{
		{"a token", Config{RateLimit: tokens("90")}, none, 1},
		{"a token, and the view with it", both, none, 1},
		{"the view", Config{CircuitBreaker: failures("2")}, none, 1},
		{"an open circuit", both, opens, 0},
		{"a probe: its permit and its report", probing, opensAndProbes, 2},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			relay := redistest.NewRelay(t, redistest.Start(t))
			redis := at(relay.Addr())
			row.config.Redis = redis
			handler, up := newGateway(t, &row.config)
			get(handler) // Redis has the scripts now
			row.before(handler, up, redis)
			advance(110 * time.Millisecond) // the view is too old
			before := relay.Sent()
			get(handler)
			sent := relay.Sent() - before
			for tries := 0; row.sent == 0 && sent != 0 && tries < 5; tries++ { // the view of an open circuit is refreshed in the background
				before = relay.Sent()
				get(handler)
				sent = relay.Sent() - before
			}
			require.Equal(t, row.sent, sent)
		})
	}
}

// With a lease most requests do not ask Redis. Their outcomes count all the same.
func TestRoundTrips_areSavedByALease(t *testing.T) {
	newProcess(t, 0)
	relay := redistest.NewRelay(t, redistest.Start(t))
	handler, up := newGateway(t, &Config{Redis: at(relay.Addr()), RateLimit: tokens("100000"), CircuitBreaker: failures("3")})
	for i := 0; i < 200; i++ {
		require.Equal(t, 200, get(handler))
	}
	before := relay.Sent()
	for i := 0; i < 200; i++ {
		require.Equal(t, 200, get(handler))
	}
	require.Less(t, relay.Sent()-before, int64(100))

	up.will(status(500))
	require.Equal(t, []int{500, 500, 500, 503, 503}, statuses(handler, 5))
}
