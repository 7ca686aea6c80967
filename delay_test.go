package resilience

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/ratelimit"
	"github.com/stretchr/testify/require"
)

func TestRead_delay(t *testing.T) {
	for _, row := range []struct {
		name    string
		limit   RateLimitConfig
		problem string // "": none
		part    string
	}{
		{"the default number", RateLimitConfig{MaxDelay: "500ms"}, "", "delay: up to 500ms, 100 requests at once"},
		{"both", RateLimitConfig{MaxDelay: "2s", MaxDelayed: "7"}, "", "delay: up to 2s, 7 requests at once"},
		{"off", RateLimitConfig{MaxDelay: "0s"}, "", "rate limit: 100 at once, 10 each 1s"},
		{"a number without a time", RateLimitConfig{MaxDelayed: "7"},
			"rateLimit.maxDelayed: no request waits without maxDelay; write maxDelay too, or leave this out", ""},
		{"in a dry run", RateLimitConfig{MaxDelay: "1s", DryRun: "true"},
			"rateLimit.maxDelay: a dry run lets requests pass at once; leave out maxDelay or dryRun", ""},
		{"too many", RateLimitConfig{MaxDelay: "1s", MaxDelayed: "10001"},
			`rateLimit.maxDelayed: "10001" is not a whole number from 1 to 10000`, ""},
	} {
		limit := row.limit
		s, err := readConfig(&Config{RateLimit: &limit}, "gateway@file")
		if row.problem != "" {
			require.EqualError(t, err, row.problem, row.name)
			continue
		}
		require.NoError(t, err, row.name)
		require.Contains(t, s.parts, row.part, row.name)
	}
}

// delayed is a limit of one token, under which requests wait.
func delayed(redis *RedisConfig, refillPeriod, longest, most string) *Config {
	return &Config{Redis: redis, RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: refillPeriod,
		MaxDelay: longest, MaxDelayed: most}, CircuitBreaker: failures("100000")}
}

// waiters are requests in the background, and their answers in the order in which they came.
type waiters struct {
	t    *testing.T
	m    *Middleware
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	answers []string   // "name status"
	after   []time.Duration
	begun   time.Time
}

func newWaiters(t *testing.T, m *Middleware) *waiters {
	return &waiters{t: t, m: m, begun: time.Now()}
}

// start sends a request under a name, and returns when it waits. The function that it returns lets its client leave.
func (w *waiters) start(name string) func() {
	before := ratelimit.Delayed(w.m.limiter)
	ctx, cancel := context.WithCancel(context.Background())
	w.done.Add(1)
	go w.send(ctx, name)
	waitFor(w.t, func() bool { return ratelimit.Delayed(w.m.limiter) > before }, name)
	return cancel
}

func (w *waiters) send(ctx context.Context, name string) {
	defer w.done.Done()
	recorded := httptest.NewRecorder()
	w.m.handler.ServeHTTP(recorded, anyRequest().WithContext(ctx))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, name+" "+strconv.Itoa(recorded.Code))
	w.after = append(w.after, time.Since(w.begun))
}

// wait returns the answers.
func (w *waiters) wait() []string {
	w.done.Wait()
	require.Equal(w.t, int64(0), ratelimit.Delayed(w.m.limiter), "each place is given back")
	return w.answers
}

func sorted(texts []string) []string {
	sort.Strings(texts)
	return texts
}

func TestDelay_requestsWaitInOrder(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		m, up := newInstance(t, delayed(redis, "200ms", "10s", ""))
		w := newWaiters(t, m)
		require.Equal(t, 200, get(m.handler))
		for _, name := range []string{"a", "b", "c", "d"} {
			w.start(name)
		}
		require.Equal(t, []string{"a 200", "b 200", "c 200", "d 200"}, w.wait())
		require.GreaterOrEqual(t, w.after[3], 790*time.Millisecond, "none before its token")
		require.Less(t, w.after[3], 5*time.Second)
		require.Equal(t, 5, up.count())
	})
}

func TestDelay_isBoundedInTimeAndNumber(t *testing.T) {
	newProcess(t, time.Hour)
	newStoppedClock(t)
	m, _ := newInstance(t, delayed(nil, "10s", "35s", "2"))
	w := newWaiters(t, m)
	require.Equal(t, 200, get(m.handler))
	retryAfter := func(want string) {
		answer := send(m.handler, "GET", "/")
		require.Equal(t, 429, answer.Code)
		require.Equal(t, want, answer.Header().Get("Retry-After"), "it accounts for those that wait")
	}
	cancel := w.start("a")
	w.start("b")()
	waitFor(t, func() bool { return ratelimit.Delayed(m.limiter) == 1 })
	cancelC := w.start("c")
	retryAfter("30")
	cancel()
	waitFor(t, func() bool { return ratelimit.Delayed(m.limiter) == 1 }, "a client that leaves gives its place back")
	cancel = w.start("d")
	retryAfter("30")
	cancel()
	cancelC()
	w.done.Wait()
	require.Equal(t, []string{"a 499", "b 499", "c 499", "d 499"}, sorted(w.wait()))

	late, _ := newInstance(t, &Config{Name: "late", RateLimit: delayed(nil, "10s", "9s", "").RateLimit})
	require.Equal(t, []int{200, 429}, statuses(late.handler, 2), "its token is due too late")
}

