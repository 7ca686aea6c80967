package resilience

import (
	"net/http"
)

// turning is off where tests look for races.
var switchEnabled = true

// A front is what Traefik calls where there is a breaker: a pointer to one of two handlers, the lean one, or that of an open circuit. A
// refusal then makes its own values only, and not those of a request that passes. Which of the two it is, is a guess, and no more: either
// may get any request. The lean one turns the front when it has refused one, the other when its refusal holds no more. Requests read
// the front without a lock, as a lock would cost each of them. That is a data race, and the Go memory model promises little about it: the
// read sees one of the values that were written, because it is one word. What makes it right is the order in which the front is written.

// fronted returns the front of a lean handler.
func (m *Middleware) newSwitch(lean http.HandlerFunc) http.Handler {
	m.fast = lean
	m.current = new(http.HandlerFunc)
	*m.current = lean
	return m.current
}

// refuseAll turns the front to a handler that refuses all requests, as long as the circuit is known to be open, and the seconds that it
// tells are the same.
func (m *Middleware) switchToOpen(now int64) {
	refusal := m.breaker.OpenNotice(now)
	if switchEnabled && refusal != nil {
		switchTo(m, openHandler(m, refusal))
	}
}

// turn turns the front to a handler, which is whole for whoever reads it. An unlock is a release, and the next lock an acquire: no
// processor makes a write after the two visible before one that came before them. Only after the two is the handler published. A request
// reaches all that the handler has captured through the word that it reads, and no processor that Go runs on follows a pointer before it
// has read it.
func switchTo(m *Middleware, handler http.HandlerFunc) {
	m.mu.Lock()
	//lint:ignore SA2001 the order is all that is wanted of it
	m.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.checks { // by the lean handler
		*m.current = handler
	}
}

// turnBack turns the front to the lean handler, and has it answer.
func switchBack(m *Middleware, w http.ResponseWriter, r *http.Request) {
	switchTo(m, m.fast)
	m.fast(w, r)
}
