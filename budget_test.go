package resilience

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestBudget_boundsEachRequestByTheTimeout(t *testing.T) {
	const (
		timeout = 300 * time.Millisecond
		slack   = 150 * time.Millisecond
	)
	fromTheStart := func(m *Middleware, up *upstream, server *redistest.Server) {
		server.Pause()
	}
	afterAnother := func(m *Middleware, up *upstream, server *redistest.Server) {
		get(m.handler)
		waitFor(t, func() bool { return viewAge(m) > 110*time.Millisecond }) // it is too old to be used
		server.Pause()
	}
	duringTheAnswer := func(before, code int) func(m *Middleware, up *upstream, server *redistest.Server) {
		return func(m *Middleware, up *upstream, server *redistest.Server) {
			up.will(status(before))
			if get(m.handler) == 500 {
				elapse(t, at(server.Addr()), time.Hour) // the circuit is open, and lets a probe pass
			}
			up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				server.Pause()
				w.WriteHeader(code)
			}))
		}
	}
	for _, row := range []struct {
		name    string
		config  Config
		onError string
		before  func(m *Middleware, up *upstream, server *redistest.Server)
		code    int
	}{
		{"a limiter's first request", Config{RateLimit: tokens("90")}, "local", fromTheStart, 200},
		{"a breaker's first request", Config{CircuitBreaker: failures("5")}, "local", fromTheStart, 200},
		{"the first request of both", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "local", fromTheStart, 200},
		{"a later request of both", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "local", afterAnother, 200},
		{"a later request that passes", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "allow", afterAnother, 200},
		{"a later request that is denied", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "deny", afterAnother, 503},
		{"a report of a failure", Config{RateLimit: tokens("90"), CircuitBreaker: failures("5")}, "local", duringTheAnswer(200, 500), 500},
		{"a report of a probe", Config{CircuitBreaker: failures("1")}, "local", duringTheAnswer(500, 204), 204},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			newProcess(t, 0)
			late := redistest.Late(t)
			row.config.Redis = &RedisConfig{Address: server.Addr(), Timeout: timeout.String(), OnError: row.onError}
			m, up := newInstance(t, &row.config)
			handler := m.handler
			row.before(m, up, server)
			defer server.Resume()

			begun := time.Now()
			code := get(handler)
			took := time.Since(begun)
			require.Equal(t, row.code, code)
			require.GreaterOrEqual(t, took, timeout/2, "Redis was asked")
			require.Less(t, took, timeout+slack+late())

			// Redis counts as unavailable only when a call has waited for the whole timeout: until then one more request may ask.
			begun = time.Now()
			get(handler)
			require.Less(t, time.Since(begun), timeout+slack+late())
			begun = time.Now()
			for i := 0; i < 10; i++ {
				get(handler)
			}
			require.Less(t, time.Since(begun), timeout+late(), "the other requests do not wait")
		})
	}
}

// viewAge returns how old the view of a closed circuit is, which is healthy for its first 50 ms.
func viewAge(m *Middleware) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Duration(m.now()-m.view.Healthy)*time.Microsecond + 50*time.Millisecond
}

func TestBudget_boundsEachConcurrentRequest(t *testing.T) {
	const (
		timeout = 300 * time.Millisecond
		slack   = 150 * time.Millisecond
	)
	server := redistest.Start(t)
	newProcess(t, 0)
	late := redistest.Late(t)
	handler, up := newGateway(t, &Config{
		Redis:     &RedisConfig{Address: server.Addr(), Timeout: timeout.String()},
		RateLimit: tokens("90"), CircuitBreaker: failures("5")})
	get(handler)
	server.Pause()
	defer server.Resume()
	var mu sync.Mutex
	longest := time.Duration(0)
	var done sync.WaitGroup
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := 0; i < 30; i++ {
		<-pace.C
		done.Add(1)
		go func() {
			defer done.Done()
			begun := time.Now()
			get(handler)
			took := time.Since(begun)
			mu.Lock()
			defer mu.Unlock()
			if took > longest {
				longest = took
			}
		}()
	}
	done.Wait()
	require.Equal(t, 31, up.count())
	require.GreaterOrEqual(t, longest, timeout/2, "Redis was asked")
	require.Less(t, longest, timeout+slack+late())
}

func TestBudget_isSharedByAllCallsOfARequest(t *testing.T) {
	const (
		timeout = 500 * time.Millisecond
		delay   = 400 * time.Millisecond
		slack   = 150 * time.Millisecond
	)
	for _, row := range []struct {
		name   string
		before int // what the upstream answers before Redis is slow
		code   int
	}{
		{"a token, then a failure's report", 200, 500},
		{"a token, then a probe's permit", 500, 200},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			late := redistest.Late(t)
			relay := redistest.NewRelay(t, redistest.Start(t))
			redis := &RedisConfig{Address: relay.Addr(), Timeout: timeout.String()}
			handler, up := newGateway(t, &Config{Redis: redis, RateLimit: tokens("90"), CircuitBreaker: failures("1")})
			up.will(status(row.before))
			require.Equal(t, row.before, get(handler))
			elapse(t, redis, time.Hour) // an open circuit lets a probe pass
			up.will(status(row.code))
			relay.Delay(delay)

			begun := time.Now()
			code := get(handler)
			took := time.Since(begun)
			require.Equal(t, row.code, code)
			require.GreaterOrEqual(t, took, delay, "the call for a token")
			require.Less(t, took, timeout+slack+late(), "the other call has what is left")
		})
	}
}
