package resilience

import (
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// What reports compare with: a selector would be a local (R7).
const (
	statusOK            = http.StatusOK
	internalServerError = http.StatusInternalServerError
)

// exchange is a request that was forwarded, and what is known of its answer. Only what the service did counts for or against it, and only
// if the request reached the service completely, or could have: an answer that Traefik wrote because of what the client sent, or did not
// send, says nothing.
type exchange struct {
	r        *http.Request
	header   http.Header // of the answer
	status   int         // of the answer; 0: there is none yet
	size     int64       // bytes of the answer's body; -1: not known
	dated    bool        // the answer had a Date when it arrived here, which Traefik's own do not have
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

	doubtful bool // the outcome is not known because the answer was not watched closely enough
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

// record copies what a recorder knows of the answer.
func (x *exchange) record(r *recorder.Recorder) {
	x.status = r.Status
	x.size = r.Size
	x.dated = r.Dated
}

// judge returns what an answer says about the service, and logs a failure. If that cannot be known, the next answers are watched closely.
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

// closelyFor is how long, in microseconds, answers are watched closely after one that did not say whose failure it was.
const closelyFor = 5 * 60 * 1000000

// watchClosely has all answers go through a recorder for a while, which costs more and knows more. Meanwhile no writer is the route's own,
// so that every request is forwarded that way.
func (m *Middleware) watchClosely() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchUntil = m.now() + closelyFor
	m.source.writer = nil
}

// prompt is how long the service may have waited for a client, in total, for a failure still to be the service's.
const prompt = 500 * time.Millisecond

// Headers longer than this may be too long for a service: for one that speaks HTTP/2, which Traefik then does not ask, and for any other,
// which may close the connection.
const (
	shortHeaders = 4096
	longHeaders  = 8000
)

// outcome returns what the answer says about the service.
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

// failedByService returns what a failure says that seems to be the service's own answer. A service that has waited long for the rest of a
// request's body may answer so; and a page of the errors middleware looks the same, whatever it replaces.
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

// complete reports whether an answer was complete although its request has ended: an answer to HEAD is complete with its headers, and over
// HTTP/2 the request ends with them.
func (x *exchange) complete() bool {
	return x.finished && x.r.Method == http.MethodHead && x.status != 0 && x.status != statusClientClosedRequest
}

// byTraefik reports whether an answer looks like what Traefik or a middleware writes if the service gives none: without a date and a
// length, and with the status in words as its body, or no body, or as http.Error writes it. A service's answer may look like that, too.
func (x *exchange) byTraefik() bool {
	if x.dated || !failsByItself(x.status) || len(x.header["Content-Length"]) > 0 {
		return false
	}
	words := int64(len(http.StatusText(x.status)))
	return x.size <= 0 || x.size == words || x.header.Get("X-Content-Type-Options") == "nosniff" || x.replaced()
}

// replaced reports whether another middleware has replaced the body of the request, and may therefore write the answer in its own way:
// grpcWeb does.
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

// failsByItself reports whether Traefik itself answers with a status.
func failsByItself(status int) bool {
	return status == http.StatusInternalServerError || status == http.StatusBadGateway || status == http.StatusGatewayTimeout
}

// failedByTraefik returns what Traefik's own answer says. The transport was done with the request by then, so that its body may be read.
// 502 and 504 are the service's failures, unless the body says otherwise, or the request asked for what the service may never do: a service
// that speaks only HTTP/2 cannot switch protocols. 500 is whatever the transport has no other word for: the service's failure only if
// nothing about the request can be the cause.
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

// cut returns what an answer says that was cut after its headers, or whose handler panicked. The proxy cuts it if the service does, and also
// if it cannot write to the client.
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

// unlessClientWasWaitedFor returns what a failure says that a client may have caused that reads or sends slowly: a service that has waited
// for it long enough closes the connection.
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

// bodyEnd returns how the body of the request ended. If it is not watched, nobody may be reading it.
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

// neverForwarded reports whether Traefik answers a request itself, whatever the service does: it makes no tunnels over HTTP/1, and does not
// switch to a protocol whose name cannot be printed.
func neverForwarded(r *http.Request) bool {
	if r.Method == http.MethodConnect && r.ProtoMajor == 1 {
		return true
	}
	return len(r.Header["Upgrade"]) > 0 && upgrades(r) && !printable(r.Header.Get("Upgrade"))
}

// upgrades reports whether a request asks for another protocol.
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

// headerLine is what HTTP/2 adds to the length of each header line when it compares headers with a limit.
const headerLine = 32

// plain reports whether nothing about a request can keep a transport from sending it: the method is valid, the target is a path, the host
// can be printed, the headers are short and hold no control characters, and there is neither an upgrade nor trailers. Over HTTP/3 a complete
// body need not have the announced length.
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

// isMethod reports whether a text is letters and hyphens, as all methods in use are.
func isMethod(text string) bool {
	return text != "" && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") == ""
}

// sendable reports whether a text may be a header's value: without control characters, but in any encoding.
func sendable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' && text[i] != '\t' || text[i] == 0x7f {
			return false
		}
	}
	return true
}

// printable reports whether a text is ASCII that can be printed.
func printable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
