package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/window"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// tenant is one client under one limit, on a route of its own, and what the upstream saw of it.
type tenant struct {
	name           string
	capacity, rate int // tokens; tokens a second

	mu   sync.Mutex // guards sent and seen
	sent map[int]time.Time
	seen []arrival
}

// arrival is a request that reached the upstream.
type arrival struct {
	id int
	at time.Time
}

func newTenant(capacity, rate int) *tenant {
	return &tenant{name: fmt.Sprintf("limit-%d-%d", capacity, rate), capacity: capacity, rate: rate, sent: map[int]time.Time{}}
}

// ServeHTTP is the upstream.
func (c *tenant) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	at := time.Now()
	id, err := strconv.Atoi(r.Header.Get("X-Id"))
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, arrival{id, at})
}

// ask sends one request through a gateway. Whether it is answered does not matter: the upstream counts.
func (c *tenant) ask(web string) {
	c.mu.Lock()
	id := len(c.sent)
	c.sent[id] = time.Now()
	c.mu.Unlock()
	request, err := http.NewRequest(http.MethodGet, "http://"+web+"/"+c.name+"/", nil)
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-Client", "one")
	request.Header.Set("X-Id", strconv.Itoa(id))
	send(request)
}

// spans are the requests that were let through: each decided between when it was sent and when the upstream saw it.
func (c *tenant) spans(begun time.Time) []window.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var spans []window.Span
	for _, a := range c.seen {
		spans = append(spans, window.Span{
			Start: c.sent[a.id].Sub(begun).Microseconds(), End: a.at.Sub(begun).Microseconds(), Tokens: 1,
		})
	}
	return spans
}

// seenFrom is how many requests the upstream saw in so long, and how many were sent.
func (c *tenant) seenFrom(from time.Time, length time.Duration) (seen, sent int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.seen {
		if !a.at.Before(from) && a.at.Before(from.Add(length)) {
			seen++
		}
	}
	for _, at := range c.sent {
		if !at.Before(from) && at.Before(from.Add(length)) {
			sent++
		}
	}
	return seen, sent
}

// pace asks so many times a second for so long, at even intervals, the gateways in turn. It waits for no answer.
func (c *tenant) pace(perSecond int, length time.Duration, gateways []*traefik) {
	var done sync.WaitGroup
	begun := time.Now()
	for i := range int(length.Seconds() * float64(perSecond)) {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
		done.Go(func() { c.ask(gateways[i%len(gateways)].web) })
	}
	done.Wait()
}

// together has each do its part at once, and waits for all.
func together(all []*tenant, part func(*tenant)) {
	var done sync.WaitGroup
	for _, c := range all {
		done.Go(func() { part(c) })
	}
	done.Wait()
}

// startTenants starts a fleet with a route, a limit and an upstream for each.
func startTenants(t *testing.T, gateways int, redis string, all ...*tenant) (fleet []*traefik, another func() *traefik) {
	t.Helper()
	handlers := http.NewServeMux()
	handlers.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	routers := block{"health": block{"rule": "Path(`/health`)", "entryPoints": []string{"web"}, "service": "upstream"}}
	middlewares := block{}
	for _, c := range all {
		handlers.Handle("/"+c.name+"/", c)
		routers[c.name] = block{
			"rule": "PathPrefix(`/" + c.name + "/`)", "entryPoints": []string{"web"}, "middlewares": []string{c.name}, "service": "upstream",
		}
		middlewares[c.name] = block{"plugin": block{"resilience": block{
			// With all the time it needs: where a request gives Redis up, onError rules, and not the promise.
			"redis": block{"address": redis, "timeout": patience, "dialTimeout": patience},
			"rateLimit": block{
				"capacity": c.capacity, "refillRate": c.rate, "sourceCriterion": block{"requestHeaderName": "X-Client"},
			},
			"circuitBreaker": block{"failureThreshold": 5},
		}}}
	}
	server := httptest.NewServer(handlers)
	t.Cleanup(server.Close)
	content, err := yaml.Marshal(block{"http": block{
		"routers": routers, "middlewares": middlewares,
		"services": block{"upstream": block{"loadBalancer": block{"servers": []block{{"url": server.URL}}}}},
	}})
	require.NoError(t, err)
	dynamic := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dynamic, "promise.yml"), content, 0o644))
	another = func() *traefik {
		g := startTraefik(t, options{dynamic: dynamic})
		t.Cleanup(func() { require.Empty(t, g.events("redis unavailable")) })
		return g
	}
	for range gateways {
		fleet = append(fleet, another())
	}
	return fleet, another
}

// spend leaves so many tokens in the bucket of the one client, as if the others had been let through just now.
func (c *tenant) spend(t *testing.T, server *redistest.Server, left int, begun time.Time) window.Span {
	t.Helper()
	start := time.Since(begun).Microseconds()
	server.Do("EVAL", `local t = redis.call('TIME')
		return redis.call('SET', KEYS[1], string.format('%d000000 %.0f 1000000', ARGV[1], t[1] * 1000000 + t[2]), 'PX', 3600000)`,
		1, "resilience:{"+c.name+"}:bucket:header:one", left)
	return window.Span{Start: start, End: time.Since(begun).Microseconds(), Tokens: int64(c.capacity - left)}
}

