package resilience

import "sync"

// pace measures, on routes with a slowRatio, how long the service took from the end of a request's body to the response headers. So neither a
// client that sends slowly nor one that reads slowly makes an answer slow. If the headers arrive before the end of the body, the answer is
// not slow.
type pace struct {
	m *Middleware

	mu    sync.Mutex // guards what follows; no other lock is taken while it is held
	begun int64      // when the body ended, on the clock of the engines; 0: it has not
	took  int64      // microseconds until the headers; -1: they have not arrived
	over  bool
}

// newPace returns a pace that has not begun, or nil if there is no slowRatio.
func (m *Middleware) newPace() *pace {
	if m.slowDuration == 0 {
		return nil
	}
	return &pace{m: m, took: -1}
}

// begin is called when the whole request has been sent. It may be called by the goroutine that reads the body.
func (p *pace) begin() {
	now := p.m.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over && p.begun == 0 {
		p.begun = now
	}
}

// end is called when the response headers arrive.
func (p *pace) end() {
	now := p.m.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over && p.begun != 0 {
		p.took = now - p.begun
	}
	p.over = true
}

// isSlow reports whether the response headers came too late; no, if nothing was measured.
func isSlow(p *pace) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.took >= p.m.slowDuration.Microseconds()
}
