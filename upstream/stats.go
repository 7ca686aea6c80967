package main

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

// mostPaths bounds the paths that are counted one by one; requests to further paths count in the total only.
const mostPaths = 1000

// stats counts requests. It is safe for concurrent use.
type stats struct {
	mu     sync.Mutex
	counts counts
}

type counts struct {
	Requests int            `json:"requests"`
	ByPath   map[string]int `json:"byPath"`
	InFlight inFlight       `json:"inFlight"`
}

type inFlight struct {
	Now int `json:"now"`
	Max int `json:"max"`
}

func newStats() *stats {
	return &stats{counts: counts{ByPath: map[string]int{}}}
}

// isCounted reports whether a request to the path counts: whether it is part of the service itself.
func isCounted(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first != "stats" && first != "health" && first != "flag"
}

func (s *stats) begin(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counts
	c.Requests++
	if _, known := c.ByPath[path]; known || len(c.ByPath) < mostPaths {
		c.ByPath[path]++
	}
	c.InFlight.Now++
	c.InFlight.Max = max(c.InFlight.Max, c.InFlight.Now)
}

func (s *stats) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.InFlight.Now--
}

// snapshot returns a copy of the counts.
func (s *stats) snapshot() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.counts
	taken.ByPath = maps.Clone(taken.ByPath)
	return taken
}

// reset clears all counts but those of running requests.
func (s *stats) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.counts.InFlight.Now
	s.counts = counts{ByPath: map[string]int{}, InFlight: inFlight{Now: now, Max: now}}
}

func (s *stats) show(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.snapshot())
}

func (s *stats) restart(w http.ResponseWriter, r *http.Request) {
	s.reset()
	s.show(w, r)
}
