// Package recorder watches an answer on its way to the client for its status, and lets all of it through as it comes.
package recorder

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Recorder is the ResponseWriter that the upstream's answer is written to. Each request has its own.
//
// Compiled code sees only http.ResponseWriter and http.Hijacker of it (R41, yaegi#1600), and so cannot flush. Therefore Write
// flushes after each piece of a stream, and of a body whose end has not been written.
type Recorder struct {
	http.ResponseWriter

	// OnHeader, if not nil, is called with the status before the response headers are written.
	OnHeader func(status int)

	// Status is the status of the answer, or 0 before there is one. It is 101 if the connection was taken over.
	Status int

	// Dated says that the answer had a Date when it arrived here. The server may add one later.
	Dated bool

	// Size is the number of bytes of the body that were written.
	Size int64

	// If Timed is set, Waited is how long the client was waited for: how long all writes took together.
	Timed  bool
	Waited time.Duration

	left   int64 // bytes of the body still to come, by Content-Length
	stream bool  // each piece is flushed
	held   bool  // except the first piece, which may be the whole body
}

// WriteHeader passes an informational answer on, and records any other status.
func (r *Recorder) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols || r.Status != 0 {
		r.ResponseWriter.WriteHeader(status)
		return
	}
	begin(r, status)
	r.ResponseWriter.WriteHeader(status)
	if r.stream && !r.held {
		flush(r)
	}
}

// Write passes a piece of the body on, and flushes it unless it is known to be the last.
func (r *Recorder) Write(piece []byte) (int, error) {
	if r.Timed {
		return writeTimed(r, piece)
	}
	if r.Status == 0 {
		begin(r, http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(piece)
	r.Size += int64(n)
	if r.left > 0 {
		r.left -= int64(n)
	}
	if r.held {
		r.held = false
	} else if r.stream || r.left > 0 {
		flush(r)
	}
	return n, err
}

func writeTimed(r *Recorder, piece []byte) (int, error) {
	r.Timed = false
	begun := time.Now()
	n, err := r.Write(piece)
	r.Waited += time.Since(begun)
	r.Timed = true
	return n, err
}

// Hijack lets the caller take over the connection, as for a WebSocket.
func (r *Recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hijacker, ok := r.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, fmt.Errorf("recorder: this connection cannot be taken over: %w", http.ErrNotSupported)
	}
	connection, buffered, err := hijacker.Hijack()
	if err == nil && r.Status == 0 {
		begin(r, http.StatusSwitchingProtocols)
	}
	return connection, buffered, err
}

// begin records what the response headers say.
func begin(r *Recorder, status int) {
	r.Status = status
	header := r.ResponseWriter.Header()
	r.Dated = len(header["Date"]) > 0
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err == nil {
		r.left = length
	}
	if mayHaveBody(status) {
		r.stream = err != nil || streams(header.Get("Content-Type"))
		r.held = r.stream && isWhole(status, header)
	}
	if r.OnHeader != nil {
		r.OnHeader(status)
	}
}

func mayHaveBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// isWhole reports whether an answer that could be a stream is probably written in one piece. Flushing its headers separately
// would change it. A gRPC call that ended without a message has its trailers in the headers. An error or a redirect without a
// Date is Traefik's own, and gets a Content-Length if it is written in one piece.
func isWhole(status int, header http.Header) bool {
	if streams(header.Get("Content-Type")) {
		return header.Get("Grpc-Status") != ""
	}
	return status >= 300 && header.Get("Date") == ""
}

func streams(contentType string) bool {
	return strings.HasPrefix(contentType, "text/event-stream") ||
		strings.HasPrefix(contentType, "application/grpc") ||
		strings.HasPrefix(contentType, "application/x-ndjson")
}

func flush(r *Recorder) {
	if flusher, ok := r.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}
