//go:build go1.25 && !yaegi

//go:debug asynctimerchan=0

package breaker

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// Fleets of real breakers in virtual time, before a service that fails at random. The model that tests hold to the scripts replaces Redis, half
// a millisecond away.

var (
	simulatedTime = flag.Duration("time", 30*time.Second, "virtual time of a simulated fleet")
	simulatedJSON = flag.String("json", "", "file for the outcomes of simulated fleets")
)

const (
	simulatedRate    = 100 // requests a second of the whole fleet
	simulatedService = 20 * time.Millisecond
	simulatedWay     = 250 * time.Microsecond // to Redis, and back
	simulatedEpoch   = epoch
)

// simulatedRules is what opens the circuit.
type simulatedRules struct {
	name   string
	policy *Policy
}

func rulesToSimulate() []simulatedRules {
	ratio := func(minimum int64) *Policy {
		return NewPolicy(0, time.Second, 1, 1, 10*time.Second).With(Rules{FailureRatio: 50, Window: 10 * time.Second, MinimumRequests: minimum})
	}
	return []simulatedRules{
		{"5 in a row", NewPolicy(5, time.Second, 1, 1, 10*time.Second)},
		{"50 % of 20", ratio(20)},
		{"50 % of 200", ratio(200)},
	}
}

// simulatedOutcome is the result of a run.
type simulatedOutcome struct {
	Rules    string  `json:"rules"`
	Gateways int     `json:"gateways"`
	Errors   int     `json:"errors"`   // per cent of the service's answers
	Opened   float64 `json:"opened"`   // seconds for which the circuit was closed before it opened, on average; -1: it did not open
	Failed   float64 `json:"failed"`   // requests that failed meanwhile, on average; -1: it did not open
	Openings int     `json:"openings"` // of a closed circuit
	Hours    float64 `json:"hours"`    // that were simulated
}

// simulatedRedis serves the fleet's calls from the model.
type simulatedRedis struct {
	policy *Policy
	begun  time.Time

	mu       sync.Mutex // guards what follows
	model    walker
	openings int
	closed   int64 // since when the circuit is closed
	closedIn int64 // for how long it was closed before its openings, in total
	failedIn int64 // requests that failed meanwhile
	failed   int64 // requests that have failed since the circuit is closed
}

func (r *simulatedRedis) IsUnavailable() bool { return false }
func (r *simulatedRedis) Lost() int64         { return 0 }
func (r *simulatedRedis) now() int64          { return time.Since(r.begun).Microseconds() }

func (r *simulatedRedis) Run(calls []*store.Call, _ time.Time) error {
	time.Sleep(simulatedWay)
	for _, call := range calls {
		a := r.serve(call)
		call.Reply = []int64{a.state, a.generation, a.failures, a.successes, a.wait, a.probe, a.born, a.repeats, a.forced}
		call.Err = nil
		call.Conn = 1
	}
	time.Sleep(simulatedWay)
	return nil
}

func (r *simulatedRedis) serve(call *store.Call) answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := step{do: viewStep, at: simulatedEpoch + r.now()}
	own := call.Args[min(len(r.policy.args), len(call.Args)):]
	switch call.Script {
	case permitScript:
		one.do = permitStep
	case reportScript:
		one.do = reportStep
		one.readReport(own)
	}
	before := r.model.machine.state
	got := r.model.local(r.policy, one)
	if got.state == stateOpen && before == stateClosed {
		r.openings++
		r.closedIn += r.now() - r.closed
		r.failedIn += r.failed
	}
	if got.state == stateClosed && before != stateClosed {
		r.closed = r.now()
		r.failed = 0
	}
	return got
}

// noteFailed notes that a request has failed that was no probe.
func (r *simulatedRedis) noteFailed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
}

// readReport reads the arguments of a report.
func (s *step) readReport(args []string) {
	succeeded := 0
	fmt.Sscan(args[0], &s.generation)
	fmt.Sscan(args[1], &s.probe)
	fmt.Sscan(args[2], &succeeded)
	fmt.Sscan(args[3], &s.failed)
	s.succeeded = succeeded == 1
	if args[5] != "" {
		t := tally{succeeded: s.succeeded, run: s.failed}
		fmt.Sscan(args[5], &t.requests, &t.failed, &t.slow, &t.first, &t.longest)
		s.bulk = t
	}
}

// simulatedFleet is breakers on one Redis.
type simulatedFleet struct {
	redis    *simulatedRedis
	policy   *Policy
	gateways []*Breaker
	asking   sync.WaitGroup
}

