package resilience

import "net/http"

// turning is off where tests look for races.
var turning = true

// A front is what Traefik calls where there is a breaker: a pointer to one of two handlers, that of lean.go or that of an open circuit. A
// refusal then makes its own values only, and not those of a request that passes. Which of the two it is, is a guess, and no more:
// either may get any request, looks at the view, and where it is the other's turns the front and hands it over. Requests read the front
// while one turns it. That is a race, which does no harm: it is one word, never half written, and both that it may be are right.

// turn turns a front to a handler, and has it answer.
func turn(front *http.HandlerFunc, to http.HandlerFunc, w http.ResponseWriter, r *http.Request) {
	if turning {
		*front = to
	}
	to(w, r)
}

// refuser returns the handler that refuses all requests while the circuit is open. Any other it hands to lean.
func (m *Middleware) refuser(front, lean *http.HandlerFunc) http.HandlerFunc {
	refusing, left := m.view.Refusing, m.view.Seconds
	return func(w http.ResponseWriter, r *http.Request) {
		if len(refusing) == 0 {
			turn(front, *lean, w, r)
			return
		}
		header := w.Header()
		header["Content-Type"] = contentType
		header["Content-Length"] = openLength
		header["Retry-After"] = waits[len(left)]
		w.WriteHeader(serviceUnavailable)
		w.Write(openText)
	}
}
