package gateway

import (
	"strings"
	"sync"
)

// Log keeps what a process says. The zero value is ready; it is safe for concurrent use.
type Log struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

// Write adds to it.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
