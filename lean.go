package resilience

import (
	"net/http"
	"reflect"
	"time"

	"github.com/resilient-gateway/resilience/internal/clientkey"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The handlers of this file answer most requests, and are all that most requests run. The interpreter makes every call of ours
// dear, every value in a function, also in a branch not taken, and every field on the way to one; what a closure has captured
// costs nothing. So each handler is one closure, written out, though they repeat each other; each way off it is a function, which
// costs a quarter of what a method does. docs/performance.md has the figures.

// leanBoth limits and breaks.
func (m *Middleware) leanBoth() http.HandlerFunc {
	mu, held, next, healthy, news := m.mu, m.hand.Held, m.next, m.healthy, m.news
	since, begun, valueOf := time.Since, start, reflect.ValueOf
	ofHeader, ofConnection, header := m.header != "", m.client.OfConnection(), m.header
	return func(w http.ResponseWriter, r *http.Request) {
		until := healthy.Load()
		if until < 0 {
			refuseAgain(w, until)
			return
		}
		now := int64(since(begun)) / 1000
		if now >= until {
			unhealthy(m, w, r, now)
			return
		}
		raw := ""
		if ofHeader {
			raw = r.Header.Get(header)
		} else if ofConnection {
			raw = r.RemoteAddr
		} else {
			raw = rawOf(m, r)
		}
		mu.Lock()
		e := held[raw]
		if e == nil {
			now = consult(m, w, r, raw, now)
		} else if e.Tokens <= 0 {
			now = emptyHanded(m, w, r, raw, e, now)
		} else if now >= e.Until {
			now = emptyHanded(m, w, r, raw, e, now)
		} else {
			e.Tokens--
			mu.Unlock()
		}
		if now == 0 {
			return
		}

		// From here on as in pass.
		status := valueOf(w).MethodByName("Status")
		if status.IsValid() {
			p := &passage{m: m, r: r, at: now}
			defer land(p)
			next.ServeHTTP(w, r)
			p.finished = true
			if int64(status.Interface().(func() int)()) >= news.Load() {
				tell(p, w)
			}
			return
		}
		passRecorded(m, w, r, now)
	}
}

// leanLimiter limits.
func (m *Middleware) leanLimiter() http.HandlerFunc {
	mu, held, next := m.mu, m.hand.Held, m.next
	since, begun := time.Since, start
	ofHeader, ofConnection, header := m.header != "", m.client.OfConnection(), m.header
	return func(w http.ResponseWriter, r *http.Request) {
		now := int64(since(begun)) / 1000
		raw := ""
		if ofHeader {
			raw = r.Header.Get(header)
		} else if ofConnection {
			raw = r.RemoteAddr
		} else {
			raw = rawOf(m, r)
		}
		mu.Lock()
		e := held[raw]
		if e == nil {
			now = consult(m, w, r, raw, now)
		} else if e.Tokens <= 0 {
			now = emptyHanded(m, w, r, raw, e, now)
		} else if now >= e.Until {
			now = emptyHanded(m, w, r, raw, e, now)
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
	healthy := m.healthy
	since, begun := time.Since, start
	return func(w http.ResponseWriter, r *http.Request) {
		until := healthy.Load()
		if until < 0 {
			refuseAgain(w, until)
			return
		}
		now := int64(since(begun)) / 1000
		if now >= until {
			unhealthy(m, w, r, now)
			return
		}
		pass(m, w, r, now)
	}
}

// refuseAgain refuses a request for less so many seconds.
func refuseAgain(w http.ResponseWriter, wait int64) {
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = openLength
	header["Retry-After"] = waits[-wait]
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
// to be open.
func unhealthy(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	until := m.open.Load()
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
	if until-now <= (readyWaits-1)*1000000 && !m.debug {
		m.breaker.Refuse(now)
	}
}

// emptyHanded is consult for a request whose lease is used up or over: its bucket may be known to be empty.
func emptyHanded(m *Middleware, w http.ResponseWriter, r *http.Request, raw string, e *ratelimit.Entry, now int64) int64 {
	if now >= e.Empty {
		return consult(m, w, r, raw, now)
	}
	wait := (e.Token - now + 999999) / 1000000
	e.Refused++
	if now >= e.Note {
		m.noteEmpty(r, e, now)
	}
	m.mu.Unlock()
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = limitedLength
	if wait < readyWaits {
		header["Retry-After"] = waits[wait]
	} else {
		header["Retry-After"] = seconds(wait * 1000000)
	}
	w.WriteHeader(http.StatusTooManyRequests)
	w.Write(limitedText)
	return 0
}

// consult asks Redis for a token for a request that arrived at the time now under a healthy circuit. It returns the time when the
// request may pass; or 0 where it is answered already. The limiter's lock is held, and given back.
func consult(m *Middleware, w http.ResponseWriter, r *http.Request, raw string, now int64) int64 {
	key := ""
	if m.header != "" {
		key = clientkey.OfHeader(raw)
	} else {
		key = m.keyOf(r)
	}
	verdict, err := ratelimit.Allow(m.hand, raw, key, now)
	if verdict <= 0 {
		return goOn(m, w, r, key, verdict, err, now)
	}
	later := int64(time.Since(start)) / 1000
	if later >= m.healthy.Load() {
		return goOn(m, w, r, key, verdict, nil, now)
	}
	return later
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
