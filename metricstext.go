package resilience

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The metrics in Prometheus's text format. Labels are the names of middlewares, limits, states, classes and addresses of Redis: what the
// configuration says, never what a client sends.

// metric is a metric's name, type and help.
type metric struct {
	name, kind, help string
}

var (
	requestsTotal    = metric{"resilience_requests_total", "counter", "Requests, each once, by what was decided. would_limit and would_open are admitted ones of a dry run, and of left the client went while they waited for tokens."}
	limitedTotal     = metric{"resilience_limited_total", "counter", "Requests that a limit refused, by the limit."}
	fallbackTotal    = metric{"resilience_fallback_decisions_total", "counter", "Requests that were decided without Redis, although one is configured."}
	circuitState     = metric{"resilience_circuit_state", "gauge", "1 for the state of the circuit as this gateway knows it, 0 for the others."}
	scopeCircuits    = metric{"resilience_scope_circuits", "gauge", "Circuits of scopes that this gateway knows, by state, where circuitBreaker.scope is set."}
	ownCircuitState  = metric{"resilience_own_circuit_state", "gauge", "The same for the circuit of this gateway alone, where minGateways is more than 1."}
	transitionsTotal = metric{"resilience_circuit_transitions_total", "counter", "Changes of the circuit's state that this gateway made or learned of. Those of scopes are not counted."}
	failuresTotal    = metric{"resilience_upstream_failures_total", "counter", "Failures of the service, as the circuit breaker counts them, by class."}
	upstreamDuration = metric{"resilience_upstream_duration_seconds", "histogram", "Durations of forwarded requests until the end of the answer. It is a sample: at most ten requests a second and router."}
	redisUp          = metric{"resilience_redis_up", "gauge", "1 unless Redis is known to be unavailable."}
	redisCalls       = metric{"resilience_redis_calls_total", "counter", "Calls of scripts, by result: ok, error (of the script) or unavailable (no answer in time)."}
	redisDuration    = metric{"resilience_redis_call_duration_seconds", "histogram", "Durations of calls of scripts. Calls in one round trip have the same duration."}
	grantsGauge      = metric{"resilience_grants", "gauge", "Identities that this gateway may decide from memory."}
	waitingGauge     = metric{"resilience_waiting_requests", "gauge", "Requests that wait for their tokens."}
	gatewaysGauge    = metric{"resilience_gateways", "gauge", "Gateways that share the middleware, this one included: those with an admin block and the same Redis."}
	buildInfo        = metric{"resilience_build_info", "gauge", "1, with the version of the plugin."}
)

const metricsKind = "text/plain; version=0.0.4; charset=utf-8"

// metricsText collects the lines. A scrape of many middlewares has thousands, which are joined once.
type metricsText struct{ lines []string }

func (t *metricsText) begin(m metric) {
	t.lines = append(t.lines, "# HELP "+m.name+" "+m.help, "# TYPE "+m.name+" "+m.kind)
}

// add adds a sample. labels are names and values in turn.
func (t *metricsText) add(name, value string, labels ...string) {
	if len(labels) == 0 {
		t.lines = append(t.lines, name+" "+value)
		return
	}
	pairs := make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+`="`+escapeLabel(labels[i+1])+`"`)
	}
	t.lines = append(t.lines, name+"{"+strings.Join(pairs, ",")+"} "+value)
}

func (t *metricsText) count(m metric, n int64, labels ...string) {
	t.add(m.name, strconv.FormatInt(n, 10), labels...)
}

