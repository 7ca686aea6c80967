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
	told     bool  // the breaker knows
	hang     *hang // nil: there is no hangTimeout
}

// watch has the next handler answer, and watches what it answers, and how long the client takes.
func (f *flight) watch(w http.ResponseWriter) {
	f.x.watched = watchClosely(f.recorder, f.x.r)
	f.hang = f.m.newHang(f.hung)
	if f.hang != nil {
		f.recorder.OnHeader = f.came
		f.hang.beginWith(f.x.watched.body)
	} else if f.permit.Probe() {
		f.recorder.OnHeader = f.arrived
	}
	f.m.next.ServeHTTP(f.recorder, f.x.r)
	f.x.finished = true
	if f.recorder.Status == http.StatusSwitchingProtocols {
		f.m.noteSwitch(f.x.r)
	}
}

// hung tells the breaker of a request whose response headers have not come in time.
func (f *flight) hung() {
	f.m.tellHung(f.permit)
}

// came ends the waiting for the response headers.
func (f *flight) came(status int) {
	f.told = f.hang.end()
	if f.permit.Probe() && !f.told {
		f.arrived(status)
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
	if f.hang != nil && f.hang.end() {
		f.told = true
	}
	if !f.told {
		f.x.record(f.recorder)
		f.tell()
	}
}

func (f *flight) tell() {
	f.m.breaker.Done(f.permit, f.m.judge(f.x), f.m.policy, f.patience)
}
