package resilience

import (
	"net/http"
)

// switchEnabled is false where tests look for races.
var switchEnabled = true

// Where there is a breaker, Traefik calls a pointer to one of two handlers: the fast path, or the handler of an open circuit. A refusal then
// does not allocate the locals of the forwarding path (R1). The choice is only a hint: either handler must be able to serve any request.
// The fast path switches when it has refused a request because the circuit is open, and the other handler switches back when its notice
// holds no longer.
//
// Requests read the pointer without a lock, because a lock would cost each of them. That is a data race, and the Go memory model promises
// little about it: a read sees one of the values that were written, because the value is one word. What makes it right is the order in
// which the pointer is written (switchTo).

// newSwitch returns the handler that Traefik calls, which is the fast path at first.
func (m *Middleware) newSwitch(fast http.HandlerFunc) http.Handler {
	m.fast = fast
	m.current = new(http.HandlerFunc)
	*m.current = fast
	return m.current
}

// switchToOpen switches to a handler that refuses all requests while the circuit is known to be open and Retry-After is the same.
func (m *Middleware) switchToOpen(now int64) {
	notice := m.breaker.OpenNotice(now)
	if switchEnabled && notice != nil {
		switchTo(m, openHandler(m, notice))
	}
}

// switchTo switches to a handler that is complete for every reader. An unlock is a release, and the next lock an acquire: no processor
// makes a write after the two visible before one that came before them. The handler is published only after both. A request reaches
// everything that the handler has captured through the word that it reads, and no processor that Go runs on follows a pointer before it has
// read it.
func switchTo(m *Middleware, handler http.HandlerFunc) {
	m.mu.Lock()
	//lint:ignore SA2001 only the order is wanted
	m.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.checks { // the fast path does that
		*m.current = handler
	}
}

// switchBack switches to the fast path, and has it answer.
func switchBack(m *Middleware, w http.ResponseWriter, r *http.Request) {
	switchTo(m, m.fast)
	m.fast(w, r)
}
