package resilience

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/resilient-gateway/resilience/breaker"
)

// hasBody tells whether a request has a body that may still be coming. Over HTTP/3 that is not known of a GET: its body ends when it
// is first read.
func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// upload is the body of a probe on its way to the service. The time of the probe counts from the end of its body: a client that is
// slow to send it says nothing about the service.
type upload struct {
	body   io.ReadCloser
	m      *Middleware
	permit breaker.Permit

	mu      sync.Mutex // guards what follows; held while no other is
	left    int64      // bytes that are still to come; negative: unknown
	ended   bool
	told    bool
	joining bool   // it is late, and asks for a place again
	verdict func() // that waits for it
}

func newUpload(m *Middleware, r *http.Request, permit breaker.Permit) *upload {
	return &upload{body: r.Body, m: m, permit: permit, left: r.ContentLength}
}

// Read reads the body for the service, and notes its end.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.body.Read(p)
	if begins, late := u.note(n, err); begins {
		go u.sent(late)
	}
	return n, err
}

// Close ends the body.
func (u *upload) Close() error { return u.body.Close() }

// note tells whether the body has just ended, before there was a verdict, and whether it is late.
func (u *upload) note(n int, err error) (begins, late bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.left > 0 {
		u.left -= int64(n)
	}
	if u.ended || u.left != 0 && !errors.Is(err, io.EOF) {
		return false, false
	}
	u.ended = true
	if u.told {
		return false, false
	}
	u.joining = u.m.breaker.Late(u.permit, u.m.policy)
	return true, u.joining
}

// sent tells the breaker that the body has ended, and then the verdict, if that had to wait.
func (u *upload) sent(late bool) {
	defer func() { recover() }()
	u.tellSent(late)
	u.mu.Lock()
	u.joining = false
	verdict := u.verdict
	u.mu.Unlock()
	if verdict != nil {
		verdict()
	}
}

func (u *upload) tellSent(late bool) {
	defer func() { recover() }()
	u.m.breaker.Sent(u.permit, late, u.m.policy)
}

// conclude has the verdict told: now, or when the probe has asked for its place.
func (u *upload) conclude(verdict func()) {
	u.mu.Lock()
	u.told = true
	waits := u.joining
	if waits {
		u.verdict = verdict
	}
	u.mu.Unlock()
	if !waits {
		verdict()
	}
}
