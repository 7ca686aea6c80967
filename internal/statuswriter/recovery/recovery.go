// Package recovery has writers for tests that are shaped as the one that Traefik hands to the first middleware: its type names,
// fields and methods are those of Traefik's own package recovery. It is compiled where the tests are interpreted.
package recovery

import (
	"bufio"
	"net"
	"net/http"
)

// Wrap returns a writer around another one, as Traefik does where that one notifies of closed connections, and where it does not.
func Wrap(rw http.ResponseWriter) http.ResponseWriter {
	wrapper := &responseWriterWrapper{rw: rw}
	if _, ok := rw.(notifier); ok {
		return &responseWriterWrapperWithCloseNotify{wrapper}
	}
	return wrapper
}

// notifier is http.CloseNotifier, which is deprecated, and which Traefik still asks for.
type notifier interface{ CloseNotify() <-chan bool }

type responseWriterWrapper struct {
	rw          http.ResponseWriter
	headersSent bool
}

func (r *responseWriterWrapper) Header() http.Header { return r.rw.Header() }

func (r *responseWriterWrapper) Write(piece []byte) (int, error) {
	r.headersSent = true
	return r.rw.Write(piece)
}

func (r *responseWriterWrapper) WriteHeader(status int) {
	if r.headersSent {
		return
	}
	r.headersSent = status < 100 || status > 199
	r.rw.WriteHeader(status)
}

func (r *responseWriterWrapper) Flush() {
	if flusher, ok := r.rw.(http.Flusher); ok {
		flusher.Flush()
	}
}

func (r *responseWriterWrapper) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if hijacker, ok := r.rw.(http.Hijacker); ok {
		return hijacker.Hijack()
	}
	return nil, nil, http.ErrNotSupported
}

type responseWriterWrapperWithCloseNotify struct {
	*responseWriterWrapper
}

func (r *responseWriterWrapperWithCloseNotify) CloseNotify() <-chan bool {
	return r.rw.(notifier).CloseNotify()
}
