package resilience

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// A process keeps its state across a reload, whether Redis is unavailable or not configured.
func TestRegistry_keepsStateAcrossReload(t *testing.T) {
	for _, row := range []struct {
		name  string
		redis *RedisConfig
	}{{"without Redis", nil}, {"while Redis is unavailable", at(closedPort)}} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, time.Hour)
			limits := &Config{Name: "limits", Redis: row.redis, RateLimit: tokens("2")}
			breaks := &Config{Name: "breaks", Redis: row.redis, CircuitBreaker: failures("2")}
			up := &upstream{}
			ctx, reload := context.WithCancel(context.Background())
			limiter, breaker := newHandler(t, ctx, up, limits), newHandler(t, ctx, up, breaks)
			require.Equal(t, 200, get(limiter))
			require.Equal(t, 200, get(limiter))
			require.Equal(t, 429, get(limiter))
			up.will(status(500))
			require.Equal(t, 500, get(breaker))

			reload()
			require.Equal(t, 429, get(limiter), "the previous handlers answer until the new ones are there")
			require.Equal(t, 500, get(breaker))
			limiter, _ = newGateway(t, limits)
			breaker, _ = newGateway(t, breaks)
			require.Equal(t, 429, get(limiter))
			require.Equal(t, 503, get(breaker))
		})
	}
}

func TestRegistry_reloadAppliesNewLimits(t *testing.T) {
	newProcess(t, time.Hour)
	ctx, reload := context.WithCancel(context.Background())
	up := &upstream{}
	before := newHandler(t, ctx, up, &Config{RateLimit: tokens("100")})
	require.Equal(t, 200, get(before))
	reload()
	after, _ := newGateway(t, &Config{RateLimit: tokens("2")})
	require.Equal(t, []int{200, 200, 429}, statuses(after, 3), "a lower capacity cuts the bucket")
	require.Equal(t, 429, get(before), "both draw on one bucket")
}

// A stream may continue for hours after the reload that removed its middleware.
func TestRegistry_countsARequestThatOutlivesItsHandler(t *testing.T) {
	server := redistest.Start(t)
	processes := newProcess(t, 0)
	ctx, end := context.WithCancel(context.Background())
	up := &upstream{}
	handler := newHandler(t, ctx, up, &Config{Redis: at(server.Addr()), CircuitBreaker: failures("1")})
	begun, finish := make(chan bool), make(chan bool)
	up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-finish
		w.WriteHeader(502)
	}))
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		get(handler)
	}()
	<-begun
	end()
	waitFor(t, isEmpty(processes))
	finish <- true
	done.Wait()
	require.Equal(t, "open", server.Hash(breakerOf(t))["state"])
	waitFor(t, func() bool { return connections(server) == 0 })
}

func TestRegistry_manyReloadsLeakNothing(t *testing.T) {
	const reloads, routers = 200, 3
	for _, grace := range []time.Duration{time.Hour, time.Millisecond} {
		grace := grace
		t.Run("grace "+grace.String(), func(t *testing.T) {
			server := redistest.Start(t)
			processes := newProcess(t, grace)
			config := &Config{Redis: at(server.Addr()), RateLimit: tokens("100000"), CircuitBreaker: failures("5")}
			before := runtime.NumGoroutine()
			var end func()
			for i := 0; i < reloads; i++ {
				if end != nil {
					end()
				}
				ctx, cancel := context.WithCancel(context.Background())
				end = cancel
				for router := 0; router < routers; router++ {
					require.Equal(t, 200, get(newHandler(t, ctx, &upstream{}, config)))
				}
			}
			defer end()
			require.Equal(t, []int{1, 1}, sizesOf(processes))
			require.Len(t, only(processes).handlers, routers)
			require.LessOrEqual(t, connections(server), 5)
			waitFor(t, func() bool { return runtime.NumGoroutine() < before+20 })
		})
	}
}

// router is a handler that a reload replaces, as Traefik does with its routers.
type router struct {
	mu      sync.Mutex
	handler http.Handler
}

func (r *router) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	handler := r.handler
	r.mu.Unlock()
	handler.ServeHTTP(w, request)
}

func (r *router) set(handler http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler = handler
}

func TestRegistry_reloadsUnderLoadMintNoTokens(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		newProcess(t, time.Hour)
		config := &Config{Redis: redis, RateLimit: tokens("90"), CircuitBreaker: failures("5")}
		ctx, end := context.WithCancel(context.Background())
		up := &upstream{}
		router := &router{handler: newHandler(t, ctx, up, config)}
		l := newLoad()
		l.start(router, 10, 40)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := 0; i < 30; i++ {
			<-pace.C
			end()
			ctx, end = context.WithCancel(context.Background())
			router.set(newHandler(t, ctx, up, config))
		}
		counts := l.wait()
		end()
		require.Equal(t, map[int]int{200: 90, 429: 310}, counts)
	})
}
