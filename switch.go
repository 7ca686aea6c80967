package resilience

import (
	"net/http"

	"github.com/resilient-gateway/resilience/breaker"
)

// switchEnabled is false where tests look for races.
var switchEnabled = true

// If there is a breaker, Traefik calls one of two handlers through a pointer: the fast path, or the handler of an open circuit. A refusal
// then does not allocate the locals of the forwarding path (R1). The choice is only a hint: either handler must be able to serve any
// request. A request that was refused because the circuit is open switches to the second handler, which switches back when its notice no
// longer holds.
//
// Requests read the pointer without a lock, because every request would pay for the lock. That is a data race. The Go memory model promises
// only that a read sees one of the values that were written, because the value is one word. The order of the writes makes the race
// harmless: see switchTo.

// newSwitch returns the handler that Traefik calls, which is the fast path at first.
func (m *Middleware) newSwitch(fast http.HandlerFunc) http.Handler {
	m.fast = fast
	m.countedOpen = newCountedOpen(m)
	m.current = new(http.HandlerFunc)
	*m.current = fast
	return m.current
}

// switchToOpen switches to a handler that refuses all requests while the circuit is known to be open and Retry-After is the same.
func (m *Middleware) switchToOpen(now int64) {
	notice := m.breaker.OpenNotice(now)
	if !switchEnabled || notice == nil {
		return
	}
	m.breaker.RecheckWhile(notice, m.policy)
	if m.current == nil { // other circuits of the route may be closed
		return
	}
	if m.answers.circuitOpen == circuitOpen && m.counting {
		switchTo(m, m.countedOpen(notice))
	} else if m.answers.circuitOpen == circuitOpen {
		switchTo(m, openHandler(m, notice))
	} else {
		switchTo(m, ownOpenHandler(m, notice))
	}
}

// ownOpenHandler is openHandler for a route whose answer is configured.
func ownOpenHandler(m *Middleware, notice *breaker.Notice) http.HandlerFunc {
	holds, retryAfter, answer := notice.Holds, seconds(notice.Seconds*1000000), m.answers.circuitOpen
	return func(w http.ResponseWriter, r *http.Request) {
		if len(holds) == 0 { // R8
			switchBack(m, w, r)
			return
		}
		if m.counting {
			decide(m, decidedOpen)
		}
		refuse(answer, w, r, retryAfter, "")
	}
}

// switchTo publishes a handler, so that every reader sees it complete. An unlock is a release, and the next lock an acquire: no processor
// makes a write that follows the two visible before a write that precedes them. The handler is published only after both. A request reaches
// everything that the handler has captured through the word that it reads, and no processor that Go runs on follows a pointer before it has
// read it.
func switchTo(m *Middleware, handler http.HandlerFunc) {
	m.mu.Lock()
	//lint:ignore SA2001 only the order is wanted
	m.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.checks { // only the fast path checks requests
		*m.current = handler
	}
}

// switchBack switches to the fast path, which answers the request.
func switchBack(m *Middleware, w http.ResponseWriter, r *http.Request) {
	switchTo(m, m.fast)
	m.fast(w, r)
}
