package e2e

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// rooms is a service that answers as it is told by the first part of the path: with 200 where it is told nothing.
type rooms struct {
	*httptest.Server

	mu     sync.Mutex // guards what follows
	status map[string]int
	seen   map[string]int
}

func startRooms(t *testing.T) *rooms {
	s := &rooms{status: map[string]int{}, seen: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *rooms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	room := strings.Split(r.URL.Path, "/")[1]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[room]++
	if s.status[room] != 0 {
		w.WriteHeader(s.status[room])
	}
}

func (s *rooms) will(room string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status[room] = status
}

func (s *rooms) count(room string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[room]
}

// site is a dynamic configuration in the making.
type site struct {
	routers, middlewares, services block
	entryPoints                    map[string][]string // more of them, with their middlewares
	server                         *redistest.Server
	to                             block // a load balancer to the service
}

func newSite(server *redistest.Server, to *rooms) *site {
	s := &site{
		routers: block{}, middlewares: block{}, services: block{}, entryPoints: map[string][]string{}, server: server,
		to: block{"servers": []block{{"url": to.URL}}},
	}
	s.services["rooms"] = block{"loadBalancer": s.to}
	return s
}

// resilience adds a middleware of ours.
func (s *site) resilience(name string, plugin block) string {
	if plugin["redis"] == nil {
		plugin["redis"] = redisBlock(s.server)
	}
	return s.middleware(name, block{"plugin": block{"resilience": plugin}})
}

func (s *site) middleware(name string, what block) string {
	s.middlewares[name] = what
	return name
}

// route adds a router for a room.
func (s *site) route(room, service string, middlewares ...string) {
	s.routers[room] = block{
		"rule": "PathPrefix(`/" + room + "/`)", "entryPoints": []string{"web"}, "service": service, "middlewares": middlewares,
	}
}

// start starts a gateway. Where it is plain, Traefik's own writers do not tell a status.
func (s *site) start(t *testing.T, plain bool) (*traefik, map[string]string) {
	t.Helper()
	folder := t.TempDir()
	writeDynamic(t, folder, block{"health": block{}})
	http := block{"routers": s.routers, "middlewares": s.middlewares, "services": s.services}
	writeYAML(t, filepath.Join(folder, "site.yml"), block{"http": http})
	addresses := map[string]string{}
	for name := range s.entryPoints {
		addresses[name] = freeAddress(t)
	}
	return startTraefik(t, options{dynamic: folder, change: func(static map[string]any) {
		if plain {
			delete(static, "metrics")
			delete(static, "accessLog")
		}
		for name, middlewares := range s.entryPoints {
			gateway.Set(static, addresses[name], "entryPoints", name, "address")
			gateway.Set(static, middlewares, "entryPoints", name, "http", "middlewares")
		}
	}}), addresses
}

func bothWatches(t *testing.T, run func(t *testing.T, plain bool)) {
	for name, plain := range map[string]bool{"with metrics and access log": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, plain)
		})
	}
}

// ways are how a request comes to be on a way that names a middleware twice: each adds a router for a room.
var ways = []struct {
	name string
	add  func(s *site, room, middleware string)
}{
	{"entry-point", func(s *site, room, middleware string) {
		s.entryPoints[room] = []string{middleware + "@file"}
		s.route(room, "rooms", middleware)
		s.routers[room].(block)["entryPoints"] = []string{room}
	}},
	{"chains", func(s *site, room, middleware string) {
		chain := block{"chain": block{"middlewares": []string{middleware}}}
		s.route(room, "rooms", s.middleware(room+"-1", chain), s.middleware(room+"-2", chain))
	}},
	{"service", func(s *site, room, middleware string) {
		s.services[room] = block{"loadBalancer": s.to, "middlewares": []string{middleware}}
		s.route(room, room, middleware)
	}},
	{"weighted", func(s *site, room, middleware string) { // and one of its services only
		s.services[room+"-with"] = block{"loadBalancer": s.to, "middlewares": []string{middleware}}
		s.services[room] = block{"weighted": block{"services": []block{{"name": room + "-with", "weight": 1}, {"name": "rooms", "weight": 1}}}}
		s.route(room, room, middleware)
	}},
	{"errors", func(s *site, room, middleware string) { // in the service of the page
		s.services[room+"-page"] = block{"loadBalancer": s.to, "middlewares": []string{middleware}}
		s.middleware(room+"-errors", block{"errors": block{"status": []string{"500-599"}, "service": room + "-page", "query": "/page"}})
		s.route(room, "rooms", middleware, room+"-errors")
	}},
	{"errors-between", func(s *site, room, middleware string) {
		s.middleware(room+"-errors", block{"errors": block{"status": []string{"500-599"}, "service": "rooms", "query": "/page"}})
		s.route(room, "rooms", middleware, room+"-errors", middleware)
	}},
	{"retry-between", func(s *site, room, middleware string) {
		s.middleware(room+"-retry", block{"retry": block{"attempts": 2, "status": []string{"599"}}})
		s.route(room, "rooms", middleware, room+"-retry", middleware)
	}},
}

