package main

import (
	"encoding/json"
	"net/http"
)

// problem is the body of an answer that is an error.
type problem struct {
	Error string `json:"error"`
}

// answer sends the value as JSON.
func answer(w http.ResponseWriter, code int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // our answers can all be written as JSON
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(body)
}

func fixed(code int, value any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, code, value)
	})
}
