package soak

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sendTimeout is how long the attacked service waits for whoever reads its answer.
const sendTimeout = 2 * time.Second

// attacked is a service under attack. It writes down what reaches it, and fails as a whole when it is told to.
type attacked struct {
	address string

	mu      sync.Mutex // guards what follows
	failing bool
	honest  []time.Time    // when a request of an honest client came
	reached map[string]int // of all requests, by path
	cut     int            // answers that it gave up because they were not read
}

func startAttacked(t *testing.T) *attacked {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &attacked{address: listener.Addr().String(), reached: map[string]int{}}
	server := &http.Server{Handler: s}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return s
}

// fail has the service fail, or recover, and returns when that was.
func (s *attacked) fail(on bool) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = on
	return time.Now()
}

func (s *attacked) note(r *http.Request) (failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached[r.URL.Path]++
	if r.Header.Get("X-Honest") != "" {
		s.honest = append(s.honest, time.Now())
	}
	return s.failing
}

func (s *attacked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.note(r) {
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	switch r.URL.Path {
	case "/upload":
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, "the body broke off", http.StatusBadRequest)
		}
	case "/slow":
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
		}
	case "/large":
		s.large(w)
	}
}

// large answers with more than all buffers on the way hold, and cuts the answer where it is not read in time.
func (s *attacked) large(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTimeout))
	piece := strings.Repeat("x", 64<<10)
	for range 64 << 20 / len(piece) {
		if _, err := io.WriteString(w, piece); err != nil {
			s.mu.Lock()
			s.cut++
			s.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
	}
}

// honestBetween returns how many requests of honest clients came in a time.
func (s *attacked) honestBetween(from, to time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.honest {
		if at.After(from) && at.Before(to) {
			n++
		}
	}
	return n
}
