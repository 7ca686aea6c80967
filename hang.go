package resilience

import (
	"sync"
	"time"
)

// hang waits for the response headers of one request, on routes with a hangTimeout. If they are not there in time, it reports a failure
// at once, also of a client that leaves later; what comes afterwards is not reported any more. The time counts from the end of the request's
// body: a body that has not ended says nothing about the service.
type hang struct {
	after  time.Duration
	report func()

	mu       sync.Mutex
	timer    *time.Timer
	over     bool // the headers are there, or the request has ended
	reported bool
}

// newHang returns what waits for a request, from begin on. nil: there is no hangTimeout.
func (m *Middleware) newHang(report func()) *hang {
	if m.hangTimeout == 0 {
		return nil
	}
	return &hang{after: m.hangTimeout, report: report}
}

// begin begins to wait. It may be called by whoever reads the body.
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

// claim tells whether a failure is to be reported.
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

// end ends the waiting, and tells whether a failure was reported.
func (h *hang) end() (reported bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.timer != nil {
		h.timer.Stop()
	}
	return h.reported
}

// beginWith has the waiting begin with the end of a request's body, or now where there is none.
func (h *hang) beginWith(body *watchedBody) {
	if body == nil {
		h.begin()
		return
	}
	body.onWhole(h.begin)
}
