package main

import (
	"net/http"
	"sync/atomic"
)

// flagSwitch makes the service fail as a whole. The zero value is off.
type flagSwitch struct {
	failing atomic.Bool
}

// guard returns a handler that fails while the switch is on.
func (f *flagSwitch) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.failing.Load() {
			answer(w, http.StatusInternalServerError, failed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (f *flagSwitch) turn(on bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.failing.Store(on)
		f.show(w, r)
	}
}

func (f *flagSwitch) show(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]bool{"failing": f.failing.Load()})
}
