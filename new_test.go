package resilience

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNew_rejectsInvalidConfiguration(t *testing.T) {
	up := &upstream{}
	for _, row := range []struct {
		name    string
		next    http.Handler
		config  *Config
		problem string
	}{
		{"no next handler", nil, CreateConfig(), "resilience: there is no next handler"},
		{"a wrong value", up, &Config{RateLimit: &RateLimitConfig{Capacity: "many"}},
			`rateLimit.capacity: "many" is not a whole number from 1 to 1000000000`},
		{"several wrong values", up, &Config{Name: "a b", Redis: &RedisConfig{OnError: "panic"}},
			`2 problems: (1) name: "a b" is not a name of letters, digits and . _ @ -, at most 64` +
				` (2) redis.onError: "panic" is not one of local, allow and deny`},
		{"an unknown key", up, &Config{Unknown: map[string]interface{}{"ratelimit": "1"}},
			`ratelimit: there is no such key; did you mean "rateLimit"?`},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			processes := newProcess(t, time.Hour)
			handler, err := New(context.Background(), row.next, row.config, "gateway@file")

			require.EqualError(t, err, row.problem)
			require.True(t, handler == nil)
			require.Len(t, processes.engines, 0)
		})
	}
}

// The plugin catalogue does this with the values of .traefik.yml, where no Redis is reachable.
func TestNew_acceptsTheCatalogTestData(t *testing.T) {
	newProcess(t, 0)
	config := CreateConfig()
	config.Redis = &RedisConfig{Address: "redis:6379", PasswordEnv: "REDIS_PASSWORD"}
	config.RateLimit = &RateLimitConfig{Capacity: "100", RefillRate: "10"}
	config.CircuitBreaker = &CircuitBreakerConfig{FailureThreshold: "5", ResetTimeout: "30s"}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begun := time.Now()
	handler, err := New(ctx, &upstream{}, config, "resilience")

	require.NoError(t, err)
	require.NotNil(t, handler)
	require.Less(t, time.Since(begun), time.Second)
}

// New does not wait for Redis: the first connection that the listener sees after New is the test's.
func TestNew_dialsNothing(t *testing.T) {
	newProcess(t, 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	clients := make(chan string, 100)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			clients <- c.RemoteAddr().String()
			c.Close()
		}
	}()
	config := &Config{Redis: at(listener.Addr().String()), RateLimit: tokens("5"), CircuitBreaker: failures("5")}

	handler, _ := newGateway(t, config)
	own, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer own.Close()
	first := <-clients
	require.Equal(t, own.LocalAddr().String(), first)
	require.Len(t, clients, 0)

	get(handler)
	require.NotEqual(t, 0, len(clients), "the first request dials")
}