func TestPromise_neverMoreInAnyWindow(t *testing.T) {
	for _, size := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(size, " gateways"), func(t *testing.T) {
			server := redistest.Start(t)
			all := []*tenant{newTenant(1, 20), newTenant(10, 100), newTenant(1000, 300), newTenant(100000, 400)}
			fleet, another := startTenants(t, size, server.Addr(), all...)
			var mu sync.Mutex // guards fleet
			begun := time.Now()
			// A bucket of 100,000 would take half a minute to empty.
			large := all[len(all)-1]
			spent := large.spend(t, server, 1000, begun)

			var stopped atomic.Bool
			var asking sync.WaitGroup
			asking.Go(func() {
				together(all, func(c *tenant) {
					var workers sync.WaitGroup
					for i := range 8 {
						workers.Go(func() {
							for n := i; !stopped.Load(); n++ {
								mu.Lock()
								web := fleet[n%size].web
								mu.Unlock()
								c.ask(web)
								time.Sleep(time.Millisecond)
							}
						})
					}
					workers.Wait()
				})
			})
			time.Sleep(1500 * time.Millisecond)
			fleet[0].process.Kill()
			fresh := another()
			mu.Lock()
			fleet[0] = fresh
			mu.Unlock()
			time.Sleep(1500 * time.Millisecond)
			stopped.Store(true)
			asking.Wait()
			length := time.Since(begun)

			for _, c := range all {
				spans := c.spans(begun)
				filling := float64(c.capacity)
				if c == large {
					spans = append(spans, spent)
					filling = 1000
				}
				most := window.Most(spans, int64(c.rate), time.Second)
				t.Logf("%s: %d asked, %d let through; %.1f beyond the rate", c.name, len(c.sent), len(c.seen), most)
				require.LessOrEqual(t, most, float64(c.capacity), c.name)
				asked := float64(len(c.sent))
				require.Greater(t, float64(len(c.seen)), min(asked/2, (filling+float64(c.rate)*length.Seconds())/2), "%s: let through", c.name)
				require.Greater(t, asked, float64(len(c.seen)), "%s: none was refused", c.name)
			}
		})
	}
}

func TestPromise_theWholeLimitCanBeUsed(t *testing.T) {
	const length = 5 * time.Second
	server := redistest.Start(t)
	exact := []*tenant{newTenant(100, 200), newTenant(2000, 500)}
	greedy := []*tenant{newTenant(101, 200), newTenant(600, 400)}
	fleet, _ := startTenants(t, 4, server.Addr(), slices.Concat(exact, greedy)...)

	t.Run("by a client that asks at its rate", func(t *testing.T) {
		begun := time.Now()
		together(exact, func(c *tenant) { c.pace(c.rate, length, fleet) })
		for _, c := range exact {
			seen, sent := c.seenFrom(begun, time.Minute)
			t.Logf("%s: %d of %d", c.name, seen, sent)
			require.GreaterOrEqual(t, float64(seen), 0.99*float64(sent), c.name)
			require.LessOrEqual(t, window.Most(c.spans(begun), int64(c.rate), time.Second), float64(c.capacity), c.name)
		}
	})
	t.Run("by a client that asks for more", func(t *testing.T) {
		begun := time.Now()
		// Three seconds empty the buckets; what counts is what comes after.
		together(greedy, func(c *tenant) { c.pace(2*c.rate, length+3*time.Second, fleet) })
		for _, c := range greedy {
			seen, sent := c.seenFrom(begun.Add(2500*time.Millisecond), length)
			limit := float64(c.rate) * length.Seconds()
			t.Logf("%s: %d of %.0f, %d asked for", c.name, seen, limit, sent)
			require.Greater(t, float64(sent), 1.5*limit, "%s: the test asked for too little", c.name)
			require.GreaterOrEqual(t, float64(seen), 0.98*limit, c.name)
			require.LessOrEqual(t, window.Most(c.spans(begun), int64(c.rate), time.Second), float64(c.capacity), c.name)
		}
	})
}

func TestPromise_redisFarAwayIsNotFelt(t *testing.T) {
	server := redistest.Start(t)
	delay, err := gateway.StartDelay(server.Addr(), 20*time.Millisecond)
	require.NoError(t, err)
	t.Cleanup(delay.Stop)
	near, far := newTenant(1000000, 100000), newTenant(1000000, 100001)
	one, _ := startTenants(t, 1, server.Addr(), near)
	other, _ := startTenants(t, 1, delay.Address, far)

	// Turn by turn: what else the machine does meets both alike.
	times := map[*tenant][]time.Duration{}
	for range 1500 {
		for c, g := range map[*tenant]*traefik{near: one[0], far: other[0]} {
			begun := time.Now()
			c.ask(g.web)
			times[c] = append(times[c], time.Since(begun))
		}
	}
	require.Len(t, near.seen, 1500)
	require.Len(t, far.seen, 1500)
	slices.Sort(times[near])
	slices.Sort(times[far])
	t.Logf("p50 %s near, %s far; slowest %s far", times[near][750], times[far][750], times[far][1499])
	require.GreaterOrEqual(t, times[far][1499], 20*time.Millisecond, "Redis is not far away")
	require.Less(t, times[far][750]-times[near][750], time.Millisecond)
}

// residentMB is the memory that the process occupies.
func (g *traefik) residentMB() int {
	g.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.PID()))
	require.NoError(g.t, err)
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); fields[0] == "VmRSS:" {
			kilobytes, err := strconv.Atoi(fields[1])
			require.NoError(g.t, err)
			return kilobytes >> 10
		}
	}
	require.FailNow(g.t, "the process occupies nothing", string(status))
	return 0
}
