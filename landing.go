package resilience

import (
	"net/http"
	"reflect"

	"github.com/resilient-gateway/resilience/internal/recorder"
)

// watched is a type of writers that know the status of the answer: Traefik's own, where its metrics or access log watch the answer
// already. Asking them leaves them whole. Its first request finds out; others go the longer way.
type watched struct {
	writer reflect.Type
	status int // which of its methods tells
}

// passage is a request that passed at a time because the view of the breaker was healthy then.
type passage struct {
	w        http.ResponseWriter
	r        *http.Request
	at       int64
	finished bool // the next handler has returned
}

// lander returns what ends a passage whose writer is of the type, once that is known, also one that ended in a panic, which goes on. A
// success is no news, unless others have failed since: it ends their row.
func (m *Middleware) lander(own *watched) func(*passage) {
	failing, valueOf := m.view.Failing, reflect.ValueOf
	return func(p *passage) {
		if p.finished {
			//lint:ignore S1021 the interpreter makes two values for :=
			var status int64
			status = valueOf(p.w).Method(own.status).Call(nil)[0].Int()
			if status >= internalServerError {
				tell(m, p, status)
			} else if len(failing) > 0 {
				tell(m, p, status)
			}
		} else {
			tell(m, p, 0)
		}
	}
}

// tell tells the breaker of a passage, and its status, or 0 where it ended in a panic.
func tell(m *Middleware, p *passage, status int64) {
	m.tell(p.r, m.breaker.Passed(p.at), int(status), p.finished, m.redis.Timeout)
}

// pass has the next handler answer a request that passes at the time now, whatever its writer is.
func pass(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	own := watchedOf(m, reflect.TypeOf(w))
	if own == nil {
		passWatched(m, w, r, now)
		return
	}
	land := m.land
	if own != m.own {
		land = m.lander(own)
	}
	p := &passage{w: w, r: r, at: now}
	defer land(p)
	m.next.ServeHTTP(w, r)
	p.finished = true
}

// watchedOf returns how writers of a type tell their status, or nil where they do not. The first who do are the route's own.
func watchedOf(m *Middleware, writer reflect.Type) *watched {
	m.mu.Lock()
	known := m.own.writer
	m.mu.Unlock()
	if known == writer {
		return m.own
	}
	method, found := writer.MethodByName("Status")
	if !found {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own.writer != nil {
		return &watched{writer: writer, status: method.Index}
	}
	m.own.writer = writer
	m.own.status = method.Index
	return m.own
}

// passWatched has the next handler answer a request that passes at the time now, and watches the answer for its status.
func passWatched(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	watched := &recorder.Recorder{ResponseWriter: w}
	p := &passage{r: r, at: now}
	defer landWatched(m, p, watched)
	m.next.ServeHTTP(watched, r)
	p.finished = true
}

// landWatched ends a passage that was watched, also one that ended in a panic, which goes on. It is what lander returns, for this case.
func landWatched(m *Middleware, p *passage, watched *recorder.Recorder) {
	if !p.finished {
		tell(m, p, 0)
	} else if watched.Status >= internalServerError || len(m.view.Failing) > 0 {
		tell(m, p, int64(watched.Status))
	}
}
