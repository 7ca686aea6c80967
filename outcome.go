package resilience

import (
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// The statuses that fast reports compare with: a selector would be a local (R7).
const (
	statusOK            = http.StatusOK
	internalServerError = http.StatusInternalServerError
)

// exchange is a request that was forwarded, and what is known of its answer. Only what the service did, given a request that
// reached it whole or could have, counts for or against it: an answer that Traefik wrote because of what the client sent, or did
// not send, says nothing.
type exchange struct {
	r        *http.Request
	header   http.Header // of the answer
	status   int         // of the answer; 0: there is none yet
	size     int64       // bytes of the answer's body; -1: not known
	dated    bool        // the answer had a Date when it came here, which Traefik's own have not
	finished bool        // the next handler has returned; otherwise it panicked: the answer was cut
	hung     bool        // its response headers have not arrived within the hangTimeout
	unread   bool        // its status cannot be read

	arrived  time.Time
	now      time.Time // when it is judged
	switches bool      // the service is known to switch protocols
	watched  *watch    // how long the client was waited for; nil: not known

	permit breaker.Permit
	budget time.Duration // how long the report may wait for Redis
	upload *upload       // nil: it is none

	// doubtful is set where the outcome is not known because nothing was watched closely enough to know it.
	doubtful bool
}

// report is step 6 of every request: it judges the answer and tells the breaker. For an upload that asks for its place again, the report
// waits for that.
func report(m *Middleware, x *exchange) {
	outcome := m.judge(x)
	if x.upload == nil {
		m.breaker.Done(x.permit, outcome, m.policy, x.budget)
		return
	}
	x.upload.conclude(func() { m.breaker.Done(x.permit, outcome, m.policy, x.budget) })
}

// record takes over what a recorder knows of the answer.
func (x *exchange) record(r *recorder.Recorder) {
	x.status = r.Status
	x.size = r.Size
	x.dated = r.Dated
}

// judge returns what an answer says about the service, and logs a failure. Where it cannot tell, the next ones are watched closely.
func (m *Middleware) judge(x *exchange) breaker.Outcome {
	if refusedInside(m, x.r, x.status) {
		return breaker.Unknown
	}
	m.mu.Lock()
	x.switches = m.switchesProtocol
	m.mu.Unlock()
	x.now = timeOf(m.now())
	outcome := x.outcome()
	if outcome == breaker.Failure {
		m.logFailure(x.status)
	}
	if x.doubtful {
		m.watchClosely()
	}
	return outcome
}

// closelyFor is how long answers are watched closely after one that left it open whose failure it was, in microseconds.
const closelyFor = 5 * 60 * 1000000

// watchClosely has all answers go through a recorder for a while, which costs more and tells more. No writer is the route's own
// meanwhile, so that all requests take the slow path.
func (m *Middleware) watchClosely() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchUntil = m.now() + closelyFor
	m.source.writer = nil
}

// prompt is how long a client may have been waited for, all in all, when a failure is still the service's.
const prompt = 500 * time.Millisecond

// Requests whose headers are longer than this may be too long for a service: for one that speaks HTTP/2, which Traefik then does not ask,
// and for any other, which may hang up.
const (
	shortHeaders = 4096
	longHeaders  = 8000
)

// outcome tells what the answer says about the service.
func (x *exchange) outcome() breaker.Outcome {
	if x.hung {
		return breaker.Failure
	}
	if x.unread {
		return breaker.Unknown
	}
	if x.status == http.StatusSwitchingProtocols {
		return breaker.Success
	}
	if x.r.Context().Err() != nil && !x.complete() {
		return breaker.Unknown
	}
	if !x.finished {
		return x.cut()
	}
	if x.status < http.StatusInternalServerError {
		return breaker.Success
	}
	if neverForwarded(x.r) {
		return breaker.Unknown
	}
	if x.byTraefik() {
		return x.failedByTraefik()
	}
	return x.failedByService()
}

// failedByService tells what a failure says that the service answered with by itself, as it seems. One that has waited long for the rest
// of a request's body may answer so; and a page of the errors middleware looks so too, whatever it stands for.
func (x *exchange) failedByService() breaker.Outcome {
	if x.r.ContentLength == 0 {
		return breaker.Failure
	}
	if x.watched == nil { // the transport may still be reading the body
		if x.now.Sub(x.arrived) < prompt {
			return breaker.Failure
		}
		x.doubtful = true
		return breaker.Unknown
	}
	switch x.bodyEnd() {
	case bodyWhole:
		return breaker.Failure
	case bodyBroken:
		return breaker.Unknown
	}
	return x.unlessClientWasWaitedFor()
}

// statusClientClosedRequest is Traefik's own, for a client that went away.
const statusClientClosedRequest = 499

// complete tells whether an answer was whole though its request has ended: one to HEAD is with its headers, and over HTTP/2
// the request ends with them.
func (x *exchange) complete() bool {
	return x.finished && x.r.Method == http.MethodHead && x.status != 0 && x.status != statusClientClosedRequest
}

// byTraefik tells whether an answer looks like what Traefik or a middleware writes where there is none from the service: without a
// date and a length, and with the status in words for a body, or with none, or as http.Error writes it. A service's may look like that.
func (x *exchange) byTraefik() bool {
	if x.dated || !failsByItself(x.status) || len(x.header["Content-Length"]) > 0 {
		return false
	}
	words := int64(len(http.StatusText(x.status)))
	return x.size <= 0 || x.size == words || x.header.Get("X-Content-Type-Options") == "nosniff" || x.replaced()
}