// histogram adds the samples of a histogram.
func (t *metricsText) histogram(m metric, bounds []float64, counts []int64, sum float64, labels ...string) {
	total := int64(0)
	for i, n := range counts {
		total += n
		bound := "+Inf"
		if i < len(bounds) {
			bound = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		t.add(m.name+"_bucket", strconv.FormatInt(total, 10), append(append([]string{}, labels...), "le", bound)...)
	}
	t.add(m.name+"_sum", strconv.FormatFloat(sum, 'g', -1, 64), labels...)
	t.add(m.name+"_count", strconv.FormatInt(total, 10), labels...)
}

func escapeLabel(value string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(value)
}

// serveMetrics answers with the metrics.
func (a *adminHandler) serveMetrics(w http.ResponseWriter, r *http.Request) {
	writeAdmin(w, r, http.StatusOK, metricsKind, []byte(a.registry.metrics()))
}

// metrics returns the metrics of all middlewares of the present configuration.
func (g *registry) metrics() string {
	all := g.shown()
	refreshAll(all)
	samples := []*sampled{}
	for _, one := range all {
		samples = append(samples, sampleOf(one))
	}
	t := &metricsText{}
	t.begin(requestsTotal)
	for _, s := range samples {
		for decision, n := range s.decisions {
			t.count(requestsTotal, n, "middleware", s.name, "decision", decisionNames[decision])
		}
	}
	t.begin(limitedTotal)
	for _, s := range samples {
		for _, limit := range s.limits {
			t.count(limitedTotal, s.limited[limit], "middleware", s.name, "limit", limit)
		}
	}
	t.begin(fallbackTotal)
	for _, s := range samples {
		t.count(fallbackTotal, s.fallbacks, "middleware", s.name)
	}
	t.circuits(samples)
	t.begin(upstreamDuration)
	for _, s := range samples {
		t.histogram(upstreamDuration, s.durations.bounds, s.durations.counts, s.durations.sum, "middleware", s.name)
	}
	t.begin(grantsGauge)
	for _, s := range samples {
		t.count(grantsGauge, s.grants, "middleware", s.name)
	}
	t.begin(waitingGauge)
	for _, s := range samples {
		t.count(waitingGauge, s.waiting, "middleware", s.name)
	}
	t.begin(gatewaysGauge)
	for _, one := range all {
		t.count(gatewaysGauge, int64(len(one.fleet.alive())), "middleware", one.name)
	}
	t.stores(all)
	t.begin(buildInfo)
	t.count(buildInfo, 1, "version", version)
	return strings.Join(t.lines, "\n") + "\n"
}

// circuits adds the metrics of circuits, of the middlewares that have one.
func (t *metricsText) circuits(samples []*sampled) {
	t.begin(circuitState)
	for _, s := range samples {
		t.states(circuitState, s.name, s.circuit)
	}
	t.begin(ownCircuitState)
	for _, s := range samples {
		t.states(ownCircuitState, s.name, s.ownCircuit)
	}
	t.begin(scopeCircuits)
	for _, s := range samples {
		for _, state := range circuitStates {
			if s.scopes != nil {
				t.count(scopeCircuits, s.scopes[state], "middleware", s.name, "state", state)
			}
		}
	}
	t.begin(transitionsTotal)
	for _, s := range samples {
		for _, change := range circuitChanges {
			if s.circuit != "" {
				t.count(transitionsTotal, s.transitions[change[0]+" "+change[1]], "middleware", s.name, "from", change[0], "to", change[1])
			}
		}
	}
	t.begin(failuresTotal)
	for _, s := range samples {
		for _, class := range failureClasses {
			if s.circuit != "" {
				t.count(failuresTotal, s.failures[class], "middleware", s.name, "class", class)
			}
		}
	}
}

// states adds the samples of one circuit, if there is one.
func (t *metricsText) states(m metric, middleware, present string) {
	for _, state := range circuitStates {
		if present != "" {
			t.count(m, oneIf(present == state), "middleware", middleware, "state", state)
		}
	}
}

// circuitChanges are the changes of state that a gateway may see. It may miss the ones between two of its replies.
var circuitChanges = [][]string{
	{"closed", "open"}, {"closed", "half-open"}, {"closed", "ramp"}, {"open", "half-open"}, {"open", "closed"}, {"open", "ramp"},
	{"half-open", "open"}, {"half-open", "closed"}, {"half-open", "ramp"}, {"ramp", "closed"}, {"ramp", "open"}, {"ramp", "half-open"},
}

func oneIf(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// stores adds the metrics of each Redis. Middlewares with other settings for the same one have other stores, which are added up.
func (t *metricsText) stores(all []*shownEngines) {
	addresses := []string{}
	seen := map[*store.Store]bool{}
	up := map[string]bool{}
	sums := map[string]*store.Stats{}
	for _, one := range all {
		if one.store == nil || seen[one.store] {
			continue
		}
		seen[one.store] = true
		address := one.store.Address()
		if sums[address] == nil {
			addresses = append(addresses, address)
			sums[address] = &store.Stats{Counts: make([]int64, len(store.Bounds)+1)}
			up[address] = true
		}
		up[address] = up[address] && !one.store.IsUnavailable()
		addStats(sums[address], one.store.Stats())
	}
	t.begin(redisUp)
	for _, address := range addresses {
		t.count(redisUp, oneIf(up[address]), "redis", address)
	}
	t.begin(redisCalls)
	for _, address := range addresses {
		sum := sums[address]
		t.count(redisCalls, sum.OK, "redis", address, "result", "ok")
		t.count(redisCalls, sum.Errors, "redis", address, "result", "error")
		t.count(redisCalls, sum.Unanswered, "redis", address, "result", "unavailable")
	}
	t.begin(redisDuration)
	for _, address := range addresses {
		t.histogram(redisDuration, store.Bounds, sums[address].Counts, sums[address].Sum, "redis", address)
	}
}

func addStats(sum, one *store.Stats) {
	if one == nil {
		return
	}
	sum.OK += one.OK
	sum.Errors += one.Errors
	sum.Unanswered += one.Unanswered
	sum.Sum += one.Sum
	for i, n := range one.Counts {
		sum.Counts[i] += n
	}
}

// sampled is what one scrape or status shows of a middleware's counts.
type sampled struct {
	name        string
	decisions   []int64
	limits      []string // the names of the limits that are configured, and of others that have refused
	limited     map[string]int64
	failures    map[string]int64
	transitions map[string]int64
	recent      []transition
	fallbacks   int64
	durations   *histogram
	circuit     string           // the state; "": there is no circuit breaker
	ownCircuit  string           // the same of this gateway's own circuit
	scopes      map[string]int64 // circuits of scopes by state; nil: there are none
	grants      int64
	waiting     int64
}

// sampleOf reads the counts of a middleware. It holds each lock for a moment only.
func sampleOf(one *shownEngines) *sampled {
	s := one.tally.read()
	s.name = one.name
	s.waiting = ratelimit.Delayed(one.limiter)
	for _, route := range one.routes {
		for _, limit := range route.limits {
			if !contains(s.limits, limit) {
				s.limits = append(s.limits, limit)
			}
		}
		if route.policy != nil {
			s.circuit = one.breaker.Snapshot(one.now()).State
		}
		if one.hasOwnCircuit() {
			s.ownCircuit = one.ownCircuit.Snapshot(one.now()).State
		}
		s.grants += ratelimit.CountGrants(route.cache)
	}
	if one.hasScopes() {
		s.scopes = countStates(one.knownCircuits())
	}
	for limit := range s.limited {
		if !contains(s.limits, limit) {
			s.limits = append(s.limits, limit)
		}
	}
	return s
}

// read returns a copy of the counts.
func (t *tally) read() *sampled {
	fast := t.fast()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &sampled{
		decisions: append([]int64{}, t.decisions...), limited: copyCounts(t.limited), failures: copyCounts(t.failures),
		transitions: copyCounts(t.transitions), recent: append([]transition{}, t.recent...), fallbacks: t.fallbacks,
	}
	s.durations = &histogram{bounds: t.durations.bounds, counts: append([]int64{}, t.durations.counts...), sum: t.durations.sum}
	s.decisions[decidedAdmitted] += fast.admitted
	s.decisions[decidedLimited] += fast.refused
	s.decisions[decidedOpen] += fast.open
	if fast.refused > 0 {
		s.limited[defaultLimit] += fast.refused
	}
	return s
}

func copyCounts(counts map[string]int64) map[string]int64 {
	copied := map[string]int64{}
	for key, n := range counts {
		copied[key] = n
	}
	return copied
}

// refreshAll asks Redis for the state of each circuit, all at the same time: a gateway without requests does not learn of changes. It returns
// what Redis said of each middleware; nil: nothing.
func refreshAll(all []*shownEngines) []*breaker.Snapshot {
	shared := make([]*breaker.Snapshot, len(all))
	waits := &sync.WaitGroup{}
	for i, one := range all {
		for _, route := range one.routes {
			if route.policy != nil && one.store != nil {
				waits.Add(1)
				refreshOne(one.engines, one.breaker, route, waits, shared, i)
				break
			}
		}
	}
	waits.Wait()
	return shared
}

func refreshOne(one *engines, circuit *breaker.Breaker, of *route, waits *sync.WaitGroup, shared []*breaker.Snapshot, place int) {
	go func() {
		defer func() {
			recover()
			waits.Done()
		}()
		shared[place] = circuit.Refresh(of.policy, one.now(), time.Now().Add(of.timeout))
	}()
}
