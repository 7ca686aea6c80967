// Package statuswriter has a writer for tests that knows its status. It is compiled where the tests are interpreted, as
// Traefik's own is.
package statuswriter

import "net/http/httptest"

// Writer is a recorder that knows its status, as Traefik's writer is where metrics or the access log are on.
type Writer struct {
	*httptest.ResponseRecorder
	status int
}

// New returns a writer that nothing is written to yet.
func New() *Writer { return &Writer{ResponseRecorder: httptest.NewRecorder()} }

// Sized is a Writer with one method more, which comes before the Status among them.
type Sized struct{ *Writer }

// NewSized returns a Sized writer that nothing is written to yet.
func NewSized() *Sized { return &Sized{New()} }

// Size returns a number that is no status of a success.
func (s *Sized) Size() int { return 999 }

// WriteHeader takes the first status that is no informational one for the answer's.
func (w *Writer) WriteHeader(status int) {
	if status >= 200 && w.status == 0 {
		w.status = status
	}
	w.ResponseRecorder.WriteHeader(status)
}

// Status returns the answer's status, or 0 where there is none yet.
func (w *Writer) Status() int { return w.status }
