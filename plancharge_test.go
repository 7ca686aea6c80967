package resilience

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// chargeStatus: a token is taken when the answer has such a status, and a client without tokens is refused before.

// answered is a number of requests, how the service answers them, and the statuses that the client gets.
type answered struct {
	service http.Handler
	times   int
	client  int  // 0: the service panics
	isGone  bool // the client leaves first
}

// cancelled returns a request whose client leaves while it is served.
func cancelled() (*http.Request, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	return httptest.NewRequest("GET", "/", nil).WithContext(ctx), cancel
}

// requireAnswers sends the requests of a step, one after another.
func (a answered) requireAnswers(t *testing.T, handler http.Handler, up *upstream, message ...interface{}) {
	for i := 0; i < a.times; i++ {
		request, cancel := cancelled()
		service, isGone := a.service, a.isGone
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isGone {
				cancel()
			}
			service.ServeHTTP(w, r)
		}))
		w := httptest.NewRecorder()
		reason := panicOf(handler, w, request)
		cancel()
		require.Equal(t, a.client == 0, reason != nil, message...)
		if a.client != 0 {
			require.Equal(t, a.client, w.Code, message...)
		}
	}
}

// answersThenPanics answers with a status and panics.
func answersThenPanics(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		panic(http.ErrAbortHandler)
	})
}

// charging is a block whose limit "failed" takes tokens for some statuses.
func charging(capacity, statuses string) *RateLimitConfig {
	limit := tokens("90")
	limit.Limits = map[string]*LimitConfig{"failed": chargedAt(capacity, statuses)}
	return limit
}

func TestPlans_chargeStatus(t *testing.T) {
	const panics, left = 0, true
	for _, row := range []struct {
		name  string
		limit *RateLimitConfig
		steps []answered
	}{
		{"a status that is charged", charging("2", "401,403"), []answered{
			{status(401), 1, 401, false}, {status(403), 1, 403, false}, {status(200), 2, 429, false}}},
		{"a range", charging("2", "400-499"), []answered{
			{status(404), 2, 404, false}, {status(200), 1, 429, false}}},
		{"other statuses", charging("1", "401"), []answered{
			{status(200), 3, 200, false}, {status(500), 3, 500, false}, {nothingWritten, 3, 200, false},
			{status(401), 1, 401, false}, {status(200), 1, 429, false}}},
		{"no answer is 200", charging("1", "200"), []answered{
			{nothingWritten, 1, 200, false}, {status(500), 1, 429, false}}},
		{"a panic before the answer", charging("1", "401"), []answered{
			{panicking, 3, panics, false}, {status(401), 1, 401, false}, {status(200), 1, 429, false}}},
		{"a panic before the answer is 500", charging("2", "500"), []answered{
			{panicking, 2, panics, false}, {status(200), 1, 429, false}}},
		{"a panic after the answer", charging("1", "401"), []answered{
			{answersThenPanics(200), 3, panics, false}, {answersThenPanics(401), 1, panics, false}, {status(200), 1, 429, false}}},
		{"the client leaves without an answer", charging("1", "200,401"), []answered{
			{nothingWritten, 3, 200, left}, {panicking, 3, panics, left}, {status(401), 1, 401, false}, {status(200), 1, 429, false}}},
		{"the client leaves, and Traefik notes that", charging("1", "401"), []answered{
			{status(499), 3, 499, left}, {status(401), 1, 401, left}, {status(200), 1, 429, false}}},
		{"that may be charged, too", charging("1", "401,499"), []answered{
			{status(499), 1, 499, left}, {status(200), 1, 429, false}}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			forEachStore(t, func(t *testing.T, redis *RedisConfig) { requireCharges(t, redis, row.limit, row.steps) })
		})
	}
}

// requireCharges takes the steps without a breaker, and again with one.
func requireCharges(t *testing.T, redis *RedisConfig, limit *RateLimitConfig, steps []answered) {
	for _, circuit := range []*CircuitBreakerConfig{nil, failures("1000")} {
		config := named(fmt.Sprint(nameOf(t), circuit != nil), redis, limit, circuit)
		handler, up := newGateway(t, config)
		for i, step := range steps {
			step.requireAnswers(t, handler, up, "step %d, with a breaker: %t", i, circuit != nil)
		}
	}
}

// What other limits take is not given back.
func TestPlans_chargeStatusOfOneLimitOnly(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		limit := charging("5", "401")
		limit.Capacity = "4"
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: limit})
		require.Equal(t, []int{200, 200, 200, 200, 429, 429}, statuses(handler, 6))
		require.Equal(t, 4, up.count())
	})
}