// replaced tells that another middleware reads the body of the request its own way, and may write the answer in its own way: grpcWeb does.
func (x *exchange) replaced() bool {
	if x.r.ContentLength == 0 || x.r.Body == nil {
		return false
	}
	ours := trackedBody
	if x.watched != nil && x.watched.reader != nil {
		ours = x.watched.reader
	}
	return reflect.TypeOf(unwrapped(x.r.Body)) != ours
}

// failsByItself tells that a status is one of those that Traefik answers with by itself.
func failsByItself(status int) bool {
	return status == http.StatusInternalServerError || status == http.StatusBadGateway || status == http.StatusGatewayTimeout
}

// failedByTraefik tells what Traefik's own answer says. It came when the transport was done with the request, so that its body may be
// asked. 502 and 504 are the service's failures, unless the body says otherwise, or the request was for what the service may never do:
// one that speaks HTTP/2 only cannot switch protocols. 500 is whatever the transport has no other word for: the service's failure only
// where nothing about the request can be the cause.
func (x *exchange) failedByTraefik() breaker.Outcome {
	end := x.bodyEnd()
	if end == bodyBroken || x.r.Method == http.MethodConnect || upgrades(x.r) && !x.switches {
		return breaker.Unknown
	}
	if x.status == http.StatusInternalServerError && (end == bodyUnknown || !plain(x.r)) {
		return breaker.Unknown
	}
	if x.status == http.StatusBadGateway && headLength(x.r) > longHeaders {
		return breaker.Unknown
	}
	if end == bodyWhole {
		return breaker.Failure
	}
	return x.unlessClientWasWaitedFor()
}

// cut tells what an answer says that was cut after its headers, or a handler that panicked. The proxy cuts it where the service does,
// and also where it cannot write to the client.
func (x *exchange) cut() breaker.Outcome {
	if x.r.ContentLength != 0 {
		if x.watched == nil { // the transport may still be reading the body
			x.doubtful = true
			return breaker.Unknown
		}
		if x.bodyEnd() != bodyWhole {
			return breaker.Unknown
		}
	}
	return x.unlessClientWasWaitedFor()
}

// unlessClientWasWaitedFor tells what a failure says that may come of a client that reads or sends slowly: a service that has waited
// for it long enough ends the connection.
func (x *exchange) unlessClientWasWaitedFor() breaker.Outcome {
	if x.now.Sub(x.arrived) < prompt {
		return breaker.Failure
	}
	if x.watched == nil {
		x.doubtful = true
		return breaker.Unknown
	}
	if x.watched.waited() < prompt {
		return breaker.Failure
	}
	return breaker.Unknown
}

// bodyEnd tells how the body of the request ended. Where it is not watched, nobody may be reading it.
func (x *exchange) bodyEnd() int {
	if x.watched == nil || x.watched.body == nil {
		return bodyOf(x.r)
	}
	end := x.watched.body.end()
	if end != bodyBroken && x.replaced() {
		return bodyUnknown
	}
	return end
}

// neverForwarded tells that Traefik answers a request by itself, whatever the service does: it makes no tunnels over HTTP/1, and
// switches to no protocol whose name cannot be printed.
func neverForwarded(r *http.Request) bool {
	if r.Method == http.MethodConnect && r.ProtoMajor == 1 {
		return true
	}
	return len(r.Header["Upgrade"]) > 0 && upgrades(r) && !printable(r.Header.Get("Upgrade"))
}

// upgrades tells whether a request asks for another protocol.
func upgrades(r *http.Request) bool {
	for _, line := range r.Header["Connection"] {
		for _, token := range strings.Split(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// headerLine is what HTTP/2 adds to the length of each header line where it compares headers with a limit.
const headerLine = 32

// plain tells that nothing about a request can keep a transport from sending it: a method that is one, a target that is a path, a host
// that can be printed, headers that are short and hold no control characters, no upgrade and no trailers. Over HTTP/3 a whole body need
// not be as long as it was to be.
func plain(r *http.Request) bool {
	if !isMethod(r.Method) || r.URL.Opaque != "" {
		return false
	}
	if r.ProtoMajor > 2 && r.ContentLength > 0 || len(r.Trailer) > 0 || upgrades(r) || r.Host == "" || !printable(r.Host) {
		return false
	}
	for name, lines := range r.Header {
		if !printable(name) {
			return false
		}
		for _, line := range lines {
			if !sendable(line) {
				return false
			}
		}
	}
	return headLength(r) <= shortHeaders
}

// headLength returns the bytes of a request's target, host and headers, as HTTP/2 counts them.
func headLength(r *http.Request) int {
	length := len(r.RequestURI) + len(r.Host)
	for name, lines := range r.Header {
		for _, line := range lines {
			length += len(name) + len(line) + headerLine
		}
	}
	return length
}

// isMethod tells that a text is letters and hyphens, as all methods are that are in use.
func isMethod(text string) bool {
	return text != "" && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") == ""
}

// sendable tells that a text may be a header's value: without control characters, but in any encoding.
func sendable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' && text[i] != '\t' || text[i] == 0x7f {
			return false
		}
	}
	return true
}

// printable tells that a text is ASCII that can be printed.
func printable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
