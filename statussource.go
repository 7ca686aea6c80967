package resilience

import (
	"net/http"
	"reflect"
	"time"

	"github.com/resilient-gateway/resilience/internal/recorder"
)

// statusSource says how the status of an answer is read from writers of one type, so that they need no recorder around them. There are two
// kinds:
//
//   - With metrics, access log or tracing, Traefik's own writer has a method Status.
//   - Without them, which is Traefik's default, the writer leads to net/http's own, which has a field status (statusfield.go).
//
// The first request with a type of writer looks it up. The first type whose status can be read is the route's own: only requests with it
// stay on the fast path. For a writer of another type the source is looked up at each request; without one, it gets a recorder.
type statusSource struct {
	writer reflect.Type   // of the writers that are read now; nil: not known yet, or a recorder serves all requests
	first  reflect.Type   // the same once it is known, also while a recorder serves all requests
	status int            // the index of the method Status
	size   int            // the index of the method Size; -1: there is none
	fields *fieldSource   // nil: there is a method Status
	report func(*tracked) // reports the tracked requests of these writers
}

// tracked is a request that passes while the circuit is known to be closed. The next handler gets its writer as it is.
type tracked struct {
	w        http.ResponseWriter
	r        *http.Request
	at       int64 // when the circuit was known to be closed
	finished bool  // the next handler has returned
}

// Methods of reflect.Value as functions: a call of a function is cheaper in the interpreter than one of a method (R4).
var (
	valueElem         = valueMethod("Elem").(func(reflect.Value) reflect.Value)
	valueType         = valueMethod("Type").(func(reflect.Value) reflect.Type)
	valueFieldByIndex = valueMethod("FieldByIndex").(func(reflect.Value, []int) reflect.Value)
	valueInt          = valueMethod("Int").(func(reflect.Value) int64)
	valueCall         = valueMethod("Call").(func(reflect.Value, []reflect.Value) []reflect.Value)
	valueMethodAt     = valueMethod("Method").(func(reflect.Value, int) reflect.Value)
)

func valueMethod(name string) interface{} {
	method, _ := reflect.TypeOf(reflect.Value{}).MethodByName(name)
	return method.Func.Interface()
}

// newReporter returns the report of tracked requests whose writer has a method Status. It is deferred, so that a request that panics is
// reported too; the panic continues. A success is reported only if failures are pending: it resets their count.
func newReporter(m *Middleware, own *statusSource) func(*tracked) {
	failing, valueOf, toInt, call, methodAt := m.view.Failing, reflect.ValueOf, valueInt, valueCall, valueMethodAt
	var none []reflect.Value
	return func(p *tracked) {
		if p.finished {
			//lint:ignore S1021 the interpreter makes two values for :=
			var status int64
			status = toInt(call(methodAt(valueOf(p.w), own.status), none)[0])
			if status >= internalServerError {
				reportTracked(m, p, own)
			} else if len(failing) > 0 {
				reportTracked(m, p, own)
			} else if status < statusOK {
				reportSwitch(m, p)
			}
		} else {
			reportTracked(m, p, own)
		}
	}
}

// reportSwitch notes that the service has switched protocols, and so speaks HTTP/1, if the request asked for that. It is called for an
// answer without a final status: the writer knows none if the next handler took over the connection.
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

// reportTracked reports a tracked request to the breaker.
func reportTracked(m *Middleware, p *tracked, own *statusSource) {
	m.reportOutcome(readTracked(m, p, own), p.at)
}

// readTracked returns what a tracked request's writer says of its answer.
func readTracked(m *Middleware, p *tracked, own *statusSource) *exchange {
	x := p.exchange()
	x.dated = p.r.ProtoMajor < 3 && len(x.header["Date"]) > 0 // the writer of HTTP/3 sets a Date when the answer begins
	if own.fields == nil {
		own.callMethods(p.w, x)
	} else if !own.fields.readFields(p.w, x) {
		x.unread = true
		m.giveUp(own)
	}
	if x.finished && !x.unread && x.status < statusOK {
		reportSwitch(m, p)
	}
	return x
}

func (s *statusSource) callMethods(w http.ResponseWriter, x *exchange) {
	writer := reflect.ValueOf(w)
	x.status = int(writer.Method(s.status).Call(nil)[0].Int())
	x.size = -1
	if s.size >= 0 {
		x.size = writer.Method(s.size).Call(nil)[0].Int()
	}
}

func (p *tracked) exchange() *exchange {
	return &exchange{r: p.r, header: p.w.Header(), finished: p.finished, arrived: start.Add(time.Duration(p.at) * time.Microsecond)}
}

// reportOutcome reports the outcome of a request that passed at the time at.
func (m *Middleware) reportOutcome(x *exchange, at int64) {
	x.permit = m.breaker.PermitAt(at)
	if m.ownPolicy != nil {
		x.own = m.ownCircuit.PermitAt(at)
	}
	x.budget = m.redis.Timeout
	report(m, x)
}

// forward calls the next handler for a request that passes at the time now, whatever its writer is.
func forward(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	if m.someIgnored && forwardIgnored(m, w, r) {
		return
	}
	own, closely := statusSourceFor(m, w, now)
	if own == nil {
		forwardRecorded(m, w, r, now, closely)
		return
	}
	end := own.report
	trackOnce(r)
	p := &tracked{w: w, r: r, at: now}
	defer end(p)
	m.next.ServeHTTP(w, r)
	p.finished = true
}