func TestNesting_aRequestCountsOnce(t *testing.T) {
	t.Parallel()
	bothWatches(t, func(t *testing.T, plain bool) {
		rooms := startRooms(t)
		s := newSite(redistest.Start(t), rooms)
		limiter := func() block { return block{"rateLimit": block{"capacity": 10, "refillRate": 1, "refillPeriod": "1h"}} }
		breaker := func() block {
			return block{"circuitBreaker": block{"failureThreshold": 4, "resetTimeout": "500ms", "halfOpenSuccessThreshold": 1, "halfOpenMaxProbes": 1}}
		}
		for _, way := range ways {
			way.add(s, way.name+"-limiter", s.resilience(way.name+"-limits", limiter()))
			way.add(s, way.name+"-breaker", s.resilience(way.name+"-breaks", breaker()))
			both := breaker()
			both["rateLimit"] = limiter()["rateLimit"]
			way.add(s, way.name+"-both", s.resilience(way.name+"-all", both))
		}
		g, addresses := s.start(t, plain)
		ask := func(room string) int {
			address := g.web
			if addresses[room] != "" {
				address = addresses[room]
			}
			request, err := http.NewRequest(http.MethodGet, "http://"+address+"/"+room+"/", nil)
			require.NoError(t, err)
			return send(request).status
		}
		for _, way := range ways {
			t.Run(way.name+": ten tokens are ten requests", func(t *testing.T) {
				room := way.name + "-limiter"
				rooms.will(room, 500)
				for range 10 {
					require.Equal(t, 500, ask(room))
				}
				require.Equal(t, 429, ask(room))
				require.Equal(t, 10, rooms.count(room))
			})
			t.Run(way.name+": a circuit opens after four failures, and a probe closes it", func(t *testing.T) {
				room := way.name + "-breaker"
				rooms.will(room, 500)
				for range 4 {
					require.Equal(t, 500, ask(room))
				}
				require.Equal(t, 503, ask(room))
				require.Equal(t, 4, rooms.count(room))
				rooms.will(room, 200)
				time.Sleep(600 * time.Millisecond)
				for range 10 {
					require.Equal(t, 200, ask(room))
				}
			})
			t.Run(way.name+": both at once", func(t *testing.T) {
				room := way.name + "-both"
				for range 6 {
					require.Equal(t, 200, ask(room))
				}
				rooms.will(room, 500)
				for range 4 {
					require.Equal(t, 500, ask(room))
				}
				require.Equal(t, 503, ask(room))
				time.Sleep(600 * time.Millisecond)
				require.Equal(t, 429, ask(room))
			})
		}
		warnings := map[string]int{}
		for _, e := range g.events("requests come through this middleware twice, and count once") {
			warnings[e["middleware"]]++
			require.Equal(t, "warn", e["level"])
			require.Equal(t, e["middleware"]+"@file", e["outer"])
			require.Equal(t, e["middleware"]+"@file", e["inner"])
		}
		for _, way := range ways {
			for _, kind := range []string{"-limits", "-breaks", "-all"} {
				require.Equal(t, 1, warnings[way.name+kind], way.name+kind)
			}
		}
	})
}

