package resilience

import (
	"net/http"
	"reflect"
	"time"
)

// The handlers of this file answer most requests, and are all that most requests run. The interpreter makes every call of ours
// dear, every value in a function, also in a branch not taken, and every field on the way to one; what a closure has captured
// costs nothing. So each handler is one closure, written out; what is rare is elsewhere, in functions, which cost half of what
// methods do. docs/performance.md has the figures.

// leanBoth limits and breaks.
func (m *Middleware) leanBoth() http.HandlerFunc {
	mu, known, limit, keyOf, next := &m.limiter.Mu, m.limiter.Known, m.limit, m.keyOf, m.next
	healthy := &m.breaker.View.Healthy
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		if now >= healthy.Load() && !renews(m, w, r, now) {
			return
		}
		key := keyOf(r)
		mu.Lock()
		e := known.Young[key]
		if e == nil || e.Tokens <= 0 || now >= e.Until || e.Limit != limit {
			mu.Unlock()
			refuse(m, w, r, key, now)
			return
		}
		e.Tokens--
		e.Spent++
		mu.Unlock()

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
	mu, known, limit, keyOf, next := &m.limiter.Mu, m.limiter.Known, m.limit, m.keyOf, m.next
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		key := keyOf(r)
		mu.Lock()
		e := known.Young[key]
		if e == nil || e.Tokens <= 0 || now >= e.Until || e.Limit != limit {
			mu.Unlock()
			refuse(m, w, r, key, now)
			return
		}
		e.Tokens--
		e.Spent++
		mu.Unlock()
		next.ServeHTTP(w, r)
	}
}

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

// passage is a request that passed at a time because the view of the breaker was healthy then.
type passage struct {
	m        *Middleware
	r        *http.Request
	at       int64
	finished bool // the next handler has returned
}

// land tells the breaker of a passage that ended in a panic, which goes on.
func land(p *passage) {
	if !p.finished {
		tell(p, 0)
	}
}

func tell(p *passage, status int64) {
	p.m.tell(p.r, p.m.breaker.Passed(p.at), int(status), p.finished, p.m.redis.Timeout)
}

// passRecorded has the next handler answer a passage, and records what it answers.
func passRecorded(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	m.forward(w, r, m.breaker.Passed(now), m.redis.Timeout)
}

// renews tells whether a request may go on though the view of the breaker is not known to be healthy, or answers it.
func renews(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) bool {
	if until := m.breaker.View.Open.Load(); now < until {
		m.refuseOpen(w, until-now, now)
		return false
	}
	if m.breaker.Renew(now, m.policy) {
		return true
	}
	m.serve(w, r, now)
	return false
}

// refuse answers a request without a lease. Where the bucket is known to be empty that is a refusal, else Redis is asked.
func refuse(m *Middleware, w http.ResponseWriter, r *http.Request, key string, now int64) {
	m.limiter.Mu.Lock()
	e := m.limiter.Known.Young[key]
	if e == nil || now >= e.Empty || e.Limit != m.limit {
		m.limiter.Mu.Unlock()
		consult(m, w, r, key, now)
		return
	}
	retryAfter := e.Token - now
	e.Refused++
	note := now >= e.Note
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
		m.noteRefusal(key, now)
	}
}

// consult asks Redis for a token, and goes on from there. The circuit was healthy when the request arrived.
func consult(m *Middleware, w http.ResponseWriter, r *http.Request, key string, now int64) {
	verdict := take(m, key, now, nil)
	if verdict <= 0 {
		m.refuse(w, key, verdict, now)
		return
	}
	if m.policy == nil {
		m.next.ServeHTTP(w, r)
		return
	}
	later := int64(time.Since(start)) / 1000
	if later < m.breaker.View.Healthy.Load() {
		passOn(m, w, r, later)
		return
	}
	m.try(w, r, now)
}

// passOn has the next handler answer a passage, as leanBreaker does.
func passOn(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	status := reflect.ValueOf(w).MethodByName("Status")
	if !status.IsValid() {
		passRecorded(m, w, r, now)
		return
	}
	p := &passage{m: m, r: r, at: now}
	defer land(p)
	m.next.ServeHTTP(w, r)
	p.finished = true
	if code := status.Call(nil)[0].Int(); code >= 500 || m.breaker.View.Healthy.Load() == 0 {
		tell(p, code)
	}
}
