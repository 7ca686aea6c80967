package resilience

import (
	"net/http"
	"reflect"
)

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
		tellOf(p, 0)
	}
}

// tell tells the breaker of a passage with the status that its writer has.
func tell(p *passage, w http.ResponseWriter) {
	tellOf(p, reflect.ValueOf(w).MethodByName("Status").Call(nil)[0].Int())
}

func tellOf(p *passage, status int64) {
	p.m.tell(p.r, p.m.breaker.Passed(p.at), int(status), p.finished, p.m.redis.Timeout)
}

// pass has the next handler answer a request that passes at the time now. Where Traefik's metrics or access log watch the answer
// already, their writer is asked for the status, which leaves it whole. A success is no news, unless others have failed since: it
// ends their row.
func pass(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	status := reflect.ValueOf(w).MethodByName("Status")
	if status.IsValid() {
		p := &passage{m: m, r: r, at: now}
		defer land(p)
		m.next.ServeHTTP(w, r)
		p.finished = true
		if int64(status.Interface().(func() int)()) >= m.news.Load() {
			tell(p, w)
		}
		return
	}
	passRecorded(m, w, r, now)
}

// passRecorded is pass where nobody watches the answer yet.
func passRecorded(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	m.forward(w, r, m.breaker.Passed(now), m.redis.Timeout)
}
