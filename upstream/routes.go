package main

import (
	"net/http"
	"strings"
)

// service is the dummy upstream. It is safe for concurrent use.
type service struct {
	stats   *stats
	flag    *flagSwitch
	sockets *sockets
	routes  map[string]http.Handler
}

func newService() *service {
	s := &service{stats: newStats(), flag: &flagSwitch{}, sockets: newSockets()}
	s.routes = s.table()
	return s
}

func (s *service) table() map[string]http.Handler {
	return map[string]http.Handler{
		"/health":      fixed(http.StatusOK, healthy),
		"/ok":          s.flag.guard(fixed(http.StatusOK, okay)),
		"/users":       s.flag.guard(fixed(http.StatusOK, users)),
		"/products":    s.flag.guard(fixed(http.StatusOK, products)),
		"/fail":        fixed(http.StatusInternalServerError, failed),
		"/slow":        handler(slow),
		"/echo":        handler(echo),
		"/upload":      handler(upload),
		"/sse":         handler(events),
		"/chunks":      handler(chunks),
		"/trailers":    http.HandlerFunc(trailers),
		"/hints":       http.HandlerFunc(hints),
		"/download":    handler(download),
		"/ws":          handler(s.sockets.serve),
		"/abort":       handler(abort),
		"/hangup":      http.HandlerFunc(hangUp),
		"/flag":        http.HandlerFunc(s.flag.show),
		"/flag/fail":   post(s.flag.turn(true)),
		"/flag/heal":   post(s.flag.turn(false)),
		"/stats":       http.HandlerFunc(s.stats.show),
		"/stats/reset": post(s.stats.restart),
	}
}

// ServeHTTP does without http.ServeMux, which would redirect paths such as //ok instead of calling them unknown.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isCounted(r.URL.Path) {
		s.stats.begin(r.URL.Path)
		defer s.stats.end()
	}
	s.route(r.URL.Path).ServeHTTP(w, r)
}

func (s *service) route(path string) http.Handler {
	if code, ok := strings.CutPrefix(path, statusPrefix); ok {
		return status(code)
	}
	if found, ok := s.routes[path]; ok {
		return found
	}
	return fixed(http.StatusNotFound, problem{"no such path"})
}

// handler is a handler whose error says what is wrong with the request, before anything is answered.
type handler func(w http.ResponseWriter, r *http.Request) error

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		answer(w, http.StatusBadRequest, problem{err.Error()})
	}
}

func post(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			answer(w, http.StatusMethodNotAllowed, problem{"method: " + r.Method + " changes nothing here; use POST"})
			return
		}
		next(w, r)
	})
}
