package resilience

import (
	"sync"
	"time"
)

// hang waits for the response headers of one request on routes with a hangTimeout. If they have not arrived in time, it reports a failure
// at once, even if the client disconnects later, and the end of the request is not reported. The time counts from the end of the request's
// body: a body that has not ended says nothing about the service.
type hang struct {
	after  time.Duration
	report func()

	mu       sync.Mutex
	timer    *time.Timer
	over     bool // the headers have arrived, or the request has ended
	reported bool
}

// newHang returns a hang that has not begun to wait, or nil if there is no hangTimeout.
func (m *Middleware) newHang(report func()) *hang {
	if m.hangTimeout == 0 {
		return nil
	}
	return &hang{after: m.hangTimeout, report: report}
}

// begin starts the wait, unless it has started or ended. It may be called by the goroutine that reads the body.
func (h *hang) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over && h.timer == nil {
		h.timer = time.AfterFunc(h.after, h.expire)
	}
}

func (h *hang) expire() {
	defer func() { recover() }()
	if h.claim() {
		h.report()
	}
}

// claim reports whether the caller is to report a failure.
func (h *hang) claim() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return false
	}
	h.over = true
	h.reported = true
	return true
}

// end ends the wait, and reports whether a failure was reported.
func (h *hang) end() (reported bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.timer != nil {
		h.timer.Stop()
	}
	return h.reported
}
