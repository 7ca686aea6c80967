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
	body     *upload
}

// watch has the next handler answer, and watches what it answers.
func (f *flight) watch(w http.ResponseWriter) {
	watched := &recorder.Recorder{ResponseWriter: w}
	if f.permit.Probe() {
		watched.OnHeader = f.arrived
	}
	if f.permit.Upload() {
		f.body = newUpload(f.m, f.r, f.permit)
		f.r.Body = f.body
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
	outcome := f.m.judge(f.r, int(f.status), finished)
	if f.body == nil {
		f.m.breaker.Done(f.permit, outcome, f.m.policy, f.patience)
		return
	}
	f.body.conclude(func() { f.m.breaker.Done(f.permit, outcome, f.m.policy, f.patience) })
}

// tell tells the breaker what became of a request, and waits for Redis no longer than patience. finished is false where the next
// handler panicked.
func (m *Middleware) tell(r *http.Request, permit breaker.Permit, status int, finished bool, patience time.Duration) {
	m.breaker.Done(permit, m.judge(r, status, finished), m.policy, patience)
}

// judge returns what an answer says about the service, and logs a failure.
func (m *Middleware) judge(r *http.Request, status int, finished bool) breaker.Outcome {
	outcome := outcome(r, status, finished)
	if outcome == breaker.Failure {
		m.logFailure(status)
	}
	return outcome
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
