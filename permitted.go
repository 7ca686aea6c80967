package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/internal/recorder"
)

// permitted is a request that is forwarded with a permit. Its answer always goes through a recorder. A probe is reported as soon as the
// response headers show whether the service or Traefik answered; any other request is reported when its answer is complete.
type permitted struct {
	m        *Middleware
	x        *exchange
	recorder *recorder.Recorder
	reported bool  // the outcome was reported
	hang     *hang // nil: there is no hangTimeout
}

// forward calls the next handler, and measures how long the client is waited for.
func (p *permitted) forward() {
	p.x.watched = watchClosely(p.recorder, p.x.r)
	p.hang = p.m.newHang(p.hung)
	p.followBody()
	if p.hang != nil {
		p.recorder.OnHeader = p.headerArrived
	} else if p.x.permit.Probe() {
		p.recorder.OnHeader = p.reportProbe
	}
	p.m.next.ServeHTTP(p.recorder, p.x.r)
	p.x.finished = true
	if p.recorder.Status == http.StatusSwitchingProtocols {
		p.m.noteProtocolSwitch(p.x.r)
	}
}

// followBody watches for the end of the request's body if probeTimeout or hangTimeout counts from there.
func (p *permitted) followBody() {
	body := p.x.watched.body
	if p.x.permit.Upload() && body != nil {
		p.x.upload = &upload{m: p.m, permit: p.x.permit}
		body.onWhole(p.bodySent)
	} else if p.hang != nil {
		p.hang.beginWith(body)
	}
}

// bodySent is called when the body of an upload has ended.
func (p *permitted) bodySent() {
	p.x.upload.bodyEnded()
	if p.hang != nil {
		p.hang.begin()
	}
}

// hung reports that the response headers have not arrived in time.
func (p *permitted) hung() {
	reportHung(p.m, p.x.permit, p.x.upload)
}

// headerArrived ends the wait for the response headers.
func (p *permitted) headerArrived(status int) {
	p.reported = p.hang.end()
	if p.x.permit.Probe() && !p.reported {
		p.reportProbe(status)
	}
}

// reportProbe reports a probe whose response headers have arrived. If they look like Traefik's own, the probe is reported at the end of its
// answer instead.
func (p *permitted) reportProbe(status int) {
	p.x.record(p.recorder)
	p.x.size = -1 // not known yet
	if p.x.byTraefik() {
		return
	}
	p.reported = true
	p.x.finished = true
	report(p.m, p.x)
	p.x.finished = false
}

// report reports a request that was not reported before, when its answer is complete or its handler has panicked. The panic propagates.
func (p *permitted) report() {
	if p.hang != nil && p.hang.end() {
		p.reported = true
	}
	if !p.reported {
		p.x.record(p.recorder)
		report(p.m, p.x)
	}
}
