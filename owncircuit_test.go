package resilience

import (
	"net/http"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// fleetOf starts gateways that each have a separate process.
func fleetOf(t *testing.T, server *redistest.Server, n int, change func(c *CircuitBreakerConfig)) (all []*Middleware, ups []*upstream) {
	for i := 0; i < n; i++ {
		newProcess(t, 0)
		config := rules(change)
		m, up := newInstance(t, &Config{Redis: at(server.Addr()), CircuitBreaker: config})
		all = append(all, m)
		ups = append(ups, up)
	}
	return all, ups
}

// A gateway with a broken network opens a circuit for itself. The others keep serving, without one refusal.
func TestMinGateways_oneAloneCutsOffOnlyItself(t *testing.T) {
	for _, ratio := range []string{"", "50"} {
		ratio := ratio
		t.Run("ratio "+ratio, func(t *testing.T) {
			server := redistest.Start(t)
			all, ups := fleetOf(t, server, 4, func(c *CircuitBreakerConfig) {
				c.MinGateways = "2"
				c.FailureRatio = ratio
				if ratio != "" {
					c.FailureThreshold = "0"
					c.MinimumRequests = "10"
				}
			})
			ups[0].will(status(502))
			waitFor(t, func() bool {
				for _, m := range all[1:] {
					require.Equal(t, 200, get(m.handler))
				}
				return get(all[0].handler) == 503
			})
			require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
			before := ups[0].count()
			require.Equal(t, []int{503, 503, 503}, statuses(all[0].handler, 3))
			require.Equal(t, before, ups[0].count())
			for _, m := range all[1:] {
				require.Equal(t, []int{200, 200, 200}, statuses(m.handler, 3))
			}
		})
	}
}

// As soon as enough gateways see failures, the circuit opens for all.
func TestMinGateways_enoughOpenTheFleets(t *testing.T) {
	server := redistest.Start(t)
	all, ups := fleetOf(t, server, 3, func(c *CircuitBreakerConfig) { c.MinGateways = "2" })
	ups[0].will(status(500))
	ups[1].will(status(500))
	get(all[0].handler)
	require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
	get(all[1].handler)
	require.Equal(t, "open", server.Hash(breakerOf(t))["state"])
	for _, m := range all {
		advance(time.Second)
		require.Equal(t, 503, get(m.handler))
	}
}

// The gateway's own circuit sends probes when its time is over, and closes by them.
func TestMinGateways_theOwnCircuitCloses(t *testing.T) {
	server := redistest.Start(t)
	all, ups := fleetOf(t, server, 1, func(c *CircuitBreakerConfig) {
		c.MinGateways = "2"
		c.HalfOpenSuccessThreshold = "1"
	})
	m, up := all[0], ups[0]
	up.will(status(500))
	require.Equal(t, []int{500, 500, 503}, statuses(m.handler, 3))
	advance(2 * time.Hour)
	require.Equal(t, 500, get(m.handler), "a probe")
	require.Equal(t, 503, get(m.handler), "which has failed")
	advance(2 * time.Hour)
	up.will(nil)
	require.Equal(t, []int{200, 200, 200}, statuses(m.handler, 3))
	require.False(t, m.ownCircuit.Probing())
}

// The service failed for all, and works again for all but one gateway. Neither that one's probe nor its requests in the ramp open the
// circuit again.
func TestMinGateways_aBrokenGatewayDoesNotKeepTheCircuitOpen(t *testing.T) {
	for _, recovery := range []string{"probes", "ramp"} {
		recovery := recovery
		t.Run(recovery, func(t *testing.T) {
			server := redistest.Start(t)
			all, ups := fleetOf(t, server, 3, func(c *CircuitBreakerConfig) {
				c.MinGateways = "2"
				c.HalfOpenSuccessThreshold = "1"
				c.Recovery = recovery
				if recovery == "ramp" {
					c.RampDuration = "10h"
				}
			})
			state := func() string { return server.Hash(breakerOf(t))["state"] }
			for i := 0; i < 2; i++ {
				ups[i].will(status(500))
				require.Equal(t, 500, get(all[i].handler))
			}
			require.Equal(t, "open", state())
			ups[1].will(nil)

			elapse(t, at(server.Addr()), time.Hour)
			require.Equal(t, []int{500, 500}, statuses(all[0].handler, 2), "probes of the broken one")
			require.Equal(t, "half-open", state())
			require.Equal(t, 200, get(all[2].handler), "a probe of another")
			if recovery == "ramp" {
				require.Equal(t, "ramp", state())
				elapse(t, at(server.Addr()), 61*time.Minute)
				ups[0].will(nil)
				waitFor(t, func() bool { return get(all[0].handler) == 200 }, "its own circuit has a ramp from now on")
				elapse(t, at(server.Addr()), 8*time.Hour)
				ups[0].will(status(500))
				waitFor(t, func() bool { return get(all[0].handler) == 500 })
				require.Equal(t, "ramp", state())
				elapse(t, at(server.Addr()), 2*time.Hour)
				require.Equal(t, 200, get(all[2].handler))
			}
			require.Equal(t, "closed", state())
			require.Equal(t, []int{200, 200, 200}, statuses(all[1].handler, 3))
		})
	}
}

// Requests that passed before the fleet's circuit opened, and fail later, do not open the gateway's own one.
func TestMinGateways_lateFailures(t *testing.T) {
	for _, ratio := range []string{"", "50"} {
		ratio := ratio
		t.Run("ratio "+ratio, func(t *testing.T) {
			server := redistest.Start(t)
			all, ups := fleetOf(t, server, 3, func(c *CircuitBreakerConfig) {
				c.MinGateways = "2"
				c.FailureRatio = ratio
				if ratio != "" {
					c.MinimumRequests = "2"
				}
			})
			m := all[0]
			get(m.handler)
			waitFor(t, func() bool { return reported(m) })
			codes := together(t, m, ups[0], 5, 500, func() {
				ups[0].will(nil)
				for i := 1; i < 3; i++ {
					ups[i].will(status(500))
					require.Equal(t, 500, get(all[i].handler))
				}
				waitFor(t, func() bool { return server.Hash(breakerOf(t))["state"] == "open" })
				waitFor(t, func() bool {
					advance(100 * time.Millisecond)
					return get(m.handler) == 503
				}, "it knows")
			})
			require.Equal(t, 5, codes[500])
			waitFor(t, func() bool { return !m.ownCircuit.ReportPending() })
			require.True(t, m.breaker.Probing())
			require.False(t, m.ownCircuit.Probing())
		})
	}
}

// A gateway whose own circuit opened, too, lets the fleet's share pass in the fleet's ramp.
func TestMinGateways_oneRamp(t *testing.T) {
	server := redistest.Start(t)
	redis := at(server.Addr())
	all, ups := fleetOf(t, server, 3, func(c *CircuitBreakerConfig) {
		c.MinGateways = "2"
		c.HalfOpenSuccessThreshold = "1"
		c.Recovery = "ramp"
		c.RampDuration = "10h"
	})
	for i, failures := range []int{2, 1} {
		ups[i].will(status(500))
		statuses(all[i].handler, failures)
		ups[i].will(nil)
	}
	m := all[0]
	require.True(t, m.ownCircuit.Probing())
	require.Equal(t, "open", server.Hash(breakerOf(t))["state"])
	elapse(t, redis, time.Hour)
	require.Equal(t, 200, get(all[2].handler), "a probe")
	require.Equal(t, "ramp", server.Hash(breakerOf(t))["state"])
	elapse(t, redis, 5*time.Hour)
	waitFor(t, func() bool { return get(m.handler) == 200 }, "a probe of the own circuit")
	refreshed(t, m)
	counts := map[int]int{}
	for _, code := range statuses(m.handler, 50) {
		counts[code]++
	}
	require.InDelta(t, 25, counts[200], 5, "50 %%: %v", counts)
}

// An upload whose body ends late takes a place of the gateway's own circuit again: its report waits for that, and gives the place back.
func TestMinGateways_aLateUploadHoldsNoPlace(t *testing.T) {
	server := redistest.Start(t)
	all, ups := fleetOf(t, server, 1, func(c *CircuitBreakerConfig) {
		c.MinGateways = "2"
		c.HalfOpenMaxProbes = "1"
		c.ProbeTimeout = "1m"
	})
	m := all[0]
	ups[0].will(status(500))
	require.Equal(t, []int{500, 500, 503}, statuses(m.handler, 3))
	advance(2 * time.Hour)
	own, _ := m.ownCircuit.AllowLocal(m.ownPolicy, true, m.now())
	require.True(t, own.Upload())
	advance(2 * time.Minute)

	u := &upload{m: m, own: own}
	reported := make(chan bool, 1)
	m.mu.Lock() // the place is not taken yet
	u.bodyEnded()
	u.conclude(func() { reported <- true })
	early := len(reported)
	m.mu.Unlock()
	require.Zero(t, early)
	waitFor(t, func() bool { return len(reported) == 1 })
	m.ownCircuit.Done(own, breaker.Unknown, m.ownPolicy, 0)
	next, _ := m.ownCircuit.AllowLocal(m.ownPolicy, false, m.now())
	require.True(t, next.Probe(), "the place is free")
}

// While an operator has closed the fleet's circuit, the gateways' own ones are closed too, and count nothing.
func TestMinGateways_forcedClosed(t *testing.T) {
	for _, row := range []struct {
		name, ratio string
		before      int // failures before that
	}{
		{"failures meanwhile", "", 0},
		{"failures meanwhile, with a ratio", "50", 0},
		{"open before", "", 2},
		{"open before, with a ratio", "50", 2},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			all, ups := fleetOf(t, server, 1, func(c *CircuitBreakerConfig) {
				c.MinGateways = "2"
				if row.ratio != "" {
					c.FailureThreshold, c.FailureRatio, c.MinimumRequests = "0", row.ratio, "2"
				}
			})
			m := all[0]
			get(m.handler)
			ups[0].will(status(500))
			statuses(m.handler, row.before)
			waitFor(t, func() bool {
				return m.ownCircuit.Probing() == (row.before > 0) && reported(m) && !m.ownCircuit.ReportPending()
			})
			require.NoError(t, m.breaker.ForceClosed(time.Hour, "", m.policy, time.Now().Add(5*time.Second)))
			require.False(t, m.ownCircuit.Probing())
			require.Equal(t, map[int]int{500: 4}, together(t, m, ups[0], 4, 500, func() {}))
			waitFor(t, func() bool { return reported(m) && !m.ownCircuit.ReportPending() })
			require.False(t, m.ownCircuit.Probing())

			require.NoError(t, m.breaker.EndForce(m.policy, time.Now().Add(5*time.Second)))
			require.Equal(t, 500, get(m.handler), "it has counted nothing")
			waitFor(t, func() bool { return get(m.handler) == 503 }, "then failures count again")
			require.True(t, m.ownCircuit.Probing())
		})
	}
}

