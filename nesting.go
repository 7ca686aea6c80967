package resilience

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/resilient-gateway/resilience/ratelimit"
)

// A request may come through several instances of the middleware: an entry point and a router use it, or two chains, or a router and a
// service. Two rules hold for all of them in one process:
//
//   - A request counts once for engines. What an outer instance does, an inner one with the same engines does not do again.
//   - An answer with which an inner instance refuses a request says nothing about the service: an outer one does not count it.
//
// Therefore an outer instance puts itself into the context of the request, where an inner one finds it and no client can put anything. That
// allocates. An instance checks requests only while it learns what else is on their way, and always once it has met another one.

// maxChecks is how many requests an instance checks when it is new, and each time another instance wakes it.
const maxChecks = 100

// wakingChecks is how many of its first checks may wake the other instances.
const wakingChecks = 8

// outersKey finds the outer instances of a request in its context.
var outersKey = new(int)

// outer is an instance that a request has come through. The context holds all of them in a slice, the innermost last: the interpreter
// does not handle types that contain themselves.
type outer struct {
	instance *instance
	part     *part         // what it does with this request
	address  string        // of the client
	refused  *atomic.Int64 // whether an inner instance refused it; nil: it has no breaker, and need not know
}

// part answers as an instance does, but only limits, only breaks, or does both. It checks nothing.
type part struct {
	limits, breaks bool
	handler        http.Handler
}

// cohort is the instances that Traefik made together. No request comes through instances of two cohorts. Its lock may be held when a
// middleware's mu is taken, never the other way round.
type cohort struct {
	done <-chan struct{}

	mu      sync.Mutex      // guards what follows
	wakes   int64           // how often all instances had to check requests again
	resting []func(on bool) // the setChecks of instances that check none
}

// instance is one use of the middleware, as others on the way of a request see it.
type instance struct {
	name      string // as Traefik says it
	engines   *engines
	limit     *ratelimit.Limit // nil: it does not limit
	client    string           // its key source, in words
	breaks    bool
	setChecks func(on bool)
	cohort    *cohort

	// Guarded by the cohort's lock.
	woken     int64 // the cohort's wakes when it last began to count
	left      int   // requests to check
	seen      int   // requests checked
	metOthers bool  // another instance: all requests are checked
	warned    bool
	parts     []*part // by what they do

	usual usualWay
}

// usualWay is what an instance that has met another one need not find out for each request. It is guarded by the middleware's mu.
type usualWay struct {
	checked int64
	alone   *part     // for requests that have come through no other instance; nil: not known
	outer   *instance // the only instance that other requests have come through; nil: not known
	inside  *part     // for those; nil: nothing is to be done
}

// addInstance makes the instance of a middleware, which checks its first requests.
func (g *registry) addInstance(ctx context.Context, m *Middleware, name string) {
	i := &instance{
		name: name, engines: m.engines, limit: m.limit, client: fmt.Sprint(m.keySource), breaks: m.policy != nil, left: maxChecks,
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

// checkedLocked answers a request that may come through other instances. The lock is released. If the way is known, only the
// first, second, fourth, eighth request and so on are looked at again.
func checkedLocked(m *Middleware, w http.ResponseWriter, r *http.Request) {
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

// passThrough forwards a request for which its outer instance has already done everything. An earlier attempt of the same request may have
// been refused.
func passThrough(m *Middleware, one *outer, w http.ResponseWriter, r *http.Request) {
	if one.refused != nil && one.refused.Load() == refused {
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

// checkAndServe finds out what is to be done with a request, and does it.
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

// isCopy reports whether Traefik has made a request for a mirror, so that nobody waits for its answer: the context of such a request never
// ends, and makes a channel each time it is asked for one.
func isCopy(r *http.Request) bool {
	one, other := r.Context().Done(), r.Context().Done()
	return one != other
}

// serveMarked has a part answer a request, which inner instances can see.
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

// outersOf returns the instances that a request has come through and that have put themselves into its context.
func outersOf(r *http.Request) []*outer {
	all, _ := r.Context().Value(outersKey).([]*outer)
	return all
}

// What an instance does with a request, as outer instances need to know.
const (
	passedThrough = 0
	refused       = 1 // or not handed on yet
)

// noteForOuter notes for the outer instances what is done with a request inside them. With a retry, the last attempt counts. A request for a
// page of the errors middleware has no client's address: it decides nothing. Any address will do, because a middleware may have changed it.
func noteForOuter(outers []*outer, r *http.Request, done int64) {
	for _, one := range outers {
		if one.refused != nil && (r.RemoteAddr != "" || one.address == "") {
			one.refused.Store(done)
		}
	}
}

// refusedInside reports whether an answer is the refusal of an instance inside this one, or follows from it. A success does not: then another
// service has answered.
func refusedInside(m *Middleware, r *http.Request, status int) bool {
	if status < http.StatusBadRequest {
		return false
	}
	all := outersOf(r)
	if len(all) == 0 {
		return false
	}
	own := all[len(all)-1]
	return own.instance == m.instance && own.refused != nil && own.refused.Load() == refused
}

// decidePart returns what is to be done with a request that has come through outer instances; nil: nothing. It also returns an outer instance
// that does the same, the first time that there is one. A copy concerns only those that do the same.
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
	return outer.part.breaks && outer.instance.engines == inner.engines
}

// keepCheckingLocked has an instance check all requests from now on. The cohort's lock is held.
func keepCheckingLocked(i *instance) {
	if !i.metOthers {
		i.metOthers = true
		i.setChecks(true)
	}
}

// countCheckLocked counts a request that is checked. The first ones wake the other instances, because an instance that is reached for the
// first time may be inside or outside any of them. If an instance has met others, so does a request that has come through none: it may have
// come through one that checks nothing. Few of those get here (checkedLocked). The cohort's lock is held.
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

// rememberUsual notes what is to be done with requests that come this way.
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

// partOfLocked returns the part that limits, breaks, or does both; nil if it is to do neither. Inside other instances it notes for them when
// it forwards a request. The cohort's lock is held.
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

func (m *Middleware) newPart(limits, breaks, inside bool) http.Handler {
	one := &Middleware{}
	m.mu.Lock()
	*one = *m
	m.mu.Unlock()
	one.source = &statusSource{}
	one.settings = &settings{}
	*one.settings = *m.settings
	if !limits {
		one.settings.limit = nil
	}
	if !breaks {
		one.settings.policy = nil
	}
	one.checks = false
	if inside {
		next := m.next
		one.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			all := outersOf(r)
			noteForOuter(all[:len(all)-1], r, passedThrough)
			next.ServeHTTP(w, r)
		})
	}
	one.assemble()
	return one.handler
}

// warnOfRepetition warns once in the life of the engines.
func (m *Middleware) warnOfRepetition(outer *instance) {
	const warning = "requests come through this middleware twice, and count once"
	if processRegistry.firstWarning(m.engines, warning) {
		m.log.Warn(warning, "outer", outer.name, "inner", m.instance.name)
	}
}

// firstWarning reports whether engines have never warned of something, and notes that they have.
func (g *registry) firstWarning(one *engines, warning string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one.loggedWarnings[warning] {
		return false
	}
	one.loggedWarnings[warning] = true
	return true
}
