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

// exchange is a forwarded request, and what is known of its answer. Only what the service did counts, and only if the request reached the
// service whole, or could have: an answer that Traefik wrote because of what the client sent, or did not send, says nothing.
type exchange struct {
	r        *http.Request
	header   http.Header // of the answer
	status   int         // of the answer; 0: there is none yet
	size     int64       // bytes of the answer's body; -1: not known
	dated    bool        // the answer had a Date when it arrived here; Traefik's own answers have none
	finished bool        // the next handler has returned; otherwise it panicked: the answer was cut
	hung     bool        // its response headers have not arrived within the hangTimeout
	unread   bool        // its status could not be read

	arrived  time.Time
	now      time.Time // when it is judged
	switches bool      // the service is known to switch protocols
	watched  *watch    // how long the client was waited for; nil: not known

	permit breaker.Permit
	own    breaker.Permit // of the gateway's own circuit
	budget time.Duration  // how long the report may wait for Redis
	upload *upload        // nil: the request is no upload

	faults  *faultRules // nil: a status of 500 or more is a failure
	ignored bool        // its outcome never counts
	works   bool        // a gRPC call that has begun and continues
	slow    bool        // the response headers came too late for the slowRatio

	doubtful bool // the outcome is not known because the answer was not watched closely enough
}

// report is step 6 of every request: it judges the answer and reports the outcome to the breaker. The report of an upload that asks for its
// place again waits for the reply.
func report(m *Middleware, x *exchange) {
	outcome := m.judge(x)
	if x.upload == nil {
		reportToBoth(m, x, outcome)
		return
	}
	x.upload.conclude(func() { reportToBoth(m, x, outcome) })
}

// record copies the status, size and date of the answer from a recorder.
func (x *exchange) record(r *recorder.Recorder) {
	x.status = r.Status
	x.size = r.Size
	x.dated = r.Dated
}

// judge returns what an answer says about the service, and logs a failure. If the cause of a failure is unclear, the next answers are
// watched closely.
func (m *Middleware) judge(x *exchange) breaker.Outcome {
	if x.ignored || refusedInside(m, x.r, x.status) {
		return breaker.Unknown
	}
	x.faults = m.faults
	m.mu.Lock()
	x.switches = m.switchesProtocol
	m.mu.Unlock()
	x.now = timeOf(m.now())
	outcome := x.outcome()
	if outcome == breaker.Failure {
		if m.counting {
			countFailure(m, x)
		}
		m.logFailure(x.status)
	}
	if x.slow && outcome == breaker.Failure {
		outcome = breaker.SlowFailure
	} else if x.slow && outcome == breaker.Success {
		outcome = breaker.SlowSuccess
	}
	if x.doubtful {
		m.watchClosely()
	}
	return outcome
}

// closelyFor is how long, in microseconds, answers are watched closely after a failure whose cause was unclear.
const closelyFor = 5 * 60 * 1000000

// watchClosely sends all answers through a recorder for a while, which measures more and costs more. Meanwhile the route has no type of
// writer, so that every request leaves the fast path at step 5.
func (m *Middleware) watchClosely() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchUntil = m.now() + closelyFor
	m.source.writer = nil
}

// prompt is the time that the service may have spent waiting for a client, in total, for a failure still to count as the service's.
const prompt = 500 * time.Millisecond

// Headers longer than shortHeaders may be too long for a service that speaks HTTP/2: Traefik then answers without asking it. Headers longer
// than longHeaders may be too long for any service, which may close the connection.
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
	if x.works || x.status == http.StatusSwitchingProtocols {
		return breaker.Success
	}
	if x.r.Context().Err() != nil && !x.complete() {
		return breaker.Unknown
	}
	if !x.finished {
		return x.cut()
	}
	if x.faults != nil {
		return x.outcomeByRules()
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

// failedByService returns what a failure says that looks like the service's own answer. It may be the answer of a service that has waited
// long for the rest of a request's body. A page of the errors middleware looks the same, whatever it replaces.
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

// statusClientClosedRequest is Traefik's status for a client that has left.
const statusClientClosedRequest = 499

// complete reports whether an answer was complete although the context of its request has ended: an answer to HEAD is complete with its
// headers, and over HTTP/2 the request ends with them.
func (x *exchange) complete() bool {
	return x.finished && x.r.Method == http.MethodHead && x.status != 0 && x.status != statusClientClosedRequest
}

// byTraefik reports whether an answer looks like what Traefik or a middleware writes if the service gives none: it has no date and no
// length, and its body is the status in words, empty, or written by http.Error. An answer of the service may look like that, too.
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

// failedByTraefik returns what Traefik's own answer says. When Traefik wrote it, the transport had finished with the request, so its body
// may be read. 502 and 504 are the service's failures, unless the body says otherwise, or the service may not support what the request asked
// for: a service that speaks only HTTP/2 cannot switch protocols. 500 is Traefik's answer to any other error of the transport. It is the
// service's failure only if nothing about the request can be the cause.
func (x *exchange) failedByTraefik() breaker.Outcome {
	end := x.bodyEnd()
	if end == bodyBroken || x.r.Method == http.MethodConnect || upgrades(x.r) && !x.switches {
		return breaker.Unknown
	}
	if x.status == http.StatusInternalServerError && (end == bodyUnknown || !plain(x.r)) {
		return breaker.Unknown
	}
	if x.status == http.StatusBadGateway && (headLength(x.r) > longHeaders || unsendable(x.r) || x.tooShort(end)) {
		return breaker.Unknown
	}
	if end == bodyWhole {
		return breaker.Failure
	}
	return x.unlessClientWasWaitedFor()
}

// unsendable reports whether a request announces trailers that a transport sends to no service. Only HTTP/3 accepts such a request. The
// transport refuses it while sending it, and closes the connection. Traefik answers with 500, or with 502 if the end of the connection is
// noticed before its reason.
func unsendable(r *http.Request) bool {
	for name := range r.Trailer {
		if name == "Content-Length" || name == "Transfer-Encoding" || name == "Trailer" {
			return true
		}
	}
	return false
}

// tooShort reports whether a body that ended like this is shorter than announced. Only HTTP/3 accepts that. The transport fails as in
// unsendable.
func (x *exchange) tooShort(end int) bool {
	if end != bodyWhole || x.r.ProtoMajor < 3 || x.r.ContentLength <= 0 {
		return false
	}
	if x.watched != nil && x.watched.body != nil {
		return x.watched.body.length() < x.r.ContentLength
	}
	return lengthOf(x.r) < x.r.ContentLength
}

// cut returns what an answer says that broke off after its headers, or whose handler panicked. The proxy breaks an answer off if the service
// does, and also if it cannot write to the client.
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

// unlessClientWasWaitedFor returns what a failure says that a client may have caused by reading or sending slowly: a service that has waited
// long enough for a client closes the connection.
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

// bodyEnd returns how the body of the request ended. An unwatched body must not be read by anything else meanwhile.
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

// neverForwarded reports whether Traefik answers a request itself, without asking the service: it makes no tunnels over HTTP/1, and does not
// switch to a protocol whose name is not printable.
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
// is printable, the headers are short and hold no control characters, and there is neither an upgrade nor a trailer. Over HTTP/3 a complete
// body need not have the announced length, so a body of announced length is not plain.
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

// isMethod reports whether a text consists of letters and hyphens, as all methods in use do.
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

// printable reports whether a text is printable ASCII.
func printable(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
