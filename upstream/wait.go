package main

import (
	"io"
	"net/http"
	"time"
)

// wait pauses, and reports whether the client is still there.
func wait(r *http.Request, pause time.Duration) bool {
	if pause > 0 {
		// On HTTP/1 the server only sees a client go once the body is read.
		io.Copy(io.Discard, r.Body)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
		return false
	case <-timer.C:
		return true
	}
}
