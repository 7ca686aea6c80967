package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// mostPieces is the most events or pieces that one answer has.
const mostPieces = 1000

// events answers with server-sent events that carry 1, 2, 3 and so on.
func events(w http.ResponseWriter, r *http.Request) error {
	number, err := whole(r, "events", 4, 1, mostPieces)
	if err != nil {
		return err
	}
	interval, err := seconds(r, "interval", 0.5)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	send(w, r, interval, numbered(number, "data: %d\n\n"))
	return nil
}

// chunks answers with a plain body in pieces, with or without its length.
func chunks(w http.ResponseWriter, r *http.Request) error {
	number, err := whole(r, "pieces", 4, 1, mostPieces)
	if err != nil {
		return err
	}
	interval, err := seconds(r, "interval", 0.2)
	if err != nil {
		return err
	}
	withLength, err := on(r, "length")
	if err != nil {
		return err
	}
	pieces := numbered(number, "piece %d\n")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if withLength {
		w.Header().Set("Content-Length", strconv.Itoa(len(strings.Join(pieces, ""))))
	}
	send(w, r, interval, pieces)
	return nil
}

func numbered(number int64, format string) []string {
	pieces := make([]string, number)
	for i := range pieces {
		pieces[i] = fmt.Sprintf(format, i+1)
	}
	return pieces
}

// send writes the pieces, each at once, and waits between them. It stops when the client goes away.
func send(w http.ResponseWriter, r *http.Request, interval time.Duration, pieces []string) {
	controller := http.NewResponseController(w)
	for i, piece := range pieces {
		if i > 0 && !wait(r, interval) {
			return
		}
		io.WriteString(w, piece)
		if controller.Flush() != nil {
			return
		}
	}
}
