package resilience

// The tests of this package run twice: compiled, and interpreted as in Traefik. The interpreter shares a loop's variables between its
// rounds, as Go did before 1.22. So a variable that a function in the loop captures is copied first: row := row.

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

// closedPort is an address that refuses connections. No test is given this port.
const closedPort = "127.0.0.1:1"

// otherClient is the address of another client than that of httptest's requests, 192.0.2.1.
const otherClient = "192.0.2.2"

// nameOf returns the middleware name that is made of the test's name.
func nameOf(t *testing.T) string { return readName(&problems{}, "", t.Name()) }

// bucketOf returns the key of the client's bucket in Redis, and breakerOf that of the circuit.
func bucketOf(t *testing.T) string { return bucketOfClient(t, "192.0.2.1") }

func bucketOfClient(t *testing.T, address string) string {
	return "resilience:{" + nameOf(t) + "}:bucket:ip:" + address
}

func breakerOf(t *testing.T) string { return "resilience:{" + nameOf(t) + "}:breaker" }

// upstream counts the requests that reach it. It answers 200 and "hello", or as the test says.
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

// will sets the answer of the requests to come; nil: 200 and "hello".
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

// status answers with a status and no body.
func status(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
}

// hintsThen answers with early hints, then with a status.
func hintsThen(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(code)
	})
}

// nothingWritten returns without a status and without a body.
var nothingWritten = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// panicking is a handler that cannot be called.
var panicking = http.HandlerFunc(nil)

// newProcess starts with an empty registry, as a new process does, until the test ends. Its clock is one that tests can advance.
func newProcess(t *testing.T, grace time.Duration) *registry {
	before := processRegistry
	processRegistry = newRegistry(grace)
	processRegistry.since = gatewayClock.since
	t.Cleanup(func() { processRegistry = before })
	return processRegistry
}

// newGateway returns a middleware in front of a new upstream. Its context ends with the test.
func newGateway(t *testing.T, config *Config) (http.Handler, *upstream) {
	up := &upstream{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return newHandler(t, ctx, up, config), up
}

// newInstance is newGateway for tests that look into the middleware.
func newInstance(t *testing.T, config *Config) (*Middleware, *upstream) {
	up := &upstream{}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	m, err := newMiddleware(ctx, up, config, t.Name())
	require.NoError(t, err)
	return m, up
}

// newHandler is New. A configuration without a name gets the test's.
func newHandler(t *testing.T, ctx context.Context, next http.Handler, config *Config) http.Handler {
	handler, err := New(ctx, next, config, t.Name())
	require.NoError(t, err)
	return handler
}

// at is a Redis with a timeout that a loaded machine does not reach.
func at(address string) *RedisConfig {
	return &RedisConfig{Address: address, Timeout: "5s"}
}

// tokens is a limit whose buckets do not refill during a test.
func tokens(capacity string) *RateLimitConfig {
	return &RateLimitConfig{Capacity: capacity, RefillRate: "1", RefillPeriod: "1h"}
}

// failures is a breaker whose circuit stays open during a test.
func failures(threshold string) *CircuitBreakerConfig {
	return &CircuitBreakerConfig{FailureThreshold: threshold, ResetTimeout: "1h"}
}

func send(handler http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// get sends a request and returns the status of the answer.
func get(handler http.Handler) int {
	return send(handler, "GET", "/").Code
}

// getAs is get for a client with another address.
func getAs(handler http.Handler, address string) int {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = address + ":1234"
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Code
}

// statuses sends requests one after another and returns the statuses of the answers.
func statuses(handler http.Handler, requests int) []int {
	var codes []int
	for i := 0; i < requests; i++ {
		codes = append(codes, get(handler))
	}
	return codes
}

// panicOf sends a request and returns what the handler panics with, or nil.
func panicOf(handler http.Handler, w http.ResponseWriter, r *http.Request) (value interface{}) {
	defer func() { value = recover() }()
	handler.ServeHTTP(w, r)
	return nil
}

// forEachStore runs a test with the state in this process (redis is nil), and again with the state in Redis.
func forEachStore(t *testing.T, test func(t *testing.T, redis *RedisConfig)) {
	for _, store := range []struct {
		name  string
		redis *RedisConfig
	}{{"in this process", nil}, {"in Redis", at(redistest.Start(t).Addr())}} {
		store := store
		t.Run(store.name, func(t *testing.T) {
			newProcess(t, 0)
			test(t, store.redis)
		})
	}
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, condition func() bool, message ...interface{}) {
	require.Eventually(t, condition, 5*time.Second, time.Millisecond, message...)
}

// load sends requests from several clients at once and counts the answers by status.
type load struct {
	done sync.WaitGroup

	mu     sync.Mutex // guards what follows
	counts map[int]int
}

func newLoad() *load { return &load{counts: map[int]int{}} }

// start starts clients, each of which sends requests one after another.
func (l *load) start(handler http.Handler, clients, requests int) {
	for i := 0; i < clients; i++ {
		l.done.Add(1)
		go l.send(handler, requests)
	}
}

func (l *load) send(handler http.Handler, requests int) {
	defer l.done.Done()
	for i := 0; i < requests; i++ {
		code := get(handler)
		l.mu.Lock()
		l.counts[code]++
		l.mu.Unlock()
	}
}

// count returns how many answers so far had a status.
func (l *load) count(code int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[code]
}

// wait waits until all clients have their answers, and returns how many had each status.
func (l *load) wait() map[int]int {
	l.done.Wait()
	return l.counts
}
