package resilience

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/resilient-gateway/resilience/ratelimit"
)

// A request may come through several instances of the middleware: an entry point and a router name it, two chains do, a router and a
// service. Two rules hold for all of them in one process:
//
//   - A request counts once per scope. What an outer instance does, an inner one of the same scope does not do again.
//   - What an inner instance answers because it refuses a request says nothing about the service: an outer one does not count it.
//
// So an outer instance puts itself into the context of the request, where an inner one finds it, and no client can put anything. That
// makes objects. An instance checks requests only while it learns what else is on their way, and for good once it has met another one.

// attention is how many requests an instance checks when it is new, and each time others call.
const attention = 500

// calling is how many requests an instance checks until it stops to call others.
const calling = 16

// outersKey finds the outer instances of a request in its context.
var outersKey = new(int)

// outer is an instance that a request has come through. The context holds all of them in a slice, the innermost last: the interpreter
// cannot be trusted with types that hold themselves.
type outer struct {
	instance       *instance
	limits, breaks bool   // what it does with this request
	address        string // of the client
	refused        *atomic.Int64
}

// cohort is the instances that Traefik made together. No request comes through instances of two.
type cohort struct {
	done <-chan struct{}

	mu      sync.Mutex      // guards what follows
	calls   int64           // to check requests
	resting []func(on bool) // the attend of instances that do not
}

// instance is one use of the middleware, as others on the way of a request know it.
type instance struct {
	name   string // as Traefik says it
	scope  *scope
	limit  *ratelimit.Limit // nil: it does not limit
	client string           // what its buckets are of
	breaks bool
	cohort *cohort

	attend func(on bool)

	// Guarded by the cohort's lock.
	called int64 // calls of the cohort that were heard
	left   int   // requests to check
	seen   int   // requests checked
	alone  int   // those that had come through no other instance
	met    bool  // another instance: all requests are checked
	warned bool
	parts  []http.Handler // see partOf
}

// enter makes the instance that a middleware is. It checks its first requests.
func (g *registry) enter(ctx context.Context, m *Middleware, name string) {
	i := &instance{
		name: name, scope: m.scope, limit: m.limit, client: fmt.Sprint(m.client), breaks: m.policy != nil, left: attention,
		attend: m.attend, parts: make([]http.Handler, 8),
	}
	g.mu.Lock()
	if g.cohort == nil || g.cohort.done != ctx.Done() {
		g.cohort = &cohort{done: ctx.Done()}
	}
	i.cohort = g.cohort
	g.mu.Unlock()
	m.instance = i
	m.attend(true)
}

// attend has the middleware check requests, or not.
func (m *Middleware) attend(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checks = on
	m.check(on)
	if on && m.facing != nil {
		*m.facing = m.lean
	}
}

// checked answers a request that may come through other instances. The lock is held, and given back.
func checked(m *Middleware, w http.ResponseWriter, r *http.Request) {
	m.mu.Unlock()
	outers := outersOf(r)
	own := &outer{
		instance: m.instance, limits: m.limit != nil, breaks: m.policy != nil, address: r.RemoteAddr, refused: &atomic.Int64{},
	}
	handler, news := m.enlist(outers, own)
	if news != nil {
		m.warnOfRepetition(news)
	}
	if handler == nil {
		note(outers, r, handedOn)
		m.next.ServeHTTP(w, r)
		return
	}
	note(outers, r, refused)
	all := make([]*outer, 0, len(outers)+1)
	all = append(all, outers...)
	all = append(all, own)
	handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), outersKey, all)))
}

// outersOf returns the instances that a request has come through, as far as they have put themselves into its context.
func outersOf(r *http.Request) []*outer {
	all, _ := r.Context().Value(outersKey).([]*outer)
	return all
}

// What an instance does with a request, as outer ones are to know.
const (
	handedOn = 0
	refused  = 1 // or not handed on yet
)

// note tells outer instances what is done with a request inside of them. With a retry, the last attempt holds. The request for a page
// of the errors middleware has no client's address: it decides nothing.
func note(outers []*outer, r *http.Request, done int64) {
	for _, one := range outers {
		if one.address == r.RemoteAddr {
			one.refused.Store(done)
		}
	}
}

