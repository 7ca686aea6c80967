package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/wire"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const (
	slowTimeout = 100 * time.Millisecond    // redis.timeout's default
	slowReset   = time.Second               // resetTimeout
	slowProbes  = 2                         // at once: the default
	slowOutage  = 6 * time.Second           // of the service
	slowCloses  = slowReset + 2*time.Second // after the service's recovery
)

// slowRow is a middleware whose Redis answers after a fixed time, and what its clients saw. redis.timeout is the default of
// 100 ms, and its limit is too small for leases: each request that passes asks Redis for its token.
type slowRow struct {
	delay   time.Duration
	onError string
	judged  bool   // else only its figures are of interest
	redis   string // its address, that of the delay
	seen    asked
}

func (r *slowRow) name() string { return fmt.Sprintf("%s-%s", r.delay, r.onError) }

// slowService is the service of all rows, each at the path of its name. It notes what reaches it, and fails when it is told to.
type slowService struct {
	mu      sync.Mutex // guards what follows
	failing bool
	reached map[string][]time.Time
}

func (s *slowService) fail(on bool) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = on
	return time.Now()
}

func (s *slowService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	failing := s.failing
	s.reached[r.URL.Path] = append(s.reached[r.URL.Path], time.Now())
	s.mu.Unlock()
	if failing {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// between returns how many requests of a path reached the service.
func (s *slowService) between(path string, from, to time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.reached[path] {
		if at.After(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// A service fails for a while and recovers. Whatever Redis takes to answer within its timeout, the circuit opens and closes
// as if Redis was near.
func TestSlowRedis_theCircuitOpensAndCloses(t *testing.T) {
	var rows []*slowRow
	for _, delay := range []int{20, 40, 60, 80, 95} {
		for _, onError := range []string{"deny", "local", "allow"} {
			rows = append(rows, &slowRow{delay: time.Duration(delay) * time.Millisecond, onError: onError, judged: delay <= 80})
		}
	}
	late := redistest.Late(t)
	server, service := redistest.Start(t), &slowService{reached: map[string][]time.Time{}}
	g := startSlow(t, server, service, rows)

	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, r := range rows {
		for i := range 4 {
			clients.Go(func() {
				time.Sleep(time.Duration(i) * 60 * time.Millisecond)
				r.seen.ask(g, "/"+r.name(), "", 240*time.Millisecond, stop)
			})
		}
	}
	time.Sleep(2 * time.Second) // it connects to fifteen Redis
	warm := time.Now()
	time.Sleep(2 * time.Second)
	failed := service.fail(true)
	time.Sleep(slowOutage)
	healed := service.fail(false)
	time.Sleep(slowCloses + 2*time.Second)
	close(stop)
	clients.Wait()

	for _, r := range rows {
		t.Run(r.name(), func(t *testing.T) {
			opened, closed := r.refused(warm)
			reached := service.between("/"+r.name(), opened.Add(r.delay+50*time.Millisecond), healed)
			due := slowProbes * int(1+healed.Sub(opened)/slowReset)
			before, while := r.seen.count(warm, failed.Add(-300*time.Millisecond)), r.seen.count(failed, healed)
			after, atLast := r.seen.count(healed, healed.Add(slowCloses)), r.seen.count(healed.Add(slowCloses), time.Now())
			t.Logf("opened after %s, closed after %s; probes that reached the service: %d, at most %d due; Redis away %d times; "+
				"answers before %v, while the service failed %v, after it %v, then %v",
				opened.Sub(failed).Round(time.Millisecond), closed.Sub(healed).Round(time.Millisecond), reached, due, r.away(g),
				before, while, after, atLast)
			if !r.judged {
				return
			}
			require.True(t, opened.After(failed) && opened.Before(healed), "the circuit opened while the service failed")
			require.Less(t, opened.Sub(failed), 2*time.Second, "opened")
			require.LessOrEqual(t, reached, due, "requests that reached the failing service while the circuit was open or half-open")
			require.Less(t, closed.Sub(healed), slowCloses, "closed after the recovery")
			require.Equal(t, "closed", server.Hash("resilience:{" + r.name() + "}:breaker")["state"])
			if spare := slowTimeout - r.delay; late() > spare {
				t.Logf("the machine is later than the %s that a request has to spare: answers may be too late for Redis", spare)
				return
			}
			requirePassed(t, before)
			requirePassed(t, atLast)
		})
	}
}

// requirePassed requires that the circuit was closed, and that requests had the service's answer: on a busy machine some are
// too late for Redis, which onError: deny answers with 503.
func requirePassed(t *testing.T, counts map[string]int) {
	t.Helper()
	all := 0
	for _, n := range counts {
		all += n
	}
	require.Greater(t, 3*counts[" 200"], all, "%v", counts)
	require.LessOrEqual(t, 10*counts[" 503"], all, "%v", counts)
}

// startSlow starts a gateway with a route for each row at the path of its name.
func startSlow(t *testing.T, server *redistest.Server, service http.Handler, rows []*slowRow) *traefik {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	origin := &http.Server{Handler: service}
	go origin.Serve(listener)
	t.Cleanup(func() { origin.Close() })

	routers, middlewares := block{}, block{}
	for _, r := range rows {
		delay, err := gateway.StartDelay(server.Addr(), r.delay)
		require.NoError(t, err)
		t.Cleanup(delay.Stop)
		r.redis = delay.Address
		middlewares[r.name()] = block{"plugin": block{"resilience": block{
			"redis":          block{"address": delay.Address, "onError": r.onError},
			"rateLimit":      block{"capacity": 90, "refillRate": 90},
			"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": slowReset.String()},
		}}}
		routers[r.name()] = block{
			"rule": "Path(`/" + r.name() + "`)", "entryPoints": []string{"web"}, "middlewares": []string{r.name()}, "service": "slow",
		}
	}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	writeYAML(t, filepath.Join(dynamic, "slow.yml"), block{"http": block{
		"routers": routers, "middlewares": middlewares,
		"services": block{"slow": block{"loadBalancer": block{"servers": []block{{"url": "http://" + listener.Addr().String()}}}}},
	}})
	return startTraefik(t, options{dynamic: dynamic})
}

// refused returns when the first and the last answer of an open circuit came since a time.
func (r *slowRow) refused(since time.Time) (first, last time.Time) {
	r.seen.mu.Lock()
	defer r.seen.mu.Unlock()
	for _, a := range r.seen.seen {
		at := a.sent.Add(a.took)
		if a.status != http.StatusServiceUnavailable || at.Before(since) {
			continue
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	return first, last
}

// away returns how often the gateway said that the row's Redis is unavailable.
func (r *slowRow) away(g *traefik) (n int) {
	for _, event := range g.events("redis unavailable") {
		if event["redis"] == r.redis {
			n++
		}
	}
	return n
}

// Redis is too slow for a moment, when the first probe is due: it gives the only place to a request that no longer waits for
// it, and counts as unavailable. The service is well: that place must not keep the circuit half-open until probeTimeout.
func TestSlowRedis_aLatePermitGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	for _, onError := range []string{"deny", "local", "allow"} {
		t.Run(onError, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy, err := wire.New(server.Addr(), time.Second)
			require.NoError(t, err)
			t.Cleanup(proxy.Close)
			g := startTraefik(t, options{upstream: startUpstream(t), plugin: block{
				"redis":          block{"address": proxy.Addr(), "onError": onError},
				"rateLimit":      block{"capacity": 90, "refillRate": 90},
				"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": slowReset.String(), "halfOpenMaxProbes": 1},
			}})
			require.Equal(t, http.StatusInternalServerError, g.get("/proxy/fail").status)
			opened := time.Now()
			require.Equal(t, http.StatusServiceUnavailable, g.get("/proxy/ok").status)

			time.Sleep(time.Until(opened.Add(slowReset + 50*time.Millisecond)))
			proxy.Slow(150 * time.Millisecond)
			burst(4, "/proxy/ok", g)
			require.Equal(t, "half-open", server.Hash(breakerKey)["state"], "Redis gave the place")
			time.Sleep(400 * time.Millisecond)
			require.NoError(t, proxy.Heal())

			require.Eventually(t, func() bool {
				return g.get("/proxy/ok").status == http.StatusOK && server.Hash(breakerKey)["state"] == "closed"
			}, slowCloses, 20*time.Millisecond, "the circuit closes: %v", server.Hash(breakerKey))
		})
	}
}
