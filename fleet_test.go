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
		h := &load{counts: map[int]int{}}
		for i := 0; i < 50; i++ {
			h.done.Add(1)
			go h.send(handler, 4)
		}
		h.done.Wait()
		require.Equal(t, map[int]int{200: 70, 429: 130}, h.counts)
		require.Equal(t, 70, up.count())
	})
}

// gateways returns two middlewares of one configuration in two processes, with nothing in common but Redis.
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
	h := &load{counts: map[int]int{}}
	for i := 0; i < 10; i++ {
		h.done.Add(2)
		go h.send(one, 10)
		go h.send(two, 10)
	}
	h.done.Wait()
	require.Equal(t, map[int]int{200: 50, 429: 150}, h.counts)
	require.Equal(t, 50, first.count()+second.count())
}

func TestFleet_sharesOneCircuit(t *testing.T) {
	server := redistest.Start(t)
	one, two, first, second := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: tokens("50"), CircuitBreaker: failures("3")})
	require.Equal(t, 200, get(two))
	first.will(status(500))
	for i := 0; i < 3; i++ {
		require.Equal(t, 500, get(one))
	}
	require.Equal(t, 503, get(one))
	time.Sleep(100 * time.Millisecond)
	require.Equal(t, 503, get(two), "what one has seen fail, all stop sending")
	require.Equal(t, 1, second.count())
}
