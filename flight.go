package resilience

import (
	"net/http"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
)

// flight is a request with a permit on its way through the next handler.
type flight struct {
	m        *Middleware
	permit   breaker.Permit
	patience time.Duration
	x        *exchange
	recorder *recorder.Recorder
	told     bool    // the breaker knows
	upload   *upload // nil: it is none
}

// watch has the next handler answer, and watches what it answers, and how long the client takes.
func (f *flight) watch(w http.ResponseWriter) {
	if f.permit.Upload() {
		f.upload = &upload{m: f.m, permit: f.permit}
		f.x.watched = watchClosely(f.recorder, f.x.r, f.upload.bodyEnded)
		f.upload.body = f.x.watched.body
	} else {
		f.x.watched = watchClosely(f.recorder, f.x.r, nil)
	}
	if f.permit.Probe() {
		f.recorder.OnHeader = f.arrived
	}
	f.m.next.ServeHTTP(f.recorder, f.x.r)
	f.x.finished = true
	if f.recorder.Status == http.StatusSwitchingProtocols {
		f.m.noteSwitch(f.x.r)
	}
}

// arrived tells the breaker of a probe, when its response headers are there. Where they do not say whose answer it is, its end does.
func (f *flight) arrived(status int) {
	f.x.record(f.recorder)
	f.x.size = -1 // to come
	if f.x.byTraefik() {
		return
	}
	f.told = true
	f.x.finished = true
	f.tell()
	f.x.finished = false
}

// land tells the breaker of any other request, when its answer is complete; also of one that panicked, which goes on.
func (f *flight) land() {
	if !f.told {
		f.x.record(f.recorder)
		f.tell()
	}
}

func (f *flight) tell() {
	outcome := f.m.judge(f.x)
	if f.upload == nil {
		f.m.breaker.Done(f.permit, outcome, f.m.policy, f.patience)
		return
	}
	f.upload.conclude(func() { f.m.breaker.Done(f.permit, outcome, f.m.policy, f.patience) })
}
