package resilience

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/policy"
)

// faultRules say which answers of the service are failures, where these are not just those with a status of 500 or more, and which requests
// never count. That the service could not be reached is a failure whatever they say.
type faultRules struct {
	statuses []bool          // by status
	calls    []bool          // by code of a gRPC call; nil: a call is judged by its status of HTTP only
	ignored  *policy.Matcher // requests whose outcome never counts; nil: there are none
}

// mayFail reports whether a finished answer may be a failure, and so must be judged. Traefik's own answers have statuses of 500 or more.
func (f *faultRules) mayFail(status int, header http.Header) bool {
	return status >= http.StatusInternalServerError || f.fails(status) || f.callFails(header)
}

func (f *faultRules) fails(status int) bool {
	return status > 0 && status < len(f.statuses) && f.statuses[status]
}

// callFails reports whether an answer ends a gRPC call with a code that is a failure. The code is known once the next handler has returned;
// before that, only if the answer consists of headers alone.
func (f *faultRules) callFails(header http.Header) bool {
	if f.calls == nil || !isCallAnswer(header) {
		return false
	}
	code, err := strconv.Atoi(callCode(header))
	return err == nil && code >= 0 && code < len(f.calls) && f.calls[code]
}

// awaitsCode reports whether an answer that has just begun is that of a gRPC call whose code comes with the trailers, at its end.
func (f *faultRules) awaitsCode(status int, header http.Header) bool {
	return f.calls != nil && status == http.StatusOK && isCallAnswer(header) && callCode(header) == ""
}

// ignores reports whether the outcome of a request never counts, where someIgnored says that there are such requests. It must be asked before the request is forwarded: a later middleware may
// change the path.
func (m *Middleware) ignores(r *http.Request) bool { return m.faults.ignored.Holds(r) }

func isCallAnswer(header http.Header) bool {
	kinds := header["Content-Type"]
	return len(kinds) > 0 && strings.HasPrefix(kinds[0], callTypeName)
}

// callCode returns the code of a gRPC call as text; "": it is not known. Traefik's proxy puts trailers that were not announced under names of
// their own.
func callCode(header http.Header) string {
	for _, name := range []string{"Grpc-Status", http.TrailerPrefix + "Grpc-Status"} {
		if lines := header[name]; len(lines) > 0 {
			return lines[len(lines)-1]
		}
	}
	return ""
}

// outcomeByRules returns what a complete answer says under fault rules.
func (x *exchange) outcomeByRules() breaker.Outcome {
	if x.status >= http.StatusInternalServerError && neverForwarded(x.r) {
		return breaker.Unknown
	}
	if x.byTraefik() {
		return x.failedByTraefik()
	}
	if x.unserved() {
		return breaker.Failure
	}
	if x.faults.fails(x.status) || x.faults.callFails(x.header) {
		return x.failedByService()
	}
	return breaker.Success
}

// unserved reports whether an answer looks like Traefik's own for a service without servers.
func (x *exchange) unserved() bool {
	return x.status == http.StatusServiceUnavailable && !x.dated && len(x.header["Content-Length"]) == 0 &&
		x.header.Get("X-Content-Type-Options") == "nosniff"
}

// newRuledReporter is newReporter, and newFieldReporter, for a route with fault rules.
func newRuledReporter(m *Middleware, own *statusSource) func(*tracked) {
	return func(p *tracked) { reportRuled(m, p, own) }
}

// reportRuled reports a tracked request if it may have failed, or if failures are pending.
func reportRuled(m *Middleware, p *tracked, own *statusSource) {
	x := readTracked(m, p, own)
	fails := x.status >= internalServerError
	if m.faults != nil {
		fails = m.faults.mayFail(x.status, x.header)
	}
	if !x.finished || x.unread || fails || len(m.view.Failing) > 0 {
		m.reportOutcome(x, p.at)
	} else if m.policy.Counts() {
		countPass(m, p)
	}
}