func newSimulatedFleet(gateways int, policy *Policy) *simulatedFleet {
	f := &simulatedFleet{policy: policy, redis: &simulatedRedis{policy: policy, begun: time.Now()}}
	for i := range gateways {
		begun := time.Now().Add(-time.Duration(i+1) * time.Hour) // each has a clock of another zero
		f.gateways = append(f.gateways, New(Settings{
			Store: f.redis, Key: key, Timeout: time.Second, Now: func() int64 { return time.Since(begun).Microseconds() },
		}))
	}
	return f
}

// ask is a request to a gateway, as the middleware handles it.
func (f *simulatedFleet) ask(g *Breaker, fails bool) {
	at := g.Now()
	permit, byView, passes := f.permit(g, at)
	if !passes {
		return
	}
	time.Sleep(simulatedService)
	outcome := Success
	if fails {
		outcome = Failure
		if !permit.Probe() {
			f.redis.noteFailed()
		}
	}
	switch {
	case !byView:
		g.Done(permit, outcome, f.policy, time.Second)
	case fails || !f.policy.Counts() && len(g.View.Failing) > 0:
		g.Done(g.PermitAt(at), outcome, f.policy, time.Second)
	case f.policy.Counts():
		g.Mu.Lock()
		if at < g.View.PassesSince {
			g.CountPassLocked(at, f.policy)
		} else {
			g.View.Passes++
		}
		g.Mu.Unlock()
	}
}

// permit lets a request pass by the view, or asks for a permit.
func (f *simulatedFleet) permit(g *Breaker, at int64) (permit Permit, byView, passes bool) {
	g.Mu.Lock()
	healthy, open := g.View.Healthy, g.View.Open
	g.Mu.Unlock()
	if at < healthy {
		return Permit{}, true, true
	}
	if at < open {
		return Permit{}, false, false
	}
	if g.ExtendView(at, f.policy) {
		return Permit{}, true, true
	}
	if _, refused := g.MustRefuse(false, at); refused {
		return Permit{}, false, false
	}
	permit, retryAfter, err := g.Allow(f.policy, false, at, time.Now().Add(time.Second))
	if err != nil {
		panic(err) // this Redis never fails
	}
	return permit, false, retryAfter == 0
}

// simulate lets clients ask a fleet. The first gateway gets half of the requests, the next half of the rest, and so on.
func simulate(rules simulatedRules, gateways, errors int, length time.Duration) simulatedOutcome {
	f := newSimulatedFleet(gateways, rules.policy)
	random := rand.New(rand.NewSource(int64(errors)))
	for f.redis.now() < length.Microseconds() {
		time.Sleep(time.Duration(random.ExpFloat64() * float64(time.Second) / simulatedRate))
		place := 0
		for random.Intn(2) == 0 {
			place++
		}
		g, fails := f.gateways[place%gateways], random.Intn(100) < errors
		f.asking.Add(1)
		go func() {
			defer f.asking.Done()
			f.ask(g, fails)
		}()
	}
	f.asking.Wait()
	time.Sleep(time.Second) // reports in the background
	o := simulatedOutcome{Rules: rules.name, Gateways: gateways, Errors: errors, Opened: -1, Failed: -1, Openings: f.redis.openings, Hours: length.Hours()}
	if openings := float64(f.redis.openings); openings > 0 {
		o.Opened = float64(f.redis.closedIn) / 1e6 / openings
		o.Failed = float64(f.redis.failedIn) / openings
	}
	return o
}

// TestSimulatedFleets holds what the rules promise, at every share of errors and in every fleet. They differ by chance only.
func TestSimulatedFleets(t *testing.T) {
	var outcomes []simulatedOutcome
	for _, rules := range rulesToSimulate() {
		for _, gateways := range []int{1, 3, 10} {
			for _, errors := range []int{1, 2, 5, 10, 20, 30, 40, 45, 50, 55, 60} {
				var o simulatedOutcome
				synctest.Test(t, func(*testing.T) { o = simulate(rules, gateways, errors, *simulatedTime) })
				outcomes = append(outcomes, o)
				about := fmt.Sprintf("%+v", o)
				t.Log(about)
				switch {
				case errors == 60:
					require.GreaterOrEqual(t, o.Openings, 1, about)
					require.Less(t, o.Opened, 5.0, about)
				case errors <= 2:
					require.Zero(t, o.Openings, about)
				case errors <= 40 && rules.name == "50 % of 200":
					require.Zero(t, o.Openings, about)
				}
			}
		}
	}
	if *simulatedJSON != "" {
		text, err := json.MarshalIndent(outcomes, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(*simulatedJSON, append(text, '\n'), 0o644))
	}
}
