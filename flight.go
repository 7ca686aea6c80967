package resilience

import (
	"net/http"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// flight is a request on its way through the next handler.
type flight struct {
	m        *Middleware
	r        *http.Request
	permit   breaker.Permit
	patience time.Duration
	status   int64
	finished bool // the next handler has returned
	told     bool // the breaker knows
}

// watch has the next handler answer, and watches what it answers.
func (f *flight) watch(w http.ResponseWriter) {
	watched := &recorder.Recorder{ResponseWriter: w}
	if f.permit.Probe() {
		watched.OnHeader = f.arrived
	}
	f.m.next.ServeHTTP(watched, f.r)
	f.status = int64(watched.Status)
	f.finished = true
}

// arrived tells the breaker of a probe, when its response headers are there.
func (f *flight) arrived(status int) {
	f.told = true
	f.status = int64(status)
	f.tell(true)
}

// land tells the breaker of any other request, when its answer is complete; also of one that panicked, which goes on.
func (f *flight) land() {
	if !f.told {
		f.tell(f.finished)
	}
}

func (f *flight) tell(finished bool) {
	f.m.tell(f.r, f.permit, int(f.status), finished, f.patience)
}

// tell tells the breaker what became of a request, and waits for Redis no longer than patience. finished is false where the next
// handler panicked.
func (m *Middleware) tell(r *http.Request, permit breaker.Permit, status int, finished bool, patience time.Duration) {
	outcome := outcome(r, status, finished)
	if outcome != breaker.Unknown && refusedInside(m, r) {
		outcome = breaker.Unknown
	}
	if outcome == breaker.Failure {
		m.logFailure(status)
	}
	m.breaker.Done(permit, outcome, m.policy, patience)
}

// outcome tells what an answer says about the upstream. finished is false where the next handler panicked.
func outcome(r *http.Request, status int, finished bool) breaker.Outcome {
	if status == http.StatusSwitchingProtocols {
		return breaker.Success
	}
	if r.Context().Err() != nil && !complete(r, status, finished) {
		return breaker.Unknown
	}
	if !finished || status >= http.StatusInternalServerError {
		return breaker.Failure
	}
	return breaker.Success
}

// complete tells whether an answer was whole though its request has ended: one to HEAD is with its headers, and over HTTP/2
// the request ends with them. 499 is Traefik's own word for a client that went away.
func complete(r *http.Request, status int, finished bool) bool {
	return finished && r.Method == http.MethodHead && status != 0 && status != 499
}