// refusedInside tells whether an instance inside of this one refused a request.
func refusedInside(m *Middleware, r *http.Request) bool {
	all := outersOf(r)
	if len(all) == 0 {
		return false
	}
	own := all[len(all)-1]
	return own.instance == m.instance && own.refused.Load() == refused
}

// enlist takes from an instance what outer ones do already, and returns what answers the request, or nil where nothing is left to do;
// and the name of an outer instance, if it is news that it does the same.
func (m *Middleware) enlist(outers []*outer, own *outer) (handler http.Handler, news *instance) {
	i := m.instance
	i.cohort.mu.Lock()
	defer i.cohort.mu.Unlock()
	for _, one := range outers {
		repeats := repeats(one, own)
		if repeats || one.breaks {
			stay(i)
			stay(one.instance)
		}
		if repeats && !i.warned {
			i.warned = true
			news = one.instance
		}
	}
	learn(i, len(outers) == 0)
	return m.partOf(own.limits, own.breaks, len(outers) > 0), news
}

// repeats takes from an inner instance what an outer one does, and tells whether there was anything. Limits are the same where they take
// the same token from the same bucket; circuits are where they are of one scope.
func repeats(outer, inner *outer) bool {
	if outer.instance.scope != inner.instance.scope {
		return false
	}
	found := false
	if inner.breaks && outer.breaks {
		inner.breaks = false
		found = true
	}
	if inner.limits && outer.limits && outer.instance.limit == inner.instance.limit && outer.instance.client == inner.instance.client {
		inner.limits = false
		found = true
	}
	return found
}

// stay has an instance check all requests from now on. The cohort's lock is held.
func stay(i *instance) {
	if !i.met {
		i.met = true
		i.attend(true)
	}
}

// learn counts a request that is checked. The first ones call the others: those that are reached for the first time may be inside or
// outside of any. An instance that has met others, and is reached past them too, calls each time this has doubled. The cohort's lock is
// held.
func learn(i *instance, alone bool) {
	c := i.cohort
	if i.called != c.calls {
		i.called = c.calls
		i.left = attention
	}
	i.seen++
	calls := i.seen <= calling && isPowerOfTwo(i.seen)
	if alone {
		i.alone++
		if i.met {
			calls = isPowerOfTwo(i.alone)
		}
	}
	if calls {
		call(c)
		i.called = c.calls
	}
	i.left--
	if i.left == 0 && !i.met {
		i.attend(false)
		c.resting = append(c.resting, i.attend)
	}
}

// call has all instances check requests again. The lock is held.
func call(c *cohort) {
	c.calls++
	for _, attend := range c.resting {
		attend(true)
	}
	c.resting = nil
}

func isPowerOfTwo(n int) bool { return n&(n-1) == 0 }

// partOf returns a handler that answers as the middleware does, but only limits, only breaks, or both; nil where it is to do neither. It
// checks nothing; inside of others it tells them when it hands a request on. The cohort's lock is held.
func (m *Middleware) partOf(limits, breaks, inside bool) http.Handler {
	kind := 0
	if limits {
		kind++
	}
	if breaks {
		kind += 2
	}
	if kind == 0 {
		return nil
	}
	if inside {
		kind += 4
	}
	parts := m.instance.parts
	if parts[kind] == nil {
		parts[kind] = m.newPart(limits, breaks, inside)
	}
	return parts[kind]
}

func (m *Middleware) newPart(limits, breaks, inside bool) http.Handler {
	part := &Middleware{}
	*part = *m
	part.settings = &settings{}
	*part.settings = *m.settings
	if !limits {
		part.settings.limit = nil
	}
	if !breaks {
		part.settings.policy = nil
	}
	part.checks = false
	if inside {
		next := m.next
		part.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			all := outersOf(r)
			note(all[:len(all)-1], r, handedOn)
			next.ServeHTTP(w, r)
		})
	}
	part.ready()
	return part.front
}

// warnOfRepetition warns once in the life of a scope.
func (m *Middleware) warnOfRepetition(outer *instance) {
	const warning = "requests come through this middleware twice, and count once"
	if shared.isNews(m.scope, warning) {
		m.log.Warn(warning, "outer", outer.name, "inner", m.instance.name)
	}
}

// isNews tells whether a scope has never warned of something, and notes that it has.
func (g *registry) isNews(one *scope, warning string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if one.warned[warning] {
		return false
	}
	one.warned[warning] = true
	return true
}
