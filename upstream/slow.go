package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

const statusPrefix = "/status/"

type waited struct {
	Status string `json:"status"`
	Waited string `json:"waited"`
}

// slow answers after a wait.
func slow(w http.ResponseWriter, r *http.Request) error {
	pause, err := seconds(r, "seconds", 2)
	if err != nil {
		return err
	}
	if wait(r, pause) {
		answer(w, http.StatusOK, waited{"ok", pause.String()})
	}
	return nil
}

// status answers with the status that the text names, after a wait if the query has one.
func status(text string) http.Handler {
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		code, err := strconv.Atoi(text)
		if err != nil || code < 200 || code > 599 {
			return fmt.Errorf("status: %q is not a status; write 200 to 599", text)
		}
		pause, err := seconds(r, "seconds", 0)
		if err != nil {
			return err
		}
		if wait(r, pause) {
			answerStatus(w, r, code)
		}
		return nil
	})
}

func answerStatus(w http.ResponseWriter, r *http.Request, code int) {
	query := r.URL.Query()
	if !query.Has("body") {
		answer(w, code, map[string]int{"status": code})
		return
	}
	body := query.Get("body")
	w.Header().Set("Content-Type", typeOf(body))
	w.WriteHeader(code)
	io.WriteString(w, body)
}

func typeOf(body string) string {
	if json.Valid([]byte(body)) {
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}
