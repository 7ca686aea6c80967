package resilience

import (
	"net/http"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// flight is a request with a permit on its way through the next handler.
type permitted struct {
	m        *Middleware
	permit   breaker.Permit
	budget   time.Duration
	x        *exchange
	recorder *recorder.Recorder
	reported bool    // the breaker knows
	hang     *hang   // nil: there is no hangTimeout
	upload   *upload // nil: it is none
}

// watch has the next handler answer, and watches what it answers, and how long the client takes.
func (f *permitted) forward(w http.ResponseWriter) {
	f.x.watched = watchClosely(f.recorder, f.x.r)
	f.hang = f.m.newHang(f.hung)
	f.followBody()
	if f.hang != nil {
		f.recorder.OnHeader = f.came
	} else if f.permit.Probe() {
		f.recorder.OnHeader = f.arrived
	}
	f.m.next.ServeHTTP(f.recorder, f.x.r)
	f.x.finished = true
	if f.recorder.Status == http.StatusSwitchingProtocols {
		f.m.noteProtocolSwitch(f.x.r)
	}
}

// followBody has the end of the request's body noted, where anything begins with it.
func (f *permitted) followBody() {
	body := f.x.watched.body
	if f.permit.Upload() && body != nil {
		f.upload = &upload{m: f.m, permit: f.permit}
		body.onWhole(f.sent)
	} else if f.hang != nil {
		f.hang.beginWith(body)
	}
}

// sent is called when the body of an upload has ended.
func (f *permitted) sent() {
	f.upload.bodyEnded()
	if f.hang != nil {
		f.hang.begin()
	}
}

// hung tells the breaker of a request whose response headers have not come in time.
func (f *permitted) hung() {
	f.conclude(func() { f.m.tellHung(f.permit) })
}

// conclude has a verdict told: that of an upload may have to wait.
func (f *permitted) conclude(verdict func()) {
	if f.upload == nil {
		verdict()
	} else {
		f.upload.conclude(verdict)
	}
}

// came ends the waiting for the response headers.
func (f *permitted) came(status int) {
	f.reported = f.hang.end()
	if f.permit.Probe() && !f.reported {
		f.arrived(status)
	}
}

// arrived tells the breaker of a probe, when its response headers are there. Where they do not say whose answer it is, its end does.
func (f *permitted) arrived(status int) {
	f.x.record(f.recorder)
	f.x.size = -1 // to come
	if f.x.byTraefik() {
		return
	}
	f.reported = true
	f.x.finished = true
	f.reportOutcome()
	f.x.finished = false
}

// land tells the breaker of any other request, when its answer is complete; also of one that panicked, which goes on.
func (f *permitted) report() {
	if f.hang != nil && f.hang.end() {
		f.reported = true
	}
	if !f.reported {
		f.x.record(f.recorder)
		f.reportOutcome()
	}
}

func (f *permitted) reportOutcome() {
	outcome := f.m.judge(f.x)
	f.conclude(func() { f.m.breaker.Done(f.permit, outcome, f.m.policy, f.budget) })
}
