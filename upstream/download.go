package main

import (
	"net/http"
	"time"
)

const (
	defaultDownload = 100 << 20
	mostBytes       = 2 << 30
)

// download answers with bytes of the pattern, or with the range of them that the request asks for.
func download(w http.ResponseWriter, r *http.Request) error {
	size, err := whole(r, "bytes", defaultDownload, 0, mostBytes)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, &pattern{size: size})
	return nil
}
