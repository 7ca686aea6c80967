package main

import "net/http"

const (
	hintedLink = "</style.css>; rel=preload; as=style"
	checksum   = "abc"
)

// hints sends early hints, and then the answer. Only the hints have the link.
func hints(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Link", hintedLink)
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Del("Link")
	answer(w, http.StatusOK, okay)
}

// trailers answers with a trailer, and a body without a length.
func trailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "X-Checksum")
	answer(w, http.StatusOK, okay)
	http.NewResponseController(w).Flush() // else HTTP/2 would send a length
	w.Header().Set("X-Checksum", checksum)
}
