package resilience

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// sizesOf returns how many engines and how many stores the registry holds.
func sizesOf(g *registry) []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return []int{len(g.engines), len(g.stores)}
}

func isEmpty(g *registry) func() bool {
	return func() bool {
		sizes := sizesOf(g)
		return sizes[0]+sizes[1] == 0
	}
}

// connections returns how many connections the server has, without the one that asks.
func connections(server *redistest.Server) int {
	return strings.Count(server.Text("CLIENT", "LIST"), "\n") - 1
}

// handlersOf returns how many handlers use the engines, including those in their grace period.
func handlersOf(g *registry) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, one := range g.engines {
		n += one.users
	}
	return n
}

// only returns the only engines of the registry.
func only(g *registry) *engines {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.engines {
		return one
	}
	return nil
}

func TestRegistry_sharesEnginesByNameAndStore(t *testing.T) {
	base := func() *Config {
		return &Config{
			Name:           "gateway",
			Redis:          &RedisConfig{Address: "redis:6379"},
			RateLimit:      tokens("10"),
			CircuitBreaker: failures("5"),
		}
	}
	for _, row := range []struct {
		name            string
		change          func(config *Config) // of the second of two
		engines, stores int
	}{
		{"nothing differs", func(config *Config) {}, 1, 1},
		{"other limits", func(config *Config) { config.RateLimit = tokens("20") }, 1, 1},
		{"a part less", func(config *Config) { config.CircuitBreaker = nil }, 1, 1},
		{"a part more", func(config *Config) { config.Health = &HealthConfig{} }, 1, 1},
		{"another onError", func(config *Config) { config.Redis.OnError = "deny" }, 1, 1},
		{"another name", func(config *Config) { config.Name = "other" }, 2, 1},
		{"another Redis", func(config *Config) { config.Redis.Address = "redis2:6379" }, 2, 2},
		{"another database", func(config *Config) { config.Redis.DB = "1" }, 2, 2},
		{"another password", func(config *Config) { config.Redis.Password = "s3cret" }, 2, 2},
		{"another timeout", func(config *Config) { config.Redis.Timeout = "1s" }, 2, 2},
		{"another prefix", func(config *Config) { config.Redis.KeyPrefix = "shop" }, 2, 2},
		{"no Redis", func(config *Config) { config.Redis = nil }, 2, 1},
		{"a Redis without an address", func(config *Config) { config.Redis.Address = "" }, 2, 1},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			processes := newProcess(t, time.Hour)
			newGateway(t, base())
			config := base()
			row.change(config)
			newGateway(t, config)
			require.Equal(t, []int{row.engines, row.stores}, sizesOf(processes))
		})
	}
}

func TestRegistry_sharesStateWithinTheProcess(t *testing.T) {
	config := func(name string, redis *RedisConfig) *Config {
		return &Config{Name: name, Redis: redis, RateLimit: tokens("3"), CircuitBreaker: failures("2")}
	}
	for _, row := range []struct {
		name, other string
		redis       *RedisConfig // of the other
		limited     int          // what the other answers when the first one's bucket is empty
		broken      int          // and when its circuit is open
	}{
		{"of one name", "gateway", nil, 429, 503},
		{"of one name, where Redis has no address", "gateway", &RedisConfig{DB: "1", Timeout: "1s"}, 429, 503},
		{"of two names", "other", nil, 200, 200},
	} {
		row := row
		t.Run("buckets of two middlewares "+row.name, func(t *testing.T) {
			newProcess(t, 0)
			one, _ := newGateway(t, config("gateway", nil))
			two, _ := newGateway(t, config(row.other, row.redis))
			require.Equal(t, []int{200, 200, 200}, statuses(one, 3))
			require.Equal(t, row.limited, get(two))
		})
		t.Run("circuits of two middlewares "+row.name, func(t *testing.T) {
			newProcess(t, 0)
			one, up := newGateway(t, config("gateway", nil))
			two, _ := newGateway(t, config(row.other, row.redis))
			up.will(status(500))
			require.Equal(t, []int{500, 500}, statuses(one, 2))
			require.Equal(t, row.broken, get(two))
		})
	}
}

func TestRegistry_closesEnginesAfterTheGracePeriod(t *testing.T) {
	const grace = 100 * time.Millisecond
	server := redistest.Start(t)
	processes := newProcess(t, grace)
	config := &Config{Redis: at(server.Addr()), RateLimit: tokens("10")}
	first, endFirst := context.WithCancel(context.Background())
	second, endSecond := context.WithCancel(context.Background())
	defer endSecond()
	one := newHandler(t, first, &upstream{}, config)
	two := newHandler(t, second, &upstream{}, config)
	other := newHandler(t, second, &upstream{}, &Config{Name: "other", Redis: config.Redis, RateLimit: tokens("10")})
	for _, handler := range []http.Handler{one, two, other} {
		require.Equal(t, 200, get(handler))
	}
	require.Equal(t, []int{2, 1}, sizesOf(processes))

	endFirst()
	waitFor(t, func() bool { return handlersOf(processes) == 2 })
	require.Equal(t, []int{2, 1}, sizesOf(processes), "another handler still uses them")

	require.Greater(t, connections(server), 0)

	ended := time.Now()
	endSecond()
	waitFor(t, isEmpty(processes))
	require.GreaterOrEqual(t, time.Since(ended), grace)
	haveEnded := func() bool { return connections(server) == 0 }
	waitFor(t, haveEnded)
	require.Equal(t, 200, get(one), "a handler that is still used answers")
	waitFor(t, haveEnded)
}

func TestRegistry_reusesEnginesWithinTheGracePeriod(t *testing.T) {
	processes := newProcess(t, time.Hour)
	config := &Config{RateLimit: tokens("1")}
	ctx, reload := context.WithCancel(context.Background())
	require.Equal(t, 200, get(newHandler(t, ctx, &upstream{}, config)))
	before := processes.latest
	reload()
	after, _ := newGateway(t, config)
	processes.release(before) // the grace period is over
	require.Equal(t, 1, handlersOf(processes))
	require.Equal(t, 429, get(after))
	require.Equal(t, []int{1, 0}, sizesOf(processes))
}

func TestRegistry_releasesTheHandlersOfAConfigurationTogether(t *testing.T) {
	g := newProcess(t, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	for i := 0; i < 50; i++ {
		newHandler(t, ctx, &upstream{}, &Config{Name: "name-" + strconv.Itoa(i%3), RateLimit: tokens("10")})
	}
	require.Len(t, g.latest.refs, 50)
	first := g.latest
	next, cancelNext := context.WithCancel(context.Background())
	defer cancelNext()
	newHandler(t, next, &upstream{}, &Config{Name: "name-0", RateLimit: tokens("10")})
	require.Len(t, g.latest.refs, 1, "the next configuration has its own set")

	cancel()
	g.release(first)
	require.Equal(t, []int{1, 0}, sizesOf(g), "what the next one uses stays open")
	newHandler(t, ctx, &upstream{}, &Config{Name: "late", RateLimit: tokens("10")})
	require.NotSame(t, first, g.latest, "a handler that is added late starts a new set")
}
