package resilience

import (
	"net/http"
	"reflect"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The handlers of this file answer most requests, and are all that most requests run. The interpreter makes every call dear, of
// compiled code most of all, and every value in a function, also in a branch not taken, and := makes its value twice; what a
// closure has captured costs nothing, nor does the length of a channel. So each handler is one closure, written out, though they
// repeat each other; each way off it is a function, which costs a third of what a method does. docs/performance.md has the figures.

// The selectors would be values.
const (
	statusOK            = http.StatusOK
	tooManyRequests     = http.StatusTooManyRequests
	internalServerError = http.StatusInternalServerError
	serviceUnavailable  = http.StatusServiceUnavailable
)

// leanBoth limits and breaks.
func (m *Middleware) fastBoth() http.HandlerFunc {
	mu := m.mu
	var ( // guarded by mu: what a request needs no longer than it has the lock
		raw           string
		values        []string
		e             *ratelimit.Grant
		found, leased bool
		missing       bool // raw is not known yet
		writer        reflect.Type
		length        int64
		hasBody       bool
		checks        bool // requests are checked for other instances on their way (nesting.go)
	)
	m.check = func(on bool) { checks = on }
	hand, held, next, view, own := m.cache, m.cache.Grants, m.next, m.view, m.source
	report := m.report
	m.setReport = func(of func(*tracked)) { report = of }
	since, begun, typeOf := time.Since, start, reflect.TypeOf
	ofHeader, ofConnection, header := m.header != "", m.keySource.OfConnection(), m.header
	derived := !ofConnection
	return func(w http.ResponseWriter, r *http.Request) {
		var (
			now   int64
			other bool // a writer than those that are known to tell the status
		)
		now = int64(since(begun)) / 1000
		mu.Lock()
		if checks {
			checked(m, w, r)
			return
		}
		if now >= view.Healthy {
			slowCircuit(m, w, r, now)
			return
		}
		missing = derived
		if ofConnection {
			raw = r.RemoteAddr
		} else if ofHeader {
			values = r.Header[header]
			if len(values) == 1 {
				raw = values[0]
				missing = false
			}
		}
		if missing { // another criterion; or the header has several lines, another spelling, or is not there
			raw = identityOfLocked(m, r)
		}
		leased = false
		e, found = held[raw]
		if found {
			if e.Tokens > 0 {
				leased = now < e.Until
			}
			if leased {
				e.Tokens--
			} else {
				refuseEmpty(m, w, r, e, now)
				return
			}
		}
		length = r.ContentLength
		hasBody = length != 0
		if hasBody {
			trackBody(r)
		}
		writer = typeOf(w)
		other = writer != own.writer
		if leased {
			mu.Unlock()
		} else {
			verdict := ratelimit.AllowID(hand, raw, now)
			if verdict <= 1 {
				goOn(m, w, r, verdict, now)
				return
			}
			now = verdict
		}
		if other {
			forward(m, w, r, now)
			return
		}
		p := tracked{w: w, r: r, at: now}
		defer report(&p)
		next.ServeHTTP(w, r)
		p.finished = true
	}
}

// leanLimiter limits.
func (m *Middleware) fastLimit() http.HandlerFunc {
	mu := m.mu
	var ( // guarded by mu
		raw           string
		values        []string
		e             *ratelimit.Grant
		found, leased bool
		missing       bool // raw is not known yet
		checks        bool // see leanBoth
	)
	m.check = func(on bool) { checks = on }
	hand, held, next := m.cache, m.cache.Grants, m.next
	since, begun := time.Since, start
	ofHeader, ofConnection, header := m.header != "", m.keySource.OfConnection(), m.header
	derived := !ofConnection
	return func(w http.ResponseWriter, r *http.Request) {
		//lint:ignore S1021 the interpreter makes two values for :=
		var now int64
		now = int64(since(begun)) / 1000
		mu.Lock()
		if checks {
			checked(m, w, r)
			return
		}
		missing = derived
		if ofConnection {
			raw = r.RemoteAddr
		} else if ofHeader {
			values = r.Header[header]
			if len(values) == 1 {
				raw = values[0]
				missing = false
			}
		}
		if missing { // another criterion; or the header has several lines, another spelling, or is not there
			raw = identityOfLocked(m, r)
		}
		leased = false
		e, found = held[raw]
		if found {
			if e.Tokens > 0 {
				leased = now < e.Until
			}
			if leased {
				e.Tokens--
			} else {
				refuseEmpty(m, w, r, e, now)
				return
			}
		}
		if leased {
			mu.Unlock()
		} else {
			verdict := ratelimit.AllowID(hand, raw, now)
			if verdict <= 0 {
				goOn(m, w, r, verdict, now)
				return
			}
		}
		next.ServeHTTP(w, r)
	}
}

// leanBreaker breaks.
func (m *Middleware) fastBreak() http.HandlerFunc {
	mu := m.mu
	var ( // guarded by mu
		writer  reflect.Type
		length  int64
		hasBody bool
		checks  bool // see leanBoth
	)
	m.check = func(on bool) { checks = on }
	next, view, own := m.next, m.view, m.source
	report := m.report
	m.setReport = func(of func(*tracked)) { report = of }
	since, begun, typeOf := time.Since, start, reflect.TypeOf
	return func(w http.ResponseWriter, r *http.Request) {
		//lint:ignore S1021 the interpreter makes two values for :=
		var now int64
		now = int64(since(begun)) / 1000
		mu.Lock()
		if checks {
			checked(m, w, r)
			return
		}
		if now >= view.Healthy {
			slowCircuit(m, w, r, now)
			return
		}
		length = r.ContentLength
		hasBody = length != 0
		if hasBody {
			trackBody(r)
		}
		writer = typeOf(w)
		other := writer != own.writer
		mu.Unlock()
		if other {
			forward(m, w, r, now)
			return
		}
		p := tracked{w: w, r: r, at: now}
		defer report(&p)
		next.ServeHTTP(w, r)
		p.finished = true
	}
}

// rawOf returns what the key of a request is made of, where that is one string, or else the key.
func identityOf(m *Middleware, r *http.Request) string {
	if m.headerValue != nil {
		return m.headerValue(r)
	}
	if m.ofConnection {
		return r.RemoteAddr
	}
	return m.bucketKeyOf(r)
}

// rawLocked is rawOf with the lock held, which it gives back meanwhile: to make a key takes long, and might panic.
func identityOfLocked(m *Middleware, r *http.Request) string {
	m.mu.Unlock()
	//lint:ignore S1021 the interpreter makes two values for :=
	var raw string
	raw = identityOf(m, r)
	m.mu.Lock()
	return raw
}

// naming returns how what rawOf returns becomes a key.
func keyMaker(c identity.Source) ratelimit.KeyMaker {
	switch {
	case c.Header != "":
		return ratelimit.KeyMaker{Kind: identity.KindHeader, MaxJoin: identity.MaxLength, Key: identity.OfHeader}
	case c.OfConnection():
		return ratelimit.KeyMaker{MaxJoin: -1, Key: c.OfAddress, ManyToOne: true} // a connection each
	}
	return ratelimit.KeyMaker{}
}

// unhealthy answers a request though the view of the breaker is not known to be healthy: it refuses it where the circuit is known
// to be open, and has it go on where the view is only to be renewed. The lock is held, and given back.
func slowCircuit(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	until := m.view.Open
	m.mu.Unlock()
	if now < until {
		refuseOpen(m, w, r, until, now)
		return
	}
	if m.breaker.ExtendView(now, m.policy) {
		m.handler.ServeHTTP(w, r)
		return
	}
	serve(m, w, r, now)
}

// refuseOpen refuses a request, for the circuit is known to be open until then. The next ones are refused with the same words.
func refuseOpen(m *Middleware, w http.ResponseWriter, r *http.Request, until, now int64) {
	m.breaker.RecheckOpen(now, m.policy)
	circuitOpen.write(w, r, seconds(until-now))
	m.noteOpen(now)
	if !m.debug {
		m.switchToOpen(now)
	}
}

// emptyHanded answers a request whose client has no token in hand: it refuses it, if its bucket is known to be empty. The lock is held,
// and given back.
func refuseEmpty(m *Middleware, w http.ResponseWriter, r *http.Request, e *ratelimit.Grant, now int64) {
	if now >= e.RefuseUntil {
		renewLease(m, w, r, e, now)
		return
	}
	e.Refused++
	if now >= e.NoteAt {
		noteEmpty(m, r, e, now)
	}
	now = e.NextToken - now // until there is a token: one value less than a variable of its own
	m.mu.Unlock()
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = limitedLength
	header["Retry-After"] = oneSecond
	if now > 1000000 {
		header["Retry-After"] = seconds(now)
	}
	if r.ContentLength != 0 {
		closeAfter(header, r)
	}
	w.WriteHeader(tooManyRequests)
	w.Write(limitedText)
}

// again answers a request of a client whose lease is used up, or to be renewed. The lock is held, and given back.
func renewLease(m *Middleware, w http.ResponseWriter, r *http.Request, e *ratelimit.Grant, now int64) {
	proceed(m, w, r, ratelimit.AllowGrant(m.cache, e, identityOfLocked(m, r), now), now)
}

// goOn answers a request that arrived at the time now, and may not pass at once.
func goOn(m *Middleware, w http.ResponseWriter, r *http.Request, verdict, now int64) {
	if verdict == ratelimit.Undecided {
		verdict = decideLocally(m, m.bucketKeyOf(r), now, ratelimit.LastErr(m.cache))
	}
	if verdict <= 0 {
		m.refuse(w, r, verdict, now)
	} else if m.policy == nil {
		m.next.ServeHTTP(w, r)
	} else {
		m.try(w, r, hasBody(r), now, nil)
	}
}