func TestDelay_thoseBehindAClientThatLeavesMoveUp(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		m, up := newInstance(t, delayed(redis, "700ms", "10s", ""))
		w := newWaiters(t, m)
		require.Equal(t, 200, get(m.handler))
		first := w.start("a")
		w.start("b")
		w.start("c")
		first()
		require.Equal(t, []string{"a 499", "b 200", "c 200"}, w.wait())
		require.Less(t, w.after[2], 2*time.Second, "without a, c waits for the second token, not for the third")
		require.Equal(t, 3, up.count())
	})
}

func TestDelay_isForEachBucket(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		m, _ := newInstance(t, delayed(redis, "300ms", "10s", ""))
		w := newWaiters(t, m)
		require.Equal(t, 200, get(m.handler))
		w.start("a")
		require.Equal(t, 200, getAs(m.handler, otherClient), "another client does not wait")
		require.Equal(t, []string{"a 200"}, w.wait())
	})
}

func TestDelay_sharedLimit(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		everyone := &LimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "200ms", SourceCriterion: &SourceCriterionConfig{All: "true"}}
		m, _ := newInstance(t, &Config{Redis: redis, RateLimit: &RateLimitConfig{Capacity: "100", MaxDelay: "10s",
			Limits: map[string]*LimitConfig{"everyone": everyone}}})
		begun := time.Now()
		for i := 0; i < 4; i++ {
			require.Equal(t, 200, getAs(m.handler, "192.0.2."+strconv.Itoa(i)))
		}
		require.GreaterOrEqual(t, time.Since(begun), 590*time.Millisecond)
	})
}

// In every window no more than the limit passes, although many wait. Most that a limit allows does.
func TestDelay_isExactUnderContention(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := &Config{Redis: redis, RateLimit: &RateLimitConfig{Capacity: "10", RefillRate: "100", MaxDelay: "200ms", MaxDelayed: "30"}}
		m, up := newInstance(t, config)
		begun := time.Now()
		l := newLoad()
		l.start(m.handler, 40, 10)
		counts := l.wait()
		most := 10 + int(time.Since(begun)/(10*time.Millisecond)) + 1
		require.LessOrEqual(t, counts[200], most)
		require.Equal(t, counts[200], up.count())
		require.Equal(t, 400, counts[200]+counts[429])
		require.Greater(t, counts[200], 10)
		require.Equal(t, int64(0), ratelimit.Delayed(m.limiter))
	})
}

func TestDelay_acrossGateways(t *testing.T) {
	server := redistest.Start(t)
	config := &Config{Redis: at(server.Addr()), RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "50", MaxDelay: "30s", MaxDelayed: "100"}}
	one, two, first, second := gateways(t, config)
	begun := time.Now()
	l := newLoad()
	l.start(one, 10, 3)
	l.start(two, 10, 3)
	require.Equal(t, map[int]int{200: 60}, l.wait())
	require.GreaterOrEqual(t, time.Since(begun), 59*20*time.Millisecond)
	require.Equal(t, 60, first.count()+second.count())
}

// A request that waits is decided in this process if Redis has become unavailable.
func TestDelay_endsThoughRedisBecomesUnavailable(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, time.Hour)
	config := delayed(at(server.Addr()), "500ms", "10s", "")
	m, _ := newInstance(t, config)
	w := newWaiters(t, m)
	require.Equal(t, 200, get(m.handler))
	w.start("a")
	w.start("b")
	server.Kill()
	require.Equal(t, []string{"a 200", "b 200"}, w.wait())
}

func TestDelay_endsThoughTheConfigurationIsReloaded(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		ctx, reload := context.WithCancel(context.Background())
		m, err := newMiddleware(ctx, &upstream{}, delayed(redis, "300ms", "10s", ""), t.Name())
		require.NoError(t, err)
		w := newWaiters(t, m)
		require.Equal(t, 200, get(m.handler))
		w.start("a")
		reload()
		newInstance(t, delayed(redis, "300ms", "10s", ""))
		require.Equal(t, []string{"a 200"}, w.wait())
	})
}

// A request that waits holds no place for a probe, and asks again when it has its token.
func TestDelay_waitsWithoutAPermit(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		config := delayed(redis, "300ms", "10s", "")
		config.CircuitBreaker = &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "1h", HalfOpenMaxProbes: "1"}
		m, up := newInstance(t, config)
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }))
		w := newWaiters(t, m)
		require.Equal(t, 500, get(m.handler))
		up.will(nil)
		elapse(t, redis, time.Hour)
		w.done.Add(2)
		go w.send(context.Background(), "a")
		go w.send(context.Background(), "b")
		require.Equal(t, []string{"a 200", "b 200"}, sorted(w.wait()))
	})
}
