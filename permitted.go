package resilience

import (
	"net/http"
	"time"

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
	pace     *pace // nil: there is no slowRatio
	stream   *hang // waits for the code of a gRPC call (reportCall); nil: it does not
}

// forward calls the next handler, and measures how long the client is waited for.
func (p *permitted) forward() {
	p.x.watched = watchClosely(p.recorder, p.x.r)
	if !p.x.ignored {
		p.hang = p.m.newHang(p.hung)
		p.pace = p.m.newPace()
		p.followBody()
	}
	if p.hang != nil || p.pace != nil {
		p.recorder.OnHeader = p.headerArrived
	} else if p.x.isProbe() {
		p.recorder.OnHeader = p.reportProbe
	}
	p.m.next.ServeHTTP(p.recorder, p.x.r)
	p.x.finished = true
	if p.recorder.Status == http.StatusSwitchingProtocols {
		p.m.noteProtocolSwitch(p.x.r)
	}
}

// followBody watches for the end of the request's body if probeTimeout, hangTimeout or slowDuration counts from there.
func (p *permitted) followBody() {
	body := p.x.watched.body
	if p.x.isUpload() && body != nil {
		p.x.upload = &upload{m: p.m, permit: p.x.permit, own: p.x.own}
		body.onWhole(p.bodySent)
	} else if p.hang == nil && p.pace == nil {
		return
	} else if body == nil {
		p.bodySent()
	} else {
		body.onWhole(p.bodySent)
	}
}

// bodySent is called when the body has ended, or at once if there is none.
func (p *permitted) bodySent() {
	if p.x.upload != nil {
		p.x.upload.bodyEnded()
	}
	if p.hang != nil {
		p.hang.begin()
	}
	if p.pace != nil {
		p.pace.begin()
	}
}

// hung reports that the response headers have not arrived in time.
func (p *permitted) hung() {
	report(p.m, &exchange{hung: true, permit: p.x.permit, own: p.x.own, budget: p.m.redis.Timeout, upload: p.x.upload})
}

// headerArrived ends the wait for the response headers.
func (p *permitted) headerArrived(status int) {
	if p.hang != nil {
		p.reported = p.hang.end()
	}
	if p.pace != nil {
		p.pace.end()
	}
	if p.x.isProbe() && !p.reported {
		p.reportProbe(status)
	}
}

// reportProbe reports a probe whose response headers have arrived. If they look like Traefik's own, the probe is reported at the end of its
// answer instead.
func (p *permitted) reportProbe(status int) {
	p.x.record(p.recorder)
	p.x.slow = isSlow(p.pace)
	p.x.size = -1 // not known yet
	if p.x.byTraefik() {
		return
	}
	if p.m.faults != nil && p.m.faults.awaitsCode(status, p.x.header) {
		p.awaitCode()
		return
	}
	p.reported = true
	p.x.finished = true
	report(p.m, p.x)
	p.x.finished = false
}

// awaitCode has a probe that is a gRPC call reported at its end, with its code. A call that has not ended by half of the probeTimeout is a
// stream that works: it is reported as a success then, because it may go on for long. If its headers came late, it is so by half of the time that
// its place is left.
func (p *permitted) awaitCode() {
	wait := p.m.probeTimeout / 2
	if left := p.placeLeft() / 2; left < wait {
		wait = left
	}
	p.stream = &hang{after: wait, report: p.streamWorks}
	p.stream.begin()
}

// placeLeft returns for how long the probe still holds its place.
func (p *permitted) placeLeft() time.Duration {
	begun := p.x.arrived
	if p.x.upload != nil {
		begun = p.x.upload.probeBegan(begun)
	}
	return p.m.probeTimeout - timeOf(p.m.now()).Sub(begun)
}

// streamWorks reports a gRPC call that has begun and continues.
func (p *permitted) streamWorks() {
	report(p.m, &exchange{works: true, permit: p.x.permit, own: p.x.own, budget: p.m.redis.Timeout, upload: p.x.upload})
}

// report reports a request that was not reported before, when its answer is complete or its handler has panicked. The panic propagates.
func (p *permitted) report() {
	if p.hang != nil && p.hang.end() {
		p.reported = true
	}
	if p.stream != nil && p.stream.end() {
		p.reported = true
	}
	if !p.reported {
		p.x.record(p.recorder)
		p.x.slow = isSlow(p.pace)
		report(p.m, p.x)
	}
}
