package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// closedPort is where nobody listens. It is none of those that a test may be given.
const closedPort = "127.0.0.1:1"

// nameOf is what a middleware is called that has the test's name.
func nameOf(t *testing.T) string { return readName(&problems{}, "", t.Name()) }

// bucketOf and breakerOf are its keys in Redis. The client is that of httptest's requests.
func bucketOf(t *testing.T) string { return "resilience:{" + nameOf(t) + "}:bucket:ip:192.0.2.1" }

func breakerOf(t *testing.T) string { return "resilience:{" + nameOf(t) + "}:breaker" }

// upstream counts what reaches it, and answers as it is told: with 200 and "hello" where it is told nothing.
type upstream struct {
	mu     sync.Mutex
	calls  int
	answer http.Handler
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.calls++
	answer := u.answer
	u.mu.Unlock()
	if answer == nil {
		io.WriteString(w, "hello")
		return
	}
	answer.ServeHTTP(w, r)
}

func (u *upstream) will(answer http.Handler) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = answer
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls
}

func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
}

// newProcess begins anew, with nothing left of the tests before: what New returns from here on belongs to one process.
func newProcess(t *testing.T, grace time.Duration) *registry {
	before := processRegistry
	processRegistry = newRegistry(grace)
	t.Cleanup(func() { processRegistry = before })
	return processRegistry
}

// newGateway returns a middleware before a new upstream. Both end with the test.
func newGateway(t *testing.T, config *Config) (http.Handler, *upstream) {
	up := &upstream{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return newHandler(t, ctx, up, config), up
}

// newHandler is New, with the test's name for a middleware whose configuration has none.
func newHandler(t *testing.T, ctx context.Context, next http.Handler, config *Config) http.Handler {
	handler, err := New(ctx, next, config, t.Name())
	require.NoError(t, err)
	return handler
}

// at is a Redis that is given all the time it takes.
func at(address string) *RedisConfig {
	return &RedisConfig{Address: address, Timeout: "5s"}
}

// tokens is a limit under which a bucket does not refill while a test lasts.
func tokens(capacity string) *RateLimitConfig {
	return &RateLimitConfig{Capacity: capacity, RefillRate: "1", RefillPeriod: "1h"}
}

// failures is a breaker that stays open while a test lasts.
func failures(threshold string) *CircuitBreakerConfig {
	return &CircuitBreakerConfig{FailureThreshold: threshold, ResetTimeout: "1h"}
}

func send(handler http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// get has the handler answer a client's request, and returns the status.
func get(handler http.Handler) int {
	return send(handler, "GET", "/").Code
}

// places are where the state may be.
func places(t *testing.T) []place {
	return []place{{"in this process", nil}, {"in Redis", at(redistest.Start(t).Addr())}}
}

type place struct {
	name  string
	redis *RedisConfig
}

func hintsThen(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(code)
	})
}

// panicOf returns what the handler panics with, or nil.
func panicOf(handler http.Handler, w http.ResponseWriter, r *http.Request) (value interface{}) {
	defer func() { value = recover() }()
	handler.ServeHTTP(w, r)
	return nil
}

// hammer sends requests and counts the answers by status.
type load struct {
	mu     sync.Mutex
	counts map[int]int
	done   sync.WaitGroup
}

func (h *load) send(handler http.Handler, times int) {
	defer h.done.Done()
	for i := 0; i < times; i++ {
		code := get(handler)
		h.mu.Lock()
		h.counts[code]++
		h.mu.Unlock()
	}
}
