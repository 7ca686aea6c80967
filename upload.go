package resilience

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/resilient-gateway/resilience/breaker"
)

// hasBody tells whether a request has a body that may still be coming. Over HTTP/3 that is not known of a GET: whether there is one
// shows when it is read.
func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// smallBody is the longest body that is read before a place for a probe is asked for, in bytes. The server's own buffers for a request
// are as long.
const smallBody = 4096

// readAhead reads the body of a request if it is small and its length is known, or looks whether there is one where that is unlikely.
// It tells whether the body is whole: the request is then no upload, however many others are, and a client that sends no body never
// asks for a place.
func readAhead(r *http.Request) bool {
	length := r.ContentLength
	if length < 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		length = 1
	}
	if length <= 0 || length > smallBody || r.Header.Get("Expect") != "" {
		return false
	}
	body := make([]byte, length)
	n, err := io.ReadFull(r.Body, body)
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:n]), r.Body))
	if r.ContentLength < 0 {
		return errors.Is(err, io.EOF)
	}
	return err == nil
}

// upload is a probe whose body is on its way to the service. The time of the probe counts from the end of its body: a client that is
// slow to send it says nothing about the service.
type upload struct {
	m      *Middleware
	permit breaker.Permit

	mu        sync.Mutex // guards what follows; held while no other is
	concluded bool       // the verdict
	joining   bool       // it is late, and asks for a place again
	pending   func()     // that waits for it
}

// bodyEnded has the breaker told in the background that all of the body was sent.
func (u *upload) bodyEnded() {
	late := u.m.breaker.BodyLate(u.permit, u.m.policy)
	u.mu.Lock()
	told := u.concluded
	u.joining = late && !told
	u.mu.Unlock()
	if !told {
		go u.sent(late)
	}
}

// sent tells the breaker that the body has ended, and then the verdict, if that had to wait.
func (u *upload) sent(late bool) {
	defer func() { recover() }()
	u.reportSent(late)
	u.mu.Lock()
	u.joining = false
	verdict := u.pending
	u.mu.Unlock()
	if verdict != nil {
		verdict()
	}
}

func (u *upload) reportSent(late bool) {
	defer func() { recover() }()
	u.m.breaker.BodySent(u.permit, late, u.m.policy)
}

// conclude has the verdict told: now, or when the probe has asked for its place.
func (u *upload) conclude(verdict func()) {
	u.mu.Lock()
	u.concluded = true
	waits := u.joining
	if waits {
		u.pending = verdict
	}
	u.mu.Unlock()
	if !waits {
		verdict()
	}
}
