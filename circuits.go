package resilience

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
)

// A middleware with circuitBreaker.scope has a circuit for each scope: for each host, or for each value of what the names in a pattern of
// paths match. Clients choose scopes, so the number of circuits is bounded. A request without a scope, or with a new one while there are too
// many, uses the middleware's own circuit.

const (
	maxCircuits      = 500
	circuitUnusedFor = 60 * 1000000 // microseconds after which a closed circuit may be forgotten
	circuitSweep     = 1000000      // microseconds between two searches for circuits to forget
)

// scopeCircuit is one circuit of a middleware: the fleet's, and the gateway's own where minGateways is more than one.
type scopeCircuit struct {
	key     string // of the scope: "<kind>:<value>"; "": the middleware's own circuit
	breaker *breaker.Breaker
	own     *breaker.Breaker
	used    int64 // when a request last used it
}

// circuits are all circuits of a name. The engines' lock guards them.
type circuits struct {
	byKey     map[string]*scopeCircuit
	main      *scopeCircuit
	create    func(key string) *scopeCircuit
	nextSweep int64
}

// newCircuits returns the circuits of engines. settings are those of the middleware's circuit.
func newCircuits(e *engines, settings breaker.Settings) *circuits {
	c := &circuits{byKey: map[string]*scopeCircuit{}, main: &scopeCircuit{breaker: e.breaker, own: e.ownCircuit}}
	log, tally, now := e.log, e.tally, e.now
	c.create = func(key string) *scopeCircuit {
		shown := redact(key)
		of := settings
		of.Key += ":" + scopeInKeys(key)
		of.Changed = func(from, to string) {
			log.Warn("circuit "+to, "from", from, "to", to, "scope", shown)
			tally.changed(from, to, shown, now())
		}
		made := &scopeCircuit{key: key, breaker: breaker.New(of)}
		made.own = breaker.New(breaker.Settings{Mu: settings.Mu, Now: settings.Now, Changed: func(from, to string) {
			log.Warn("circuit "+to+" for this gateway alone", "from", from, "to", to, "scope", shown)
		}})
		breaker.Join(made.breaker, made.own)
		return made
	}
	return c
}

// findLocked returns the circuit of a scope, or the middleware's own.
func (c *circuits) findLocked(key string, now int64) *scopeCircuit {
	if key == "" {
		return c.main
	}
	found := c.byKey[key]
	if found == nil {
		if len(c.byKey) >= maxCircuits {
			c.sweepLocked(now)
		}
		if len(c.byKey) >= maxCircuits {
			return c.main
		}
		found = c.create(key)
		c.byKey[key] = found
	}
	found.used = now
	return found
}

// sweepLocked forgets the circuits that may be forgotten. It looks at all of them, so it is not called for each request of a flood.
func (c *circuits) sweepLocked(now int64) {
	if now < c.nextSweep {
		return
	}
	c.nextSweep = now + circuitSweep
	for key, one := range c.byKey {
		if now-one.used >= circuitUnusedFor && one.breaker.IdleLocked(one.used, now) && one.own.IdleLocked(one.used, now) {
			delete(c.byKey, key)
		}
	}
}

// all returns all circuits of scopes. The engines' lock guards them.
func (c *circuits) all(lock sync.Locker) []*scopeCircuit {
	lock.Lock()
	defer lock.Unlock()
	all := make([]*scopeCircuit, 0, len(c.byKey))
	for _, one := range c.byKey {
		all = append(all, one)
	}
	return all
}

// scopeOf returns the function that returns the key of a request's scope, or "" if the request has none.
func scopeOf(source identity.Source) func(*http.Request) string {
	key := identity.KeyOf(source)
	return func(r *http.Request) string {
		//lint:ignore S1021 R2
		var found string
		found = key(r)
		if found == noScope {
			return ""
		}
		return found
	}
}

// noScope is the key of a request that lacks the source.
const noScope = "none:"

// scopeInKeys returns a scope as it is part of the keys in Redis: what a client sent is hashed.
func scopeInKeys(key string) string {
	if isHashed(key) {
		return key
	}
	return identity.Hashed(key)
}

// readScope reads what a circuit is for. It returns that in words, too.
func readScope(r *problems, s *settings, text string) string {
	const path = "circuitBreaker.scope"
	text = strings.TrimSpace(text)
	pattern, isPath := strings.CutPrefix(text, "path:")
	switch {
	case text == "" || text == "middleware":
		return ""
	case text == "host":
		s.circuitScope = &identity.Source{Host: true, Missing: identity.MissingPass}
		return "; a circuit for each host"
	case isPath:
		if err := identity.CheckPath(pattern); err != nil {
			r.add(fmt.Sprintf("%s: %q %s; write path: and a pattern such as \"/api/{tenant}/*\"", path, pattern, err.Error()))
			return ""
		}
		s.circuitScope = &identity.Source{Path: pattern, Missing: identity.MissingPass}
		return "; a circuit for each value of " + pattern
	}
	r.invalid(path, text, `middleware, host, or path: and a pattern with names, such as "path:/api/{tenant}/*"`)
	return ""
}
