package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/internal/recorder"
)

// permitted is a request that is forwarded with a permit. Its answer always goes through a recorder. A probe is reported as soon as its
// response headers say whose answer it is, any other request when its answer is complete.
type permitted struct {
	m        *Middleware
	x        *exchange
	recorder *recorder.Recorder
	reported bool  // the breaker knows
	hang     *hang // nil: there is no hangTimeout
}

// forward has the next handler answer, and watches its answer and how long the client takes.
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

// followBody notes the end of the request's body if the time of a probe or of the hangTimeout counts from there.
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
	report(p.m, &exchange{hung: true, permit: p.x.permit, budget: p.m.redis.Timeout, upload: p.x.upload})
}

// headerArrived ends the wait for the response headers.
func (p *permitted) headerArrived(status int) {
	p.reported = p.hang.end()
	if p.x.permit.Probe() && !p.reported {
		p.reportProbe(status)
	}
}

// reportProbe reports a probe whose response headers have arrived. If they do not say whose answer it is, its end does.
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

// report reports any other request when its answer is complete, also one that panicked; the panic propagates.
func (p *permitted) report() {
	if p.hang != nil && p.hang.end() {
		p.reported = true
	}
	if !p.reported {
		p.x.record(p.recorder)
		report(p.m, p.x)
	}
}
