package resilience

import (
	"net/http"
	"reflect"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// statusSource is a type of writers that know the status of the answer: Traefik's own, where its metrics or access log watch the answer
// already. Asking them leaves them whole. Its first request finds out; others go the longer way.
type statusSource struct {
	writer reflect.Type // nil: not known, or not to be asked now
	first  reflect.Type // the writer, once it is known
	status int          // which of its methods tells the status
	size   int          // and which the bytes of the body; -1: none
}

// passage is a request that passed at a time because the view of the breaker was healthy then.
type tracked struct {
	w        http.ResponseWriter
	r        *http.Request
	at       int64
	finished bool // the next handler has returned
}

// lander returns what ends a passage whose writer is of the type, once that is known, also one that ended in a panic, which goes on. A
// success is no news, unless others have failed since: it ends their row.
func (m *Middleware) newReporter(own *statusSource) func(*tracked) {
	failing, valueOf := m.view.Failing, reflect.ValueOf
	return func(p *tracked) {
		if p.finished {
			//lint:ignore S1021 the interpreter makes two values for :=
			var status int64
			status = valueOf(p.w).Method(own.status).Call(nil)[0].Int()
			if status >= internalServerError {
				reportTracked(m, p, own)
			} else if len(failing) > 0 {
				reportTracked(m, p, own)
			} else if status == 0 {
				reportSwitch(m, p)
			}
		} else {
			reportTracked(m, p, own)
		}
	}
}

// switched notes of a request whose connection the next handler took over that the service switches protocols, and so speaks HTTP/1.
// Traefik's own writer knows no status of such an answer.
func reportSwitch(m *Middleware, p *tracked) {
	m.noteProtocolSwitch(p.r)
}

func (m *Middleware) noteProtocolSwitch(r *http.Request) {
	if upgrades(r) {
		m.mu.Lock()
		m.switchesProtocol = true
		m.mu.Unlock()
	}
}

// tell tells the breaker of a passage.
func reportTracked(m *Middleware, p *tracked, own *statusSource) {
	writer := reflect.ValueOf(p.w)
	x := p.exchange()
	x.dated = p.r.ProtoMajor < 3 && len(x.header["Date"]) > 0 // HTTP/3's own writer sets one when the answer begins
	x.status = int(writer.Method(own.status).Call(nil)[0].Int())
	x.size = -1
	if own.size >= 0 {
		x.size = writer.Method(own.size).Call(nil)[0].Int()
	}
	m.reportOutcome(x, p.at)
}

func (p *tracked) exchange() *exchange {
	return &exchange{r: p.r, header: p.w.Header(), finished: p.finished, arrived: start.Add(time.Duration(p.at) * time.Microsecond)}
}

// tell tells the breaker what became of a request that passed at the time at.
func (m *Middleware) reportOutcome(x *exchange, at int64) {
	x.permit = m.breaker.PermitAt(at)
	x.budget = m.redis.Timeout
	report(m, x)
}

// pass has the next handler answer a request that passes at the time now, whatever its writer is.
func forward(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	own, closely := statusSourceFor(m, reflect.TypeOf(w), now)
	if own == nil {
		forwardRecorded(m, w, r, now, closely)
		return
	}
	land := m.report
	if own != m.source {
		land = m.newReporter(own)
	}
	trackOnce(r)
	p := &tracked{w: w, r: r, at: now}
	defer land(p)
	m.next.ServeHTTP(w, r)
	p.finished = true
}

// sourceOf returns how writers of a type tell their status, or nil where they do not, or answers are watched closely. The first who do
// are the route's own.
func statusSourceFor(m *Middleware, writer reflect.Type, now int64) (own *statusSource, closely bool) {
	m.mu.Lock()
	known := m.source.writer
	closely = now < m.watchUntil
	m.mu.Unlock()
	if closely {
		return nil, true
	}
	if known == writer {
		return m.source, false
	}
	status, found := writer.MethodByName("Status")
	if !found || m.hangTimeout > 0 { // the time of the headers is not asked of a writer
		return nil, false
	}
	size := -1
	if method, found := writer.MethodByName("Size"); found {
		size = method.Index
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.source.first == nil {
		m.source.first = writer
		m.source.status = status.Index
		m.source.size = size
	}
	if m.source.first != writer { // passages that are under way may still ask the first
		return &statusSource{writer: writer, status: status.Index, size: size}, false
	}
	m.source.writer = writer
	return m.source, false
}

// recorded is a passage whose answer goes through a recorder.
type recorded struct {
	tracked
	m        *Middleware
	recorder *recorder.Recorder
	watched  *watch // nil: only the status is recorded
	hang     *hang  // nil: there is no hangTimeout
}

// passRecorded has the next handler answer a request that passes at the time now, and records the answer's status; closely: also how
// long the client was waited for.
func forwardRecorded(m *Middleware, w http.ResponseWriter, r *http.Request, now int64, closely bool) {
	p := &recorded{tracked: tracked{w: w, r: r, at: now}, m: m, recorder: &recorder.Recorder{ResponseWriter: w}}
	if closely || m.hangTimeout > 0 {
		p.watch()
	} else {
		trackOnce(r)
	}
	defer reportRecorded(p)
	m.next.ServeHTTP(p.recorder, r)
	p.finished = true
}

func (p *recorded) watch() {
	p.watched = watchClosely(p.recorder, p.r)
	p.hang = p.m.newHang(p.hung)
	if p.hang != nil {
		p.recorder.OnHeader = p.headerArrived
		p.hang.beginWith(p.watched.body)
	}
}

// hung tells the breaker of a request whose response headers have not come in time.
func (p *recorded) hung() {
	p.m.reportHung(p.m.breaker.PermitAt(p.at))
}

// came ends the waiting for the response headers.
func (p *recorded) headerArrived(status int) { p.hang.end() }

// landRecorded ends a passage that was recorded, also one that ended in a panic, which goes on. It is what lander returns, for this case.
func reportRecorded(p *recorded) {
	if p.hang != nil && p.hang.end() {
		return
	}
	m, status := p.m, p.recorder.Status
	if status == http.StatusSwitchingProtocols {
		m.noteProtocolSwitch(p.r)
	}
	if !p.finished || status >= internalServerError || len(m.view.Failing) > 0 {
		x := p.exchange()
		x.watched = p.watched
		x.record(p.recorder)
		m.reportOutcome(x, p.at)
	}
}

// tellHung tells the breaker of a request whose response headers have not come within the hangTimeout.
func (m *Middleware) reportHung(permit breaker.Permit) {
	report(m, &exchange{hung: true, permit: permit, budget: m.redis.Timeout})
}
