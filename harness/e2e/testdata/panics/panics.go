// Package panics is a plugin that panics where the path says so: a handler below ours that is broken. It also tells the type of writer
// that it was given.
package panics

import (
	"context"
	"io"
	"net/http"
	"reflect"
)

// Config is empty.
type Config struct{}

// CreateConfig returns it.
func CreateConfig() *Config { return &Config{} }

type panics struct{ next http.Handler }

// New returns the middleware.
func New(_ context.Context, next http.Handler, _ *Config, _ string) (http.Handler, error) {
	return &panics{next: next}, nil
}

func (p *panics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/panic":
		panic("broken on purpose")
	case "/panic/late":
		io.WriteString(w, "a part of an answer")
		panic("broken on purpose")
	case "/writer":
		w.Header().Set("X-Writer", reflect.TypeOf(w).String())
		return
	}
	p.next.ServeHTTP(w, r)
}
