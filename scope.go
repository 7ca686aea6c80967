package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/identity"
)

// A route with circuitBreaker.scope has no fast path. It looks up the circuit of each request (circuits.go), and has a copy of the middleware
// for each, with the circuit's breaker, view and source of statuses. The slow path serves all requests, and knows nothing of scopes but
// this: the limiter's verdict says whether the middleware's own circuit is closed, and so says nothing of theirs.

// scopedRoute is a route as the requests of one circuit see it. Its function serves a request whose circuit it is; the lock is held, and it
// releases it. It has the copy of the middleware, because types must not refer to themselves (R36).
type scopedRoute struct {
	circuit     *scopeCircuit
	serveLocked func(s *slowRequest)
}

// scopeText returns what circuits are for as text, to compare.
func scopeText(scope *identity.Source) string {
	switch {
	case scope == nil:
		return ""
	case scope.Host:
		return "host"
	}
	return "path:" + scope.Path
}

// useCircuits has the limiter refresh the view of the middleware's own circuit, or prepares a route with circuits of scopes.
func (m *Middleware) useCircuits() {
	if m.circuitScope == nil {
		m.cache.Refresher = &viewRefresher{m.breaker, m.policy}
		return
	}
	m.keyOfScope = scopeOf(*m.circuitScope)
	m.scopePolicy = m.policy.ForScopes()
}

// newScopedHandler returns the handler of a route with circuits of scopes.
func (m *Middleware) newScopedHandler() http.Handler {
	m.scoped = map[string]*scopedRoute{}
	m.setFast = func(on bool, of func(*tracked)) {}
	m.counters = func(c *fastCounts) {}
	m.countFast()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveScoped(m, w, r) })
}

// serveScoped serves a request by the circuit of its scope.
func serveScoped(m *Middleware, w http.ResponseWriter, r *http.Request) {
	now := m.now()
	key := m.keyOfScope(r)
	m.mu.Lock()
	if m.checks {
		checkedLocked(m, w, r)
		return
	}
	s := &slowRequest{w: w, r: r, now: now, counted: countedRequest{sampled: m.sampling}}
	m.sampling = false
	m.mu.Unlock()
	route := m.scopedRouteOf(key, now)
	m.mu.Lock()
	route.serveLocked(s)
}

// scopedRouteOf returns the route as the circuit of a scope sees it.
func (m *Middleware) scopedRouteOf(key string, now int64) *scopedRoute {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.circuits.findLocked(key, now)
	route := m.scoped[found.key]
	if route != nil && route.circuit == found {
		return route
	}
	if len(m.scoped) > 2*maxCircuits { // most are of circuits that were forgotten
		m.scoped = map[string]*scopedRoute{}
	}
	route = newScopedRoute(m, found)
	m.scoped[found.key] = route
	return route
}

// newScopedRoute makes a copy of the middleware for a circuit. The lock is held.
func newScopedRoute(m *Middleware, of *scopeCircuit) *scopedRoute {
	one := &Middleware{}
	*one = *m
	one.scope = of.key
	one.breaker = of.breaker
	one.ownCircuit = of.own
	one.view = &of.breaker.View
	if of.key != "" {
		s := *m.settings
		s.policy = m.scopePolicy
		one.settings = &s
		one.ownPolicy = m.scopePolicy.Own()
	}
	one.source = &statusSource{}
	one.scoped = nil
	return &scopedRoute{circuit: of, serveLocked: func(s *slowRequest) { serveSlowLocked(one, s) }}
}

// logOpenScope is logOpen for the circuit of a scope.
func (m *Middleware) logOpenScope(r *http.Request, now int64) {
	message := "refused: circuit open"
	if m.breakerDryRun {
		message = "refused: circuit open (dry run)"
	}
	before, due := m.refusals.due(message+m.scope, now)
	if due || m.debug {
		m.writeEvent(r, message, []string{"scope", redact(m.scope)}, before, due)
	}
}
