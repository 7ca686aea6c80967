package statuswriter

import "net/http"

// Faulty is a Writer that calls a function before each of its methods, for a test to panic in.
type Faulty struct {
	*Writer
	step func(method string)
}

// NewFaulty returns a Faulty writer that nothing is written to yet.
func NewFaulty(step func(method string)) *Faulty { return &Faulty{Writer: New(), step: step} }

// Header returns the header.
func (f *Faulty) Header() http.Header {
	f.step("Header")
	return f.Writer.Header()
}

// WriteHeader writes the status.
func (f *Faulty) WriteHeader(status int) {
	f.step("WriteHeader")
	f.Writer.WriteHeader(status)
}

// Write writes a piece of the body.
func (f *Faulty) Write(piece []byte) (int, error) {
	f.step("Write")
	return f.Writer.Write(piece)
}

// Status returns the answer's status, or 0 where there is none yet.
func (f *Faulty) Status() int {
	f.step("Status")
	return f.Writer.Status()
}

// Mute is a Faulty writer that does not tell its status.
type Mute struct{ writer *Faulty }

// NewMute returns a Mute writer that nothing is written to yet.
func NewMute(step func(method string)) *Mute { return &Mute{writer: NewFaulty(step)} }

// Header returns the header.
func (m *Mute) Header() http.Header { return m.writer.Header() }

// WriteHeader writes the status.
func (m *Mute) WriteHeader(status int) { m.writer.WriteHeader(status) }

// Write writes a piece of the body.
func (m *Mute) Write(piece []byte) (int, error) { return m.writer.Write(piece) }
