package resilience

import (
	"sort"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
)

// What admin shows of the circuits of scopes, as this gateway knows them. A scope is what a client sent: it is shown as a client's key is, and
// is no label of a metric.

// shownCircuits is how many circuits of scopes are shown.
const shownCircuits = 20

// knownCircuit is a circuit of a scope as this gateway knows it.
type knownCircuit struct {
	key      string
	breaker  *breaker.Breaker
	snapshot *breaker.Snapshot
}

// hasScopes reports whether a middleware has circuits of scopes.
func (one *shownEngines) hasScopes() bool {
	for _, route := range one.routes {
		if route.scope != nil {
			return true
		}
	}
	return false
}

// knownCircuits returns all circuits of scopes.
func (e *engines) knownCircuits() []knownCircuit {
	now := e.now()
	known := []knownCircuit{}
	for _, one := range e.circuits.all(e.tally.lock) {
		known = append(known, knownCircuit{one.key, one.breaker, one.breaker.Snapshot(now)})
	}
	return known
}

// sortCircuits puts those that an operator has made first, then those that are not closed, then those with failures.
func sortCircuits(known []knownCircuit) {
	sort.Slice(known, func(i, j int) bool {
		a, b := known[i].snapshot, known[j].snapshot
		if (a.Forced == "") != (b.Forced == "") {
			return b.Forced == ""
		}
		if (a.State == "closed") != (b.State == "closed") {
			return b.State == "closed"
		}
		if a.Failures != b.Failures {
			return a.Failures > b.Failures
		}
		return known[i].key < known[j].key
	})
}

// countStates returns how many circuits have each state.
func countStates(known []knownCircuit) map[string]int64 {
	states := map[string]int64{}
	for _, name := range circuitStates {
		states[name] = 0
	}
	for _, one := range known {
		states[one.snapshot.State]++
	}
	return states
}

// circuitStates are the states of a circuit.
var circuitStates = []string{"closed", "open", "half-open", "ramp"}

// scopesStatus returns what the status shows of the circuits of scopes. Those that are shown are as Redis says, where it answers.
func (one *shownEngines) scopesStatus() map[string]interface{} {
	known := one.knownCircuits()
	states := countStates(known)
	total := len(known)
	sortCircuits(known)
	if total > shownCircuits {
		known = known[:shownCircuits]
	}
	one.refreshScopes(known)
	shown := []interface{}{}
	for _, found := range known {
		status := snapshotStatus(found.snapshot)
		status["scope"] = shownKey(found.key)
		status["forced"] = nil
		if found.snapshot.Forced != "" {
			status["forced"] = forcedStatus(one, found.snapshot, plainText(found.breaker.Reason(time.Now().Add(one.routes[0].timeout))))
		}
		shown = append(shown, status)
	}
	return map[string]interface{}{"known": total, "atMost": maxCircuits, "states": states, "circuits": shown}
}

// refreshScopes asks Redis for the state of circuits of scopes, all at the same time: a gateway without requests of a scope does not learn of
// changes.
func (one *shownEngines) refreshScopes(known []knownCircuit) {
	route := one.scopedRoute("")
	if route == nil || route.policy == nil || one.store == nil {
		return
	}
	waits := &sync.WaitGroup{}
	shared := make([]*breaker.Snapshot, len(known))
	for i := range known {
		waits.Add(1)
		refreshOne(one.engines, known[i].breaker, route, waits, shared, i)
	}
	waits.Wait()
	for i := range known {
		if shared[i] != nil {
			known[i].snapshot = shared[i]
		}
	}
}
