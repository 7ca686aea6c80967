package resilience

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/resilient-gateway/resilience/ratelimit"
)

// A request may pass several instances of the middleware: an entry point and a router use it, or two chains, or a router and a service. Two
// rules hold for all instances in one process:
//
//   - A request counts once for engines. What an outer instance does, an inner instance with the same engines does not do again.
//   - If an inner instance refuses a request, its answer says nothing about the service, and an outer instance does not count it.
//
// Therefore an outer instance puts itself into the context of the request. An inner instance finds it there, and no client can put anything
// there. That allocates. So an instance checks requests only until it has learned which other instances they pass, and always once it has
// met another instance.

// maxChecks is how many requests an instance checks when it is new, and each time another instance wakes it.
const maxChecks = 100

// wakingChecks is how many of its first checks may wake the other instances.
const wakingChecks = 8

// outersKey finds the outer instances of a request in its context.
var outersKey = new(int)

// outer is an instance that a request has passed. The context holds all of them in a slice, the innermost last: the interpreter does not
// handle types that refer to themselves (R36).
type outer struct {
	instance *instance
	part     *part         // what it does with this request
	address  string        // of the client
	refused  *atomic.Int64 // refused or passedThrough, by the inner instances; nil: this one has no breaker, and need not know
}

// part is what an instance does with a request: it only limits, only breaks, or does both. It does not check for other instances.
type part struct {
	limits, breaks bool
	handler        http.Handler
}

// cohort is the instances that Traefik made together. No request passes instances of two cohorts. A middleware's mu may be taken while the
// cohort's lock is held, never the other way round.
type cohort struct {
	done <-chan struct{}

	mu      sync.Mutex      // guards what follows
	wakes   int64           // how often all instances were woken to check requests again
	resting []func(on bool) // the setChecks of instances that check none
}

// instance is one use of the middleware, as other instances on the route of a request see it.
type instance struct {
	name      string // Traefik's name of the middleware
	engines   *engines
	limit     *ratelimit.Limit // nil: it does not limit
	client    string           // its key source as text, to compare
	breaks    bool
	scope     string // what its circuits are for, as text, to compare
	setChecks func(on bool)
	cohort    *cohort

	// Guarded by the cohort's lock.
	woken     int64   // the cohort's wakes when it last began to count
	left      int     // how many more requests it checks
	seen      int     // how many it has checked
	metOthers bool    // it has met another instance, and checks all requests
	warned    bool    // of a repetition
	parts     []*part // by what they do: 1 limits, 2 breaks, 4 is inside others

	usual usualWay
}

// usualWay is what an instance that has met another one remembers, to decide most requests without looking again. It is guarded by the
// middleware's mu.
type usualWay struct {
	checked int64     // requests
	alone   *part     // for requests that have passed no other instance; nil: not known
	outer   *instance // the only instance that other requests have passed; nil: not known
	inside  *part     // for requests that have passed outer; nil: they are only forwarded
}

// addInstance makes the instance of a middleware, which checks its first requests.
func (g *registry) addInstance(ctx context.Context, m *Middleware, name string) {
	i := &instance{
		name: name, engines: m.engines, limit: m.limit, client: fmt.Sprint(m.keySource, m.rulesText), breaks: m.policy != nil, scope: scopeText(m.circuitScope), left: maxChecks,
		setChecks: m.setChecks, parts: make([]*part, 8),
	}
	done := ctx.Done()
	g.mu.Lock()
	if g.cohort == nil || g.cohort.done != done {
		g.cohort = &cohort{done: done}
	}
	i.cohort = g.cohort
	g.mu.Unlock()
	m.instance = i
	m.setChecks(true)
}

// setChecks switches the check of requests on or off.
func (m *Middleware) setChecks(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checks = on
	m.setFast(on, nil)
	if on && switchEnabled && m.current != nil {
		*m.current = m.fast
	}
}

// checkedLocked answers a request that may pass other instances. It releases the lock. If the usual way is known, it is checked again only
// for the first, second, fourth, eighth request and so on.
func checkedLocked(m *Middleware, w http.ResponseWriter, r *http.Request) {
	if m.sampling {
		sampledLocked(m, w, r)
		return
	}
	way := &m.instance.usual
	way.checked++
	usual := way.checked&(way.checked-1) != 0
	alone, outer, inside := way.alone, way.outer, way.inside
	m.mu.Unlock()
	outers := outersOf(r)
	if usual && alone != nil && len(outers) == 0 {
		serveMarked(m, alone, outers, w, r)
		return
	}
	if usual && outer != nil && len(outers) == 1 && outers[0].instance == outer {
		if inside == nil {
			passThrough(m, outers[0], w, r)
			return
		}
		if !isCopy(r) {
			noteForOuter(outers, r, refused)
			serveMarked(m, inside, outers, w, r)
			return
		}
	}
	checkAndServe(m, outers, w, r)
}

