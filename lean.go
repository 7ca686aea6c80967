package resilience

import (
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/clientkey"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The handlers of this file answer most requests, and are all that most requests run. The interpreter makes every call dear, of
// compiled code most of all, and every value in a function, also in a branch not taken; what a closure has captured costs nothing,
// nor does the length of a channel. So each handler is one closure, written out, though they repeat each other; each way off it is
// a function, which costs a third of what a method does. docs/performance.md has the figures.

// leanBoth limits and breaks.
func (m *Middleware) leanBoth() http.HandlerFunc {
	var e *ratelimit.Entry    // guarded by mu
	var mu sync.Locker = m.mu // a method of an interface is the cheaper one
	held, next, view, own := m.hand.Held, m.next, m.view, m.own
	refusing, left, land := view.Refusing, view.Seconds, m.lander(m.own)
	since, begun, typeOf := time.Since, start, reflect.TypeOf
	ofHeader, ofConnection, header := m.header != "", m.client.OfConnection(), m.header
	return func(w http.ResponseWriter, r *http.Request) {
		if len(refusing) > 0 {
			refuseAgain(w, waits[len(left)])
			return
		}
		raw := ""
		if ofHeader {
			values := r.Header[header]
			if len(values) > 0 {
				raw = values[0]
			}
		} else if ofConnection {
			raw = r.RemoteAddr
		} else {
			raw = rawOf(m, r)
		}
		now := int64(since(begun)) / 1000
		mu.Lock()
		known := own.writer
		if now >= view.Healthy {
			unhealthy(m, w, r, now)
			return
		}
		e = held[raw]
		if e == nil {
			now = consult(m, w, r, raw, now)
		} else if e.Tokens <= 0 {
			now = emptyHanded(m, w, r, e, now)
		} else if now >= e.Until {
			now = emptyHanded(m, w, r, e, now)
		} else {
			e.Tokens--
			mu.Unlock()
		}
		if now == 0 {
			return
		}
		if typeOf(w) != known {
			pass(m, w, r, now)
			return
		}
		p := &passage{w: w, r: r, at: now}
		defer land(p)
		next.ServeHTTP(w, r)
		p.finished = true
	}
}

// leanLimiter limits.
func (m *Middleware) leanLimiter() http.HandlerFunc {
	var e *ratelimit.Entry // guarded by mu
	var mu sync.Locker = m.mu
	held, next := m.hand.Held, m.next
	since, begun := time.Since, start
	ofHeader, ofConnection, header := m.header != "", m.client.OfConnection(), m.header
	return func(w http.ResponseWriter, r *http.Request) {
		raw := ""
		if ofHeader {
			values := r.Header[header]
			if len(values) > 0 {
				raw = values[0]
			}
		} else if ofConnection {
			raw = r.RemoteAddr
		} else {
			raw = rawOf(m, r)
		}
		now := int64(since(begun)) / 1000
		mu.Lock()
		e = held[raw]
		if e == nil {
			now = consult(m, w, r, raw, now)
		} else if e.Tokens <= 0 {
			now = emptyHanded(m, w, r, e, now)
		} else if now >= e.Until {
			now = emptyHanded(m, w, r, e, now)
		} else {
			e.Tokens--
			mu.Unlock()
		}
		if now == 0 {
			return
		}
		next.ServeHTTP(w, r)
	}
}

// leanBreaker breaks.
func (m *Middleware) leanBreaker() http.HandlerFunc {
	var mu sync.Locker = m.mu
	next, view, own := m.next, m.view, m.own
	refusing, left, land := view.Refusing, view.Seconds, m.lander(m.own)
	since, begun, typeOf := time.Since, start, reflect.TypeOf
	return func(w http.ResponseWriter, r *http.Request) {
		if len(refusing) > 0 {
			refuseAgain(w, waits[len(left)])
			return
		}
		now := int64(since(begun)) / 1000
		mu.Lock()
		known := own.writer
		if now >= view.Healthy {
			unhealthy(m, w, r, now)
			return
		}
		mu.Unlock()
		if typeOf(w) != known {
			pass(m, w, r, now)
			return
		}
		p := &passage{w: w, r: r, at: now}
		defer land(p)
		next.ServeHTTP(w, r)
		p.finished = true
	}
}

// refuseAgain refuses a request, for the circuit is open. retryAfter is the header's value.
func refuseAgain(w http.ResponseWriter, retryAfter []string) {
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = openLength
	header["Retry-After"] = retryAfter
	w.WriteHeader(http.StatusServiceUnavailable)
	w.Write(openText)
}

// rawOf returns what the key of a request is made of, where that is one string, or else the key.
func rawOf(m *Middleware, r *http.Request) string {
	if m.client.Header != "" {
		return r.Header.Get(m.client.Header)
	}
	if m.client.OfConnection() {
		return r.RemoteAddr
	}
	return m.keyOf(r)
}

// unhealthy answers a request though the view of the breaker is not known to be healthy: it refuses it where the circuit is known
// to be open. The lock is held, and given back.
func unhealthy(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	until := m.view.Open
	m.mu.Unlock()
	if now < until {
		refuseOpen(m, w, until, now)
		return
	}
	m.breaker.Renew(now, m.policy)
	m.serve(w, r, now)
}

// refuseOpen refuses a request, for the circuit is known to be open until then. The next ones are refused with the same words.
func refuseOpen(m *Middleware, w http.ResponseWriter, until, now int64) {
	circuitOpen.write(w, seconds(until-now))
	m.noteOpen(now)
	if !m.debug {
		m.breaker.Refuse(now)
	}
}

// emptyHanded is consult for a request whose lease is used up or over: its bucket may be known to be empty.
func emptyHanded(m *Middleware, w http.ResponseWriter, r *http.Request, e *ratelimit.Entry, now int64) int64 {
	if now >= e.Empty {
		return consult(m, w, r, rawOf(m, r), now)
	}
	wait := e.Token - now
	e.Refused++
	if now >= e.Note {
		m.noteEmpty(r, e, now)
	}
	m.mu.Unlock()
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = limitedLength
	header["Retry-After"] = oneSecond
	if wait > 1000000 {
		header["Retry-After"] = seconds(wait)
	}
	w.WriteHeader(http.StatusTooManyRequests)
	w.Write(limitedText)
	return 0
}

// consult asks Redis for a token for a request that arrived at the time now under a healthy circuit. It returns the time when the
// request may pass; or 0 where it is answered already. The limiter's lock is held, and given back.
func consult(m *Middleware, w http.ResponseWriter, r *http.Request, raw string, now int64) int64 {
	key := clientkey.KindHeader + raw
	// One if after the other: || is a value more.
	if len(raw) > m.plain {
		key = m.keyOf(r)
	} else if raw == "" {
		key = m.keyOf(r)
	}
	verdict, err := ratelimit.Allow(m.hand, raw, key, now)
	if verdict > 1 {
		return verdict
	}
	return goOn(m, w, r, key, verdict, err, now)
}

// goOn answers a request that arrived at the time now, when the limiter's verdict or error is there, and returns 0.
func goOn(m *Middleware, w http.ResponseWriter, r *http.Request, key string, verdict int64, err error, now int64) int64 {
	if err != nil {
		verdict = takeAlone(m, key, now, err)
	}
	if verdict <= 0 {
		m.refuse(w, key, verdict, now)
	} else if m.policy == nil {
		m.next.ServeHTTP(w, r)
	} else {
		m.try(w, r, now)
	}
	return 0
}