// together sends requests that are answered when all have passed and meanwhile has returned. It returns how many had each status.
func together(t *testing.T, m *Middleware, up *upstream, n, code int, meanwhile func()) map[int]int {
	over := make(chan struct{})
	before := up.count()
	up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-over
		w.WriteHeader(code)
	}))
	l := newLoad()
	l.start(m.handler, n, 1)
	waitFor(t, func() bool { return up.count() == before+n })
	up.will(status(code))
	meanwhile()
	close(over)
	return l.wait()
}

// In a dry run neither circuit refuses.
func TestMinGateways_dryRun(t *testing.T) {
	server := redistest.Start(t)
	all, ups := fleetOf(t, server, 1, func(c *CircuitBreakerConfig) {
		c.MinGateways = "2"
		c.DryRun = "true"
	})
	ups[0].will(status(500))
	require.Equal(t, []int{500, 500, 500, 500}, statuses(all[0].handler, 4))
	require.True(t, all[0].ownCircuit.Probing())
}

func TestRead_minGateways(t *testing.T) {
	s := mustRead(t, &Config{Redis: &RedisConfig{Address: "redis:6379"}, CircuitBreaker: &CircuitBreakerConfig{MinGateways: "3"}})
	require.Equal(t, "circuit breaker: opens after 5 failures, for 30s; closes after 2 successes, of 2 probes at once, each within 10s"+
		"; opens for all if 3 gateways see failures", s.parts[0])
	requireProblem(t, &Config{CircuitBreaker: &CircuitBreakerConfig{MinGateways: "3"}},
		"circuitBreaker.minGateways: gateways know nothing of each other without redis; write redis.address, or leave it out")
	requireProblem(t, &Config{CircuitBreaker: &CircuitBreakerConfig{MinGateways: "101"}},
		`circuitBreaker.minGateways: "101" is not a whole number from 1 to 100`)
}
