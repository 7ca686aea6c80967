package main

import (
	"io"
	"net/http"
	"strconv"
)

// missing is how many bytes of the promised body /abort does not send.
const missing = 1024

// abort promises a body, sends the first part of it, and cuts the connection.
func abort(w http.ResponseWriter, r *http.Request) error {
	after, err := whole(r, "after", 1024, 0, mostBytes)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(after+missing, 10))
	w.WriteHeader(http.StatusOK)
	io.Copy(w, &pattern{size: after})
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// hangUp ends the connection, or on HTTP/2 the stream, without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	connection.Close()
}
