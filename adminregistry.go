package resilience

import (
	"context"
	"sort"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// What admin knows of this process: the registry's engines and the handlers that use them.

// hasAdminLocked reports whether a middleware of the present configuration has an admin block. The registry's lock is held.
func (g *registry) hasAdminLocked() bool {
	alive := []context.Context{}
	for _, ctx := range g.admins {
		if ctx.Err() == nil {
			alive = append(alive, ctx)
		}
	}
	g.admins = alive
	return len(alive) > 0
}

// addAdmin notes that the present configuration has an admin block.
func (g *registry) addAdmin(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hasAdminLocked()
	g.admins = append(g.admins, ctx)
	for _, one := range g.engines {
		one.count(true)
	}
	if !g.sampling {
		g.sampling = true
		go g.work()
	}
}

// work samples the routes, and registers this gateway, while there is an admin block. It is a loop: in the interpreter, timers that start each
// other keep the frames of all before them alive (R10).
func (g *registry) work() {
	defer func() { recover() }()
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for g.isSampling() {
		<-ticker.C
		g.workOnce()
	}
}

func (g *registry) workOnce() {
	defer func() { recover() }() // R12
	if g.sample() && g.registrationDue() {
		g.registerAll()
	}
}

func (g *registry) isSampling() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sampling
}

// registrationDue reports whether the gateways are to be registered now, after the first sample and then once in each interval.
func (g *registry) registrationDue() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := g.registered.IsZero() || time.Since(g.registered) >= fleetInterval
	if due {
		g.registered = time.Now()
	}
	return due
}

func (g *registry) sample() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sampling = g.hasAdminLocked()
	if g.sampling {
		for _, one := range g.engines {
			one.tally.sample()
		}
	}
	return g.sampling
}

// route is what admin shows of one use of a middleware in a router of Traefik, until a reload replaces it. It does not refer to the
// Middleware, which refers to the engines and so to the route (R36).
type route struct {
	ctx      context.Context
	parts    []string // what is enabled, in words
	compared string   // to compare it with others

	limits  []string // the names of its limits and tiers, and of the penalty
	buckets map[string]*bucketRule
	penalty bool             // it penalises clients
	policy  *breaker.Policy  // nil: no circuit breaker
	scope   *identity.Source // what its circuits are for; nil: it has one circuit
	timeout time.Duration    // redis.timeout
	cache   *ratelimit.Cache // of the identities that it may decide from memory
}

// limitNames returns the names of the limits that may refuse requests of the route, with the penalty as the last.
func (m *Middleware) limitNames() []string {
	names := []string{}
	if m.limit == nil {
		return names
	}
	if m.rules == nil {
		return append(names, defaultLimit)
	}
	if m.rules.Own != nil {
		names = append(names, defaultLimit)
	}
	for _, rule := range m.rules.Limits {
		names = append(names, rule.Name)
	}
	for _, rule := range m.rules.Tiers {
		if rule.Limit != nil {
			names = append(names, rule.Name)
		}
	}
	if m.rules.Penalty != nil {
		names = append(names, ratelimit.PenaltyName)
	}
	return names
}

// addRoute notes that a middleware uses its engines. It makes no closure: that would keep the frames of its callers alive (R10), and with them
// the routes before, and so all.
func (g *registry) addRoute(ctx context.Context, m *Middleware) {
	added := &route{ctx: ctx, parts: m.parts, compared: m.compared(), policy: m.policy, scope: m.circuitScope, timeout: m.redis.Timeout, limits: m.limitNames(), buckets: m.bucketRules()}
	added.cache = m.cache
	added.penalty = m.rules != nil && m.rules.Penalty != nil
	g.mu.Lock()
	defer g.mu.Unlock()
	alive := []*route{}
	for _, other := range m.engines.routes {
		if other.ctx.Err() == nil {
			alive = append(alive, other)
		}
	}
	m.engines.routes = append(alive, added)
}

// shownEngines are the engines of one name, as admin shows them.
type shownEngines struct {
	*engines
	name   string // what admin calls them: the label, and more where two have the same
	routes []*route
}

// shown returns all engines that the present configuration uses, in the order of their names. While a reload may be under way it also returns
// those that only the previous configuration uses: their handlers answer requests until the new ones are ready.
func (g *registry) shown() []*shownEngines {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := []*shownEngines{}
	previous := []*shownEngines{}
	for _, one := range g.engines {
		var alive, before []*route
		for _, found := range one.routes {
			if found.ctx.Err() == nil {
				alive = append(alive, found)
			} else {
				before = append(before, found)
			}
		}
		if len(alive) > 0 {
			all = append(all, &shownEngines{engines: one, name: one.label, routes: alive})
		} else if len(before) > 0 {
			previous = append(previous, &shownEngines{engines: one, name: one.label, routes: before})
		}
	}
	if len(all) == 0 || time.Since(g.cancelled) < reloadTime {
		all = append(all, previous...)
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].name != all[j].name {
			return all[i].name < all[j].name
		}
		return all[i].id < all[j].id
	})
	for i, one := range all {
		if i > 0 && all[i-1].engines.label == one.engines.label {
			one.name = one.engines.label + "#" + one.id[:6] // the same name on another Redis
		}
	}
	return all
}

// count says whether the present configuration has an admin block, so that the engines count.
func (e *engines) count(on bool) {
	e.tally.setOn(on)
	if on && e.store != nil {
		e.store.Count()
	}
}