// passThrough forwards a request for which its outer instance has already done everything. If an earlier attempt of the same request was
// refused, it notes that this one was forwarded.
func passThrough(m *Middleware, one *outer, w http.ResponseWriter, r *http.Request) {
	if one.refused != nil && one.refused.Load() != passedThrough {
		notePassedThrough(one, r)
	}
	m.next.ServeHTTP(w, r)
}

// notePassedThrough notes for the outer instance that the last attempt was forwarded.
func notePassedThrough(one *outer, r *http.Request) {
	if !isCopy(r) {
		noteForOuter([]*outer{one}, r, passedThrough)
	}
}

// checkAndServe decides what part of this instance answers a request, and calls it.
func checkAndServe(m *Middleware, outers []*outer, w http.ResponseWriter, r *http.Request) {
	copied := len(outers) > 0 && isCopy(r)
	part, repeated := m.decidePart(outers, copied)
	if repeated != nil {
		m.warnOfRepetition(repeated)
	}
	done := int64(refused)
	if part == nil {
		done = passedThrough
	}
	if !copied {
		noteForOuter(outers, r, done)
	}
	if part == nil {
		m.next.ServeHTTP(w, r)
		return
	}
	serveMarked(m, part, outers, w, r)
}

// isCopy reports whether Traefik made a request for a mirror, so that no client waits for its answer: the context of such a request never
// ends, and returns a new channel from each call of Done.
func isCopy(r *http.Request) bool {
	one, other := r.Context().Done(), r.Context().Done()
	return one != other
}

// serveMarked has a part answer a request, and marks the request, so that inner instances find this one.
func serveMarked(m *Middleware, part *part, outers []*outer, w http.ResponseWriter, r *http.Request) {
	own := &outer{instance: m.instance, part: part}
	if part.breaks {
		own.address = r.RemoteAddr
		own.refused = &atomic.Int64{}
	}
	all := []*outer{own}
	if len(outers) > 0 {
		all = append(append([]*outer{}, outers...), own)
	}
	part.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), outersKey, all)))
}

// outersOf returns the instances that a request has passed and that have put themselves into its context.
func outersOf(r *http.Request) []*outer {
	all, _ := r.Context().Value(outersKey).([]*outer)
	return all
}

// What an instance does with a request, as outer instances need to know.
const (
	passedThrough = 0
	refused       = 1 // or not forwarded yet
	refusedCall   = 2 // as a gRPC call, with status 200
)

// noteForOuter notes for the outer instances what an inner one does with a request. With a retry, the last attempt counts. A request for a
// page of the errors middleware counts for nothing: it has no client's address, where the client's own request has one. Addresses are not
// compared, because a middleware may have changed the client's.
func noteForOuter(outers []*outer, r *http.Request, done int64) {
	for _, one := range outers {
		if one.refused != nil && (r.RemoteAddr != "" || one.address == "") {
			one.refused.Store(done)
		}
	}
}

// noteRefusedCall notes for all instances that a request has passed that it was refused as a gRPC call, by an answer with status 200.
func noteRefusedCall(r *http.Request) {
	if outers := outersOf(r); len(outers) > 0 && !isCopy(r) {
		noteForOuter(outers, r, refusedCall)
	}
}

// refusedInside reports whether an answer is the refusal of an instance inside this one, or follows from one. A success does not follow from
// a refusal, except that of a gRPC call: another service has answered.
func refusedInside(m *Middleware, r *http.Request, status int) bool {
	if status < http.StatusBadRequest && status != http.StatusOK {
		return false
	}
	all := outersOf(r)
	if len(all) == 0 {
		return false
	}
	own := all[len(all)-1]
	if own.instance != m.instance || own.refused == nil {
		return false
	}
	done := own.refused.Load()
	return done == refusedCall || done == refused && status >= http.StatusBadRequest
}

// decidePart returns the part that answers a request which has passed the outer instances; nil: it is only forwarded. It also returns an
// outer instance that does the same as this one, the first time that there is one. A mirror's copy matters only to those that do the same.
func (m *Middleware) decidePart(outers []*outer, copied bool) (do *part, repeated *instance) {
	i := m.instance
	i.cohort.mu.Lock()
	defer i.cohort.mu.Unlock()
	limits, breaks := i.limit != nil, i.breaks
	for _, one := range outers {
		again := false
		if limits && limitsAlike(one, i) {
			limits = false
			again = true
		}
		if breaks && breaksAlike(one, i) {
			breaks = false
			again = true
		}
		if again || one.part.breaks && !copied {
			keepCheckingLocked(i)
			keepCheckingLocked(one.instance)
		}
		if again && !i.warned {
			i.warned = true
			repeated = one.instance
		}
	}
	countCheckLocked(i, len(outers) == 0)
	do = m.partOfLocked(limits, breaks, len(outers) > 0 && !copied)
	if i.metOthers && !copied {
		m.rememberUsual(outers, do)
	}
	return do, repeated
}