// forwardIgnored calls the next handler for a request whose outcome never counts. It reports whether the request is one.
func forwardIgnored(m *Middleware, w http.ResponseWriter, r *http.Request) bool {
	if !m.ignores(r) {
		return false
	}
	m.next.ServeHTTP(w, r)
	return true
}

// statusSourceFor returns the source of a writer's status; nil: a recorder is needed. closely reports whether answers are watched closely
// now. The first type of writer that has a source is the route's own.
func statusSourceFor(m *Middleware, w http.ResponseWriter, now int64) (own *statusSource, closely bool) {
	writer := reflect.TypeOf(w)
	m.mu.Lock()
	known := m.source.writer
	if m.someIgnored {
		known = m.source.first
	}
	closely = now < m.watchUntil
	m.mu.Unlock()
	if closely {
		return nil, true
	}
	if known == writer {
		return m.source, false
	}
	if m.timesHeaders { // only a recorder learns when the headers were written
		return nil, false
	}
	found := m.newStatusSource(w)
	if found == nil {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	own = m.source
	if own.first == nil {
		m.adoptLocked(found)
	}
	if own.first != writer { // requests under way still use the route's own
		return found, false
	}
	if own.fields != nil && own.fields.unreadable {
		return nil, false
	}
	if !m.someIgnored { // else all requests leave the fast path here: they may be ignored
		own.writer = writer
	}
	return own, false
}

// newStatusSource returns the source of the status for writers of this one's type, or nil if there is none.
func (m *Middleware) newStatusSource(w http.ResponseWriter) *statusSource {
	writer := reflect.TypeOf(w)
	source := &statusSource{first: writer, size: -1}
	if method, found := writer.MethodByName("Status"); found {
		source.status = method.Index
		if method, found = writer.MethodByName("Size"); found {
			source.size = method.Index
		}
		setReport(m, source)
		return source
	}
	source.fields = newFieldSource(w)
	if source.fields == nil {
		return nil
	}
	setReport(m, source)
	return source
}

// setReport sets how a source reports tracked requests.
func setReport(m *Middleware, source *statusSource) {
	switch {
	case m.faults != nil:
		source.report = newRuledReporter(m, source)
	case source.fields == nil && m.policy.Counts():
		source.report = newCountingReporter(m, source)
	case source.fields == nil:
		source.report = newReporter(m, source)
	case m.policy.Counts():
		source.report = newCountingFieldReporter(m, source)
	default:
		source.report = newFieldReporter(m, source)
	}
}

// adoptLocked makes a source the route's own. The fast path's report is set once, before the writer's type is: requests use the report
// without the lock.
func (m *Middleware) adoptLocked(found *statusSource) {
	own := m.source
	own.status, own.size, own.fields, own.report = found.status, found.size, found.fields, found.report
	m.setFast(m.checks, found.report)
	own.first = found.first
}

// recorded is a tracked request whose answer goes through a recorder.
type recorded struct {
	tracked
	m        *Middleware
	recorder *recorder.Recorder
	watched  *watch // nil: only the status is recorded
	hang     *hang  // nil: there is no hangTimeout
	pace     *pace  // nil: there is no slowRatio
}

// forwardRecorded calls the next handler with a recorder for a request that passes at the time now. closely says that it also measures how
// long the client is waited for.
func forwardRecorded(m *Middleware, w http.ResponseWriter, r *http.Request, now int64, closely bool) {
	p := &recorded{tracked: tracked{w: w, r: r, at: now}, m: m, recorder: &recorder.Recorder{ResponseWriter: w}}
	if closely || m.timesHeaders {
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
	p.pace = p.m.newPace()
	if p.hang == nil && p.pace == nil {
		return
	}
	p.recorder.OnHeader = p.headerArrived
	if p.watched.body == nil {
		p.sent()
	} else {
		p.watched.body.onWhole(p.sent)
	}
}

// sent is called when the whole request has been sent to the service.
func (p *recorded) sent() {
	if p.hang != nil {
		p.hang.begin()
	}
	if p.pace != nil {
		p.pace.begin()
	}
}

// hung reports that the response headers have not arrived in time.
func (p *recorded) hung() {
	p.m.reportOutcome(&exchange{hung: true}, p.at)
}

// headerArrived ends the wait for the response headers.
func (p *recorded) headerArrived(status int) {
	if p.hang != nil {
		p.hang.end()
	}
	if p.pace != nil {
		p.pace.end()
	}
}

// reportRecorded reports a recorded request, also one that panicked; the panic continues.
func reportRecorded(p *recorded) {
	if p.hang != nil && p.hang.end() {
		return
	}
	m, status := p.m, p.recorder.Status
	if status == http.StatusSwitchingProtocols {
		m.noteProtocolSwitch(p.r)
	}
	if !p.finished || status >= internalServerError || len(m.view.Failing) > 0 {
		judgeRecorded(p)
	} else if m.furtherRules {
		reportByRules(p)
	}
}

// judgeRecorded has the answer of a recorded request judged.
func judgeRecorded(p *recorded) {
	x := p.exchange()
	x.watched = p.watched
	x.slow = isSlow(p.pace)
	x.record(p.recorder)
	p.m.reportOutcome(x, p.at)
}

// reportByRules reports an answer that only fault rules can make a failure, that may have been slow, or that may only have to be counted.
func reportByRules(p *recorded) {
	m := p.m
	fails := m.faults != nil && m.faults.mayFail(p.recorder.Status, p.w.Header())
	if fails || isSlow(p.pace) {
		judgeRecorded(p)
	} else if m.policy.Counts() {
		countPass(m, &p.tracked)
	}
}
