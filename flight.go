package resilience

import (
	"net/http"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// flight is a request on its way through the next handler.
type flight struct {
	m          *Middleware
	r          *http.Request
	generation int64 // of the view that it passed under, unless it is permitted
	permit     breaker.Permit
	permitted  bool
	patience   time.Duration
	status     int64
	finished   bool // the next handler has returned
	told       bool // the breaker knows
}

// watch has the next handler answer, and watches what it answers.
func (f *flight) watch(w http.ResponseWriter) {
	watched := &recorder.Recorder{ResponseWriter: w}
	if f.permit.Probe() {
		watched.OnHeader = f.arrived
	}
	f.m.next.ServeHTTP(watched, f.r)
	f.status = int64(watched.Status())
	f.finished = true
}

// arrived tells the breaker of a probe, when its response headers are there.
func (f *flight) arrived(status int) {
	f.told = true
	f.status = int64(status)
	f.tell(true)
}

// land tells the breaker of any other request, when its answer is complete; also of one that panicked, which goes on. A
// success under a view of a healthy circuit is no news, unless others have failed since: it ends their row.
func (f *flight) land() {
	if f.told || f.finished && f.status < 500 && !f.permitted && f.m.breaker.View.Until.Load() > 0 {
		return
	}
	f.tell(f.finished)
}

func (f *flight) tell(finished bool) {
	if !f.permitted {
		f.permit = breaker.Passed(f.generation)
		f.patience = f.m.redis.Timeout
	}
	outcome := outcome(f.r, int(f.status), finished)
	if outcome == breaker.Failure {
		f.m.logFailure(int(f.status))
	}
	f.m.breaker.Done(f.permit, outcome, f.m.policy, f.patience)
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
