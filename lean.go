package resilience

import (
	"net/http"
	"reflect"
	"time"

	"github.com/resilient-gateway/resilience/internal/clientkey"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The handlers of this file answer most requests, and are all that most requests run. The interpreter makes every call of ours
// dear, every value in a function, also in a branch not taken, and every field on the way to one; what a closure has captured
// costs nothing. So each handler is one closure, written out; what is rare is elsewhere, in functions, which cost a quarter of what
// methods do. docs/performance.md has the figures.

// leanBoth limits and breaks.
func (m *Middleware) leanBoth() http.HandlerFunc {
	mu, hand, next, healthy := &m.limiter.Mu, m.hand, m.next, &m.breaker.View.Healthy
	ofHeader, ofOther, header := m.client.Header != "", m.ofOther(), http.CanonicalHeaderKey(m.client.Header)
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		if now >= healthy.Load() && !renews(m, w, r, now) {
			return
		}
		raw := r.RemoteAddr
		if ofHeader {
			raw = r.Header.Get(header)
		} else if ofOther {
			raw = rawOf(m, r)
		}
		mu.Lock()
		e := hand.Held[raw]
		if e == nil || e.Tokens <= 0 || now >= e.Until {
			if e != nil && now < e.Empty {
				refuseEmpty(m, w, r, e, now)
				return
			}
			mu.Unlock()
			if now = consult(m, w, r, raw, now); now < 0 {
				return
			}
		} else {
			e.Tokens--
			mu.Unlock()
		}

		// From here on as in leanBreaker.
		status := reflect.ValueOf(w).MethodByName("Status")
		if !status.IsValid() {
			passRecorded(m, w, r, now)
			return
		}
		p := &passage{m: m, r: r, at: now}
		defer land(p)
		next.ServeHTTP(w, r)
		p.finished = true
		if code := status.Call(nil)[0].Int(); code >= 500 || healthy.Load() == 0 {
			tell(p, code)
		}
	}
}

// leanLimiter limits.
func (m *Middleware) leanLimiter() http.HandlerFunc {
	mu, hand, next := &m.limiter.Mu, m.hand, m.next
	ofHeader, ofOther, header := m.client.Header != "", m.ofOther(), http.CanonicalHeaderKey(m.client.Header)
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		raw := r.RemoteAddr
		if ofHeader {
			raw = r.Header.Get(header)
		} else if ofOther {
			raw = rawOf(m, r)
		}
		mu.Lock()
		e := hand.Held[raw]
		if e == nil || e.Tokens <= 0 || now >= e.Until {
			if e != nil && now < e.Empty {
				refuseEmpty(m, w, r, e, now)
				return
			}
			mu.Unlock()
			if now = consult(m, w, r, raw, now); now < 0 {
				return
			}
		} else {
			e.Tokens--
			mu.Unlock()
		}
		next.ServeHTTP(w, r)
	}
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

// ofOther tells whether the key of a request is made of more than one header or its address.
func (m *Middleware) ofOther() bool { return m.client.Header == "" && !m.client.OfConnection() }

// leanBreaker breaks.
func (m *Middleware) leanBreaker() http.HandlerFunc {
	next, healthy := m.next, &m.breaker.View.Healthy
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		if now >= healthy.Load() && !renews(m, w, r, now) {
			return
		}
		status := reflect.ValueOf(w).MethodByName("Status")
		if !status.IsValid() {
			passRecorded(m, w, r, now)
			return
		}
		// Traefik's metrics or access log watch the answer already. A success is no news, unless others have failed since: it
		// ends their row.
		p := &passage{m: m, r: r, at: now}
		defer land(p)
		next.ServeHTTP(w, r)
		p.finished = true
		if code := status.Call(nil)[0].Int(); code >= 500 || healthy.Load() == 0 {
			tell(p, code)
		}
	}
}

// passRecorded has the next handler answer a passage, and records what it answers.
func passRecorded(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	m.forward(w, r, m.breaker.Passed(now), m.redis.Timeout)
}

// renews tells whether a request may go on though the view of the breaker is not known to be healthy, or answers it.
func renews(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) bool {
	if until := m.breaker.View.Open.Load(); now < until {
		refuseOpen(m, w, until-now, now)
		return false
	}
	if m.breaker.Renew(now, m.policy) {
		return true
	}
	m.serve(w, r, now)
	return false
}

// refuseOpen refuses a request for so many microseconds, for which the circuit is known to be open.
func refuseOpen(m *Middleware, w http.ResponseWriter, retryAfter, now int64) {
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = circuitOpen.length
	header["Retry-After"] = oneSecond
	if retryAfter > 1000000 {
		header["Retry-After"] = seconds(retryAfter)
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	w.Write(circuitOpen.body)
	if now >= m.openNote.Load() || m.debug {
		m.openNote.Store(now + noteEvery)
		m.logRefusal("circuit open", "", 0, now)
	}
}

// refuseEmpty refuses a request whose bucket is known to be empty. The limiter's lock is held, and given back.
func refuseEmpty(m *Middleware, w http.ResponseWriter, r *http.Request, e *ratelimit.Entry, now int64) {
	retryAfter := e.Token - now
	note, refused := now >= e.Note, e.Refused
	e.Refused++
	if note {
		e.Note = now + noteEvery
		e.Refused = 0
	}
	m.limiter.Mu.Unlock()
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = tooMany.length
	header["Retry-After"] = oneSecond
	if retryAfter > 1000000 {
		header["Retry-After"] = seconds(retryAfter)
	}
	w.WriteHeader(http.StatusTooManyRequests)
	w.Write(tooMany.body)
	if note || m.debug {
		m.logRefusal("rate limit exceeded", m.keyOf(r), int(refused), now)
	}
}

// consult asks Redis for a token for a request that arrived at the time now under a healthy circuit, if there is one. It returns
// the time at which the request may pass, or -1 where it is answered.
func consult(m *Middleware, w http.ResponseWriter, r *http.Request, raw string, now int64) int64 {
	key := ""
	if m.client.Header != "" {
		key = clientkey.OfHeader(raw)
	} else {
		key = m.keyOf(r)
	}
	verdict, err := int64(0), store.ErrUnavailable
	if m.store != nil && !m.store.Away.Load() {
		verdict, err = ratelimit.Allow(m.limiter, m.hand, raw, key, m.limit, now, m.redis.Timeout, nil)
	}
	if err != nil {
		verdict = takeAlone(m, key, now, err)
	}
	if verdict <= 0 {
		m.refuse(w, key, verdict, now)
		return -1
	}
	if m.policy == nil {
		return now
	}
	later := int64(time.Since(start)) / 1000
	if later < m.breaker.View.Healthy.Load() {
		return later
	}
	m.try(w, r, now)
	return -1
}