// limitsAlike reports whether an outer instance takes the tokens that an inner one would take.
func limitsAlike(outer *outer, inner *instance) bool {
	one := outer.instance
	return outer.part.limits && one.engines == inner.engines && one.limit == inner.limit && one.client == inner.client
}

// breaksAlike reports whether an outer instance has the circuit of an inner one.
func breaksAlike(outer *outer, inner *instance) bool {
	return outer.part.breaks && outer.instance.engines == inner.engines && outer.instance.scope == inner.scope
}

// keepCheckingLocked has an instance check all requests from now on. The cohort's lock is held.
func keepCheckingLocked(i *instance) {
	if !i.metOthers {
		i.metOthers = true
		i.setChecks(true)
	}
}

// countCheckLocked counts a request that is checked. The first requests wake the other instances, because an instance that is reached for the
// first time may be inside or outside any of them. A request that has passed no marked instance also wakes them if this instance has met
// others: it may have passed one that checks nothing. Few such requests get here (see checkedLocked). The cohort's lock is held.
func countCheckLocked(i *instance, alone bool) {
	c := i.cohort
	if i.woken != c.wakes {
		i.woken = c.wakes
		i.left = maxChecks
	}
	i.seen++
	if i.metOthers && alone || i.seen <= wakingChecks && i.seen&(i.seen-1) == 0 {
		wakeAllLocked(c)
		i.woken = c.wakes
	}
	i.left--
	if i.left == 0 && !i.metOthers {
		i.setChecks(false)
		c.resting = append(c.resting, i.setChecks)
	}
}

// wakeAllLocked has all instances check requests again. The cohort's lock is held.
func wakeAllLocked(c *cohort) {
	c.wakes++
	for _, setChecks := range c.resting {
		setChecks(true)
	}
	c.resting = nil
}

// rememberUsual remembers the part for requests that have passed the same outer instances.
func (m *Middleware) rememberUsual(outers []*outer, do *part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	way := &m.instance.usual
	if len(outers) == 0 {
		way.alone = do
	}
	if len(outers) == 1 {
		way.outer = outers[0].instance
		way.inside = do
	}
}

// partOfLocked returns the part that limits, breaks, or does both; nil if it is to do neither. A part inside other instances notes for them
// when it forwards a request. The cohort's lock is held.
func (m *Middleware) partOfLocked(limits, breaks, inside bool) *part {
	if !limits && !breaks {
		return nil
	}
	kind := 0
	if limits {
		kind++
	}
	if breaks {
		kind += 2
	}
	if inside {
		kind += 4
	}
	parts := m.instance.parts
	if parts[kind] == nil {
		parts[kind] = &part{limits: limits, breaks: breaks, handler: m.newPart(limits, breaks, inside)}
	}
	return parts[kind]
}

// newPart returns the handler of a copy of the middleware that only limits, only breaks, or does both.
func (m *Middleware) newPart(limits, breaks, inside bool) http.Handler {
	reduced := &Middleware{}
	m.mu.Lock()
	*reduced = *m
	m.mu.Unlock()
	reduced.startCounting()
	reduced.source = &statusSource{}
	reduced.settings = &settings{}
	*reduced.settings = *m.settings
	if !limits {
		reduced.settings.limit = nil
		reduced.settings.rules = nil
	}
	if !breaks {
		reduced.settings.policy = nil
	}
	reduced.checks = false
	if inside {
		next := m.next
		reduced.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			all := outersOf(r)
			noteForOuter(all[:len(all)-1], r, passedThrough)
			next.ServeHTTP(w, r)
		})
	}
	return reduced.newHandler()
}

// warnOfRepetition warns that two instances do the same, once in the life of the engines.
func (m *Middleware) warnOfRepetition(outer *instance) {
	const warning = "requests come through this middleware twice, and count once"
	if processRegistry.firstWarning(m.engines, warning) {
		m.log.Warn(warning, "outer", outer.name, "inner", m.instance.name)
	}
}

// firstWarning reports whether engines have not logged a warning yet, and notes that they have now.
func (g *registry) firstWarning(one *engines, warning string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one.loggedWarnings[warning] {
		return false
	}
	one.loggedWarnings[warning] = true
	return true
}
