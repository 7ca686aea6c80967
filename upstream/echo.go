package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// echoedBytes is the size of the largest body that /echo accepts.
const echoedBytes = 1 << 20

type echoed struct {
	Method     string      `json:"method"`
	Path       string      `json:"path"`
	Query      string      `json:"query"`
	Host       string      `json:"host"`
	RemoteAddr string      `json:"remoteAddr"`
	Headers    http.Header `json:"headers"`
	Body       string      `json:"body"`
}

type uploaded struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// echo answers with the request. Bytes of the body that are not UTF-8 are replaced, because JSON cannot contain them.
func echo(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, echoedBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		text := fmt.Sprintf("body: too large; send at most %d bytes", tooLarge.Limit)
		answer(w, http.StatusRequestEntityTooLarge, problem{text})
		return nil
	}
	if err != nil {
		return fmt.Errorf("body: cannot be read: %w", err)
	}
	answer(w, http.StatusOK, echoed{
		Method:     r.Method,
		Path:       r.URL.Path,
		Query:      r.URL.RawQuery,
		Host:       r.Host,
		RemoteAddr: r.RemoteAddr,
		Headers:    r.Header,
		Body:       string(body),
	})
	return nil
}

// upload reads the body to its end, and answers with its size and digest.
func upload(w http.ResponseWriter, r *http.Request) error {
	digest := sha256.New()
	n, err := io.Copy(digest, r.Body)
	if err != nil {
		return fmt.Errorf("body: broke off after %d bytes: %w", n, err)
	}
	answer(w, http.StatusOK, uploaded{n, hex.EncodeToString(digest.Sum(nil))})
	return nil
}
