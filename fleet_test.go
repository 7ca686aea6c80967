package resilience

import (
	"net/http"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestLimit_isExactUnderContention(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("70"), CircuitBreaker: failures("1")})
		l := newLoad()
		l.start(handler, 50, 4)
		require.Equal(t, map[int]int{200: 70, 429: 130}, l.wait())
		require.Equal(t, 70, up.count())
	})
}

// gateways returns two middlewares with one configuration in two processes, which share nothing but Redis.
func gateways(t *testing.T, config *Config) (one, two http.Handler, first, second *upstream) {
	newProcess(t, 0)
	one, first = newGateway(t, config)
	newProcess(t, 0)
	two, second = newGateway(t, config)
	return one, two, first, second
}

func TestFleet_sharesOneLimit(t *testing.T) {
	server := redistest.Start(t)
	one, two, first, second := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("50"), CircuitBreaker: failures("1")})
	l := newLoad()
	l.start(one, 10, 10)
	l.start(two, 10, 10)
	require.Equal(t, map[int]int{200: 50, 429: 150}, l.wait())
	require.Equal(t, 50, first.count()+second.count())
}

func TestFleet_sharesOneCircuit(t *testing.T) {
	server := redistest.Start(t)
	one, two, first, second := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("50"), CircuitBreaker: failures("3")})
	require.Equal(t, 200, get(two))
	first.will(status(500))
	require.Equal(t, []int{500, 500, 500, 503}, statuses(one, 4))
	advance(100 * time.Millisecond) // an idle gateway asks Redis again by then
	require.Equal(t, 503, get(two), "a circuit that one gateway opens is open for all")
	require.Equal(t, 1, second.count())
}