func TestNesting_aRefusalInsideIsNotCounted(t *testing.T) {
	t.Parallel()
	bothWatches(t, func(t *testing.T, plain bool) {
		rooms := startRooms(t)
		s := newSite(redistest.Start(t), rooms)
		betweens := map[string]block{
			"errors":   {"errors": block{"status": []string{"400-599"}, "service": "rooms", "query": "/page"}},
			"rewrites": {"errors": block{"status": []string{"400-599"}, "statusRewrites": block{"400-599": 502}, "service": "rooms", "query": "/page"}},
			"lost":     {"errors": block{"status": []string{"400-599"}, "service": "nowhere", "query": "/page"}},
			"retry":    {"retry": block{"attempts": 2, "status": []string{"400-599"}}},
			"headers":  {"headers": block{"customResponseHeaders": block{"Content-Type": "", "Retry-After": "7"}}},
			"compress": {"compress": block{"minResponseBodyBytes": 1}},
			"buffers":  {"buffering": block{"maxResponseBodyBytes": 10000}},
			"nothing":  {"chain": block{"middlewares": []string{"headers"}}},
		}
		s.services["nowhere"] = block{"loadBalancer": block{"servers": []block{{"url": "http://127.0.0.1:1"}}}}
		inners := map[string]block{
			"open":    {"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}},
			"limited": {"rateLimit": block{"capacity": 1, "refillPeriod": "1h", "refillRate": 1}},
			"denied":  {"rateLimit": block{"capacity": 100}, "redis": block{"address": "127.0.0.1:1", "onError": "deny"}},
		}
		for kind, plugin := range inners {
			s.resilience(kind, plugin)
			s.route(kind, "rooms", kind)
		}
		s.services["inside"] = block{"loadBalancer": s.to, "middlewares": []string{"open"}}
		for name, between := range betweens {
			s.middleware(name, between)
			for kind := range inners {
				room := name + "-" + kind
				outer := s.resilience(room+"-outer", block{"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h"}})
				s.route(room, "rooms", outer, name, kind)
				s.route(room+"-past", "rooms", outer)
			}
			room := name + "-inside"
			outer := s.resilience(room+"-outer", block{"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h"}})
			s.route(room, "inside", outer, name)
			s.route(room+"-past", "rooms", outer)
		}
		g, _ := s.start(t, plain)
		rooms.will("open", 500)
		require.Equal(t, 500, g.get("/open/").status)
		require.Equal(t, 200, g.get("/limited/").status)
		for kind, status := range map[string]int{"open": 503, "limited": 429, "denied": 503} {
			require.Equal(t, status, g.get("/"+kind+"/").status, kind)
		}
		for name := range betweens {
			for _, kind := range []string{"open", "limited", "denied", "inside"} {
				room := name + "-" + kind
				t.Run(room, func(t *testing.T) {
					for range 8 {
						require.GreaterOrEqual(t, g.get("/"+room+"/").status, 429)
					}
					require.Zero(t, rooms.count(room))
					require.Equal(t, 200, g.get("/"+room+"-past/").status)

					rooms.will(room+"-past", 500)
					for range 3 {
						require.Equal(t, 500, g.get("/"+room+"-past/").status)
						g.get("/" + room + "/") // no success that ends their row
					}
					require.Equal(t, 503, g.get("/"+room+"-past/").status, "the service's own failures count")
				})
			}
		}
	})
}

// A retry may find another answer than the first: what the service says at last counts.
func TestNesting_theLastAttemptOfARetryCounts(t *testing.T) {
	t.Parallel()
	bothWatches(t, func(t *testing.T, plain bool) {
		rooms := startRooms(t)
		s := newSite(redistest.Start(t), rooms)
		inner := s.resilience("inner", block{"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "400ms"}})
		outer := s.resilience("outer", block{"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h"}})
		s.middleware("retry", block{"retry": block{"attempts": 2, "initialInterval": "1200ms", "status": []string{"500-599"}}}) // half of that at least
		s.route("room", "rooms", outer, "retry", inner)
		g, _ := s.start(t, plain)
		rooms.will("room", 500)
		for range 3 {
			require.Equal(t, 500, g.get("/room/").status)
		}
		require.Equal(t, openBody, g.get("/room/").body)
		require.Less(t, rooms.count("room"), 6, "an attempt was refused")
	})
}

// Two ways with a service in common: one with the middleware before it, one without.
func TestNesting_aServiceThatIsReachedBothWays(t *testing.T) {
	t.Parallel()
	rooms := startRooms(t)
	s := newSite(redistest.Start(t), rooms)
	s.resilience("both-ways", block{"rateLimit": block{"capacity": 1000, "refillRate": 1, "refillPeriod": "1h"}})
	s.services["inside"] = block{"loadBalancer": s.to, "middlewares": []string{"both-ways"}}
	s.route("straight", "inside")
	s.route("twice", "inside", "both-ways")
	g, _ := s.start(t, false)
	for range 700 { // longer than it checks requests
		require.Equal(t, 200, g.get("/straight/").status)
	}
	for range 100 {
		require.Equal(t, 200, g.get("/twice/").status)
		require.Equal(t, 200, g.get("/straight/").status)
	}
	require.Equal(t, map[int]int{200: 100, 429: 50}, burst(150, "/twice/", g))
}

// A mirror has a copy of the request: what it answers decides nothing, and it takes no second token.
func TestNesting_aMirrorDoesNotChangeTheVerdict(t *testing.T) {
	t.Parallel()
	bothWatches(t, func(t *testing.T, plain bool) {
		rooms := startRooms(t)
		s := newSite(redistest.Start(t), rooms)
		s.resilience("mirror", block{"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "1h"}})
		s.services["copied"] = block{"loadBalancer": s.to, "middlewares": []string{"mirror"}}
		s.services["mirrored"] = block{"mirroring": block{"service": "rooms", "mirrors": []block{{"name": "copied", "percent": 100}}}}
		outer := s.resilience("outer", block{
			"circuitBreaker": block{"failureThreshold": 20, "resetTimeout": "1h"},
			"rateLimit":      block{"capacity": 1000, "refillRate": 1, "refillPeriod": "1h"},
		})
		s.route("room", "mirrored", outer)
		g, _ := s.start(t, plain)
		rooms.will("room", 500)
		for range 20 {
			require.Equal(t, 500, g.get("/room/").status)
		}
		require.Equal(t, openBody, g.get("/room/").body)
		require.Equal(t, 21, rooms.count("room"), "the mirror has refused all copies but one")
	})
}
