package resilience

import (
	"net/http"
	"reflect"
	"time"
)

// The handlers of this file answer most requests, and are all that most requests run. The interpreter makes every call of ours
// dear, every value in a function, also in a branch not taken, and every field on the way to one; what a closure has captured
// costs nothing. So each handler is one closure, written out, and what is rare is elsewhere. docs/performance.md has the figures.

// leanBoth limits and breaks.
func (m *Middleware) leanBoth() http.HandlerFunc {
	mu, known, limit, keyOf := &m.limiter.Mu, m.limiter.Known, m.limit, m.keyOf
	healthy := &m.breaker.View.Healthy
	pass, refuse := m.pass, m.leanRefuse()
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		if now >= healthy.Load() && !m.renews(w, r, now) {
			return
		}
		key := keyOf(r)
		mu.Lock()
		e := known.Young[key]
		if e == nil || e.Tokens <= 0 || now >= e.Until || e.Limit != limit {
			mu.Unlock()
			refuse(w, r, key, now)
			return
		}
		e.Tokens--
		e.Spent++
		mu.Unlock()
		pass(w, r, now)
	}
}

// leanLimiter limits.
func (m *Middleware) leanLimiter() http.HandlerFunc {
	mu, known, limit, keyOf, next := &m.limiter.Mu, m.limiter.Known, m.limit, m.keyOf, m.next
	refuse := m.leanRefuse()
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		key := keyOf(r)
		mu.Lock()
		e := known.Young[key]
		if e == nil || e.Tokens <= 0 || now >= e.Until || e.Limit != limit {
			mu.Unlock()
			refuse(w, r, key, now)
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
	healthy, pass := &m.breaker.View.Healthy, m.pass
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(time.Since(start)) / 1000
		if now >= healthy.Load() && !m.renews(w, r, now) {
			return
		}
		pass(w, r, now)
	}
}

// renews tells whether a request may go on though the view of the breaker is not known to be healthy, or answers it.
func (m *Middleware) renews(w http.ResponseWriter, r *http.Request, now int64) bool {
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

// leanRefuse returns what answers a request without a lease. Where the bucket is known to be empty that is a refusal, else Redis
// is asked.
func (m *Middleware) leanRefuse() func(w http.ResponseWriter, r *http.Request, key string, now int64) {
	mu, known, limit, debug := &m.limiter.Mu, m.limiter.Known, m.limit, m.debug
	return func(w http.ResponseWriter, r *http.Request, key string, now int64) {
		mu.Lock()
		e := known.Young[key]
		if e == nil || now >= e.Empty || e.Limit != limit {
			mu.Unlock()
			m.serveAsking(w, r, key, now)
			return
		}
		retryAfter := e.Token - now
		e.Refused++
		note := now >= e.Note
		mu.Unlock()
		header := w.Header()
		header["Content-Type"] = contentType
		header["Content-Length"] = tooMany.length
		if retryAfter > 1000000 {
			header["Retry-After"] = seconds(retryAfter)
		} else {
			header["Retry-After"] = oneSecond
		}
		w.WriteHeader(http.StatusTooManyRequests)
		w.Write(tooMany.body)
		if note || debug {
			m.noteRefusal(key, now)
		}
	}
}

// serveAsking asks Redis for a token, and goes on from there. The circuit was healthy when the request arrived.
func (m *Middleware) serveAsking(w http.ResponseWriter, r *http.Request, key string, now int64) {
	verdict := m.take(key, now)
	if verdict <= 0 {
		m.refuse(w, key, verdict, now)
		return
	}
	if m.policy == nil {
		m.next.ServeHTTP(w, r)
		return
	}
	if later := sinceStart(time.Now()); later < m.breaker.View.Healthy.Load() {
		m.pass(w, r, later)
		return
	}
	m.try(w, r, now)
}

// passage is a request that passed at a time because the view of the breaker was healthy then.
type passage struct {
	r        *http.Request
	at       int64
	finished bool // the next handler has returned
}

// leanPass returns what has the next handler answer such a request. A success is no news, unless others have failed since: it
// ends their row.
func (m *Middleware) leanPass() func(w http.ResponseWriter, r *http.Request, now int64) {
	next, healthy := m.next, &m.breaker.View.Healthy
	land := func(p *passage) {
		if !p.finished {
			m.landed(p, 0)
		}
	}
	return func(w http.ResponseWriter, r *http.Request, now int64) {
		status := reflect.ValueOf(w).MethodByName("Status")
		if !status.IsValid() {
			m.forward(w, r, m.breaker.Passed(now), m.redis.Timeout)
			return
		}
		// Traefik's metrics or access log watch the answer already.
		p := &passage{r: r, at: now}
		defer land(p)
		next.ServeHTTP(w, r)
		p.finished = true
		if code := status.Call(nil)[0].Int(); code >= 500 || healthy.Load() == 0 {
			m.landed(p, int(code))
		}
	}
}

// landed tells the breaker what became of a passage.
func (m *Middleware) landed(p *passage, status int) {
	m.tell(p.r, m.breaker.Passed(p.at), status, p.finished, m.redis.Timeout)
}