// A request that the circuit refuses is not charged.
func TestPlans_chargeStatusAndAnOpenCircuit(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		setSwitch(t, false)
		limit := charging("3", "500-599")
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: limit,
			CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "1m", HalfOpenSuccessThreshold: "1"}})
		up.will(status(500))
		require.Equal(t, []int{500, 503, 503, 503, 503, 503}, statuses(handler, 6))
		elapse(t, redis, time.Minute)
		require.Equal(t, 500, get(handler), "a probe")
		elapse(t, redis, 2*time.Minute)
		require.Equal(t, 500, get(handler), "another probe, with the last token")
		elapse(t, redis, 2*time.Minute)
		require.Equal(t, 429, get(handler))
	})
}

// However many requests are under way at once, no more of them than the bucket has tokens can be charged.
func TestPlans_chargeStatusOfParallelRequests(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newGateway(t, &Config{Redis: redis, RateLimit: charging("7", "401")})
		for _, row := range []struct {
			service int
			most    int   // of the service's answers at the same time
			least   int64 // tokens that stay taken
		}{{200, 7, 0}, {401, 7, 7}, {200, 0, 7}} {
			row := row
			c := newHeld(row.service)
			up.will(c)
			l := newLoad()
			l.start(handler, 20, 1)
			waitFor(t, func() bool { return c.waits() == row.most })
			waitFor(t, func() bool { return l.count(429) == 20-row.most }, "the others are refused")
			require.Equal(t, row.most, c.waits())
			c.release()
			counts := l.wait()
			require.Equal(t, row.most, counts[row.service])
			require.Equal(t, 20-row.most, counts[429])
			if redis != nil && row.service == 200 {
				key := "resilience:{" + nameOf(t) + "}:limit:failed:" + identity.Hashed("ip:192.0.2.1")
				server := redistest.Connect(t, redis.Address)
				waitFor(t, func() bool { return takenOf(t, server, key, "failed", 7) == row.least }, "the tokens are back")
			}
		}
	})
}

// held is a service that keeps requests waiting until it is released.
type held struct {
	status int
	open   chan bool

	mu      sync.Mutex
	waiting int
}

func newHeld(status int) *held { return &held{status: status, open: make(chan bool)} }

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.waiting++
	h.mu.Unlock()
	<-h.open
	w.WriteHeader(h.status)
}

func (h *held) waits() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting
}

func (h *held) release() { close(h.open) }

// Each token comes back exactly once, to the bucket in Redis, whichever gateway took it, and the other gateway may use it soon.
func TestPlansFleet_chargeStatusGivesBackOnce(t *testing.T) {
	server := redistest.Start(t)
	limit := charging("5", "401")
	limit.Capacity = "100000"
	one, two, first, second := gateways(t, &Config{Redis: at(server.Addr()), RateLimit: limit})
	key := "resilience:{" + nameOf(t) + "}:limit:failed:" + identity.Hashed("ip:192.0.2.1")
	taken := func() int64 { return takenOf(t, server, key, "failed", 5) }
	first.will(status(401))
	second.will(status(200))
	for charged := int64(1); charged <= 4; charged++ {
		require.Equal(t, 401, get(one))
		for i := 0; i < 10; i++ {
			require.Equal(t, 200, get(two))
			waitFor(t, func() bool { return taken() == charged })
		}
	}
	held := newHeld(200)
	second.will(held)
	l := newLoad()
	l.start(two, 1, 1)
	waitFor(t, func() bool { return taken() == 5 })
	require.Equal(t, 429, get(one), "the last token may still be charged")
	held.release()
	require.Equal(t, map[int]int{200: 1}, l.wait())
	released := time.Now()
	waitFor(t, func() bool { return get(one) == 401 })
	require.Less(t, time.Since(released), 1500*time.Millisecond)
	require.Equal(t, 429, get(two), "no token is left in the fleet")
	require.Equal(t, int64(5), taken())
}

// A token of a lease comes back to the lease, without a call.
func TestPlans_chargeStatusSpendsNoCalls(t *testing.T) {
	newProcess(t, 0)
	relay := redistest.NewRelay(t, redistest.Start(t))
	limit := charging("100000", "401")
	limit.Capacity = "100000"
	handler, _ := newGateway(t, &Config{Redis: at(relay.Addr()), RateLimit: limit})
	statuses(handler, 50)
	before := relay.Sent()
	statuses(handler, 400)
	require.Less(t, relay.Sent()-before, int64(300), "a call for each refund would be 400; the slower the requests, the smaller the leases")
}
