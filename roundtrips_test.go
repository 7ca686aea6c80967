package resilience

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRoundTrips_ofOneRequest(t *testing.T) {
	both := Config{RateLimit: tokens("90"), CircuitBreaker: failures("2")}
	none := func(handler http.Handler, up *upstream) {}
	opens := func(handler http.Handler, up *upstream) {
		up.will(status(500))
		get(handler)
		get(handler)
		up.will(nil)
	}
	opensAndProbes := func(handler http.Handler, up *upstream) {
		opens(handler, up)
		time.Sleep(5 * time.Millisecond)
		get(handler)
	}
	for _, row := range []struct {
		name   string
		config Config
		before func(handler http.Handler, up *upstream)
		sent   int64
	}{
		{"a token", Config{RateLimit: tokens("90")}, none, 1},
		{"a token, and a look at the breaker that is due", both, none, 1},
		{"a look at the breaker", Config{CircuitBreaker: failures("2")}, none, 1},
		{"an open circuit", both, opens, 0},
		{"a probe: its permit and its verdict", Config{CircuitBreaker: &CircuitBreakerConfig{
			FailureThreshold: "2", ResetTimeout: "1ms", HalfOpenSuccessThreshold: "2"}}, opensAndProbes, 2},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			counting := newRelay(t, redistest.Start(t))
			row.config.Redis = at(counting.addr)
			handler, up := newGateway(t, &row.config)
			get(handler) // from here on Redis knows the scripts
			row.before(handler, up)
			time.Sleep(110 * time.Millisecond) // and what the breaker has seen is too old
			before := atomic.LoadInt64(&counting.sent)
			get(handler)
			require.Equal(t, row.sent, atomic.LoadInt64(&counting.sent)-before)
		})
	}
}

// Where a bucket has plenty, most requests ask nobody; what they see of the upstream counts all the same.
func TestRoundTrips_areSavedByALease(t *testing.T) {
	newProcess(t, 0)
	counting := newRelay(t, redistest.Start(t))
	handler, up := newGateway(t, &Config{Redis: at(counting.addr), RateLimit: tokens("100000"), CircuitBreaker: failures("3")})
	for i := 0; i < 200; i++ {
		require.Equal(t, 200, get(handler))
	}
	before := atomic.LoadInt64(&counting.sent)
	for i := 0; i < 200; i++ {
		require.Equal(t, 200, get(handler))
	}
	require.Less(t, atomic.LoadInt64(&counting.sent)-before, int64(100))

	up.will(status(500))
	var got []int
	for i := 0; i < 5; i++ {
		got = append(got, get(handler))
	}
	require.Equal(t, []int{500, 500, 500, 503, 503}, got)
}
