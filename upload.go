package resilience

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
)

// hasBody reports whether a request has a body that may still be arriving. Over HTTP/3 it is also true for a GET without a body:
// only reading the body shows that there is none.
func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

// smallBody is the longest body, in bytes, that is read before a place for a probe is asked for. The server's own buffers for a request
// have the same size.
const smallBody = 4096

// readAhead reads the body of a request if it is small and its length is known, or if it is probably empty. It reports whether the body is
// complete: the request is then no upload. A client that does not send its small body never asks for a place.
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

// upload is a probe whose body is still being sent to the service. The time of the probe counts from the end of its body: a client that
// sends slowly says nothing about the service.
type upload struct {
	m      *Middleware
	permit breaker.Permit
	own    breaker.Permit // of the gateway's own circuit

	mu        sync.Mutex // guards what follows; no other lock is taken while it is held
	concluded bool       // the report was made, or waits
	joining   bool       // the body ended late, and the probe is asking for a place again
	pending   func()     // the report that waits until it has asked
	ended     time.Time  // when the body ended; zero: it has not
}

// bodyEnded tells the breaker in the background that the whole body was sent. The report waits if a circuit may give the probe a place again:
// nobody would give that back.
func (u *upload) bodyEnded() {
	late := u.permit.Upload() && u.m.breaker.BodyLate(u.permit, u.m.policy)
	ownLate := u.own.Upload() && u.m.ownCircuit.BodyLate(u.own, u.m.ownPolicy)
	ended := timeOf(u.m.now())
	u.mu.Lock()
	concluded := u.concluded
	u.joining = (late || ownLate) && !concluded
	u.ended = ended
	u.mu.Unlock()
	if !concluded {
		go u.sent(late, ownLate)
	}
}

// probeBegan returns since when probeTimeout counts: since the body ended, or since the request began if it has not.
func (u *upload) probeBegan(request time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended.IsZero() {
		return request
	}
	return u.ended
}

// sent tells the breaker that the body has ended, and then makes the report if that had to wait.
func (u *upload) sent(late, ownLate bool) {
	defer func() { recover() }()
	u.reportSent(late, ownLate)
	u.mu.Lock()
	u.joining = false
	pending := u.pending
	u.mu.Unlock()
	if pending != nil {
		pending()
	}
}

func (u *upload) reportSent(late, ownLate bool) {
	defer func() { recover() }()
	if u.own.Upload() {
		u.m.ownCircuit.BodySent(u.own, ownLate, u.m.ownPolicy)
	}
	if u.permit.Upload() {
		u.m.breaker.BodySent(u.permit, late, u.m.policy)
	}
}

// conclude makes the report: now, or when the probe has asked for its place again.
func (u *upload) conclude(report func()) {
	u.mu.Lock()
	u.concluded = true
	waits := u.joining
	if waits {
		u.pending = report
	}
	u.mu.Unlock()
	if !waits {
		report()
	}
}
