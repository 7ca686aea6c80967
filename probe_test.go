package resilience

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// ready returns a middleware whose circuit is open, and has been for long enough: its next request is a probe. One probe at
// a time may pass; one success closes the circuit, and one failure opens it for good.
func newHalfOpenGateway(t *testing.T, redis *RedisConfig) (http.Handler, *upstream) {
	config := &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
		FailureThreshold: "1", ResetTimeout: "1ms", HalfOpenSuccessThreshold: "1"}}
	opener, broken := newGateway(t, config)
	broken.will(status(500))
	require.Equal(t, 500, get(opener))
	time.Sleep(5 * time.Millisecond)
	return newGateway(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
		FailureThreshold: "2", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1"}})
}

// stateOf tells the state of a breaker that takes one failure to open it when half-open, and two when closed.
func stateOf(handler http.Handler, up *upstream) string {
	up.will(status(500))
	if get(handler) == 503 {
		return "open"
	}
	up.will(nil)
	if get(handler) == 503 {
		return "half-open"
	}
	return "closed"
}

func TestProbe_outcomeDecidesTheState(t *testing.T) {
	here := context.Background()
	gone, cancel := context.WithCancel(here)
	cancel()
	rows := []struct {
		name   string
		ctx    context.Context
		answer http.Handler
		after  string
	}{
		{"success", here, nil, "closed"},
		{"a status that is not the upstream's fault", here, status(404), "closed"},
		{"nothing written", here, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "closed"},
		{"another protocol", here, status(101), "closed"},
		{"early hints, then success", here, hintsThen(200), "closed"},
		{"failure", here, status(503), "open"},
		{"early hints, then failure", here, hintsThen(500), "open"},
		{"a panic", here, http.HandlerFunc(nil), "open"},
		{"a client that went away gives its place back", gone, status(502), "half-open"},
		{"a client that went away before a panic does so too", gone, http.HandlerFunc(nil), "half-open"},
	}
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		for _, row := range rows {
			row := row
			t.Run(row.name, func(t *testing.T) {
				handler, up := newHalfOpenGateway(t, redis)
				up.will(row.answer)
				panicOf(handler, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(row.ctx))
				require.Equal(t, row.after, stateOf(handler, up))
			})
		}
	})
}

func TestProbe_isDecidedByItsResponseHeaders(t *testing.T) {
	forEachStore(t, func(t *testing.T, redis *RedisConfig) {
		handler, up := newHalfOpenGateway(t, redis)
		begun, headers, end := make(chan bool), make(chan bool), make(chan bool)
		up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun <- true
			<-headers
			w.WriteHeader(200)
			begun <- true
			<-end
			panic(http.ErrAbortHandler) // what comes after the headers is another matter
		}))
		var done sync.WaitGroup
		done.Add(1)
		go func() {
			defer done.Done()
			panicOf(handler, httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}()

		<-begun
		up.will(nil)
		before := up.count()
		requireAnswer(t, send(handler, "GET", "/"), 503, openBody, 1)
		require.Equal(t, before, up.count(), "there is one place, and it is taken")

		headers <- true
		<-begun
		if redis != nil {
			time.Sleep(60 * time.Millisecond) // for so long it is remembered that there was no place
		}
		require.Equal(t, 200, get(handler), "the answer is under way still")
		end <- true
		done.Wait()
		require.Equal(t, "closed", stateOf(handler, up))
	})
}

func TestProbe_returnsItsPlaceWhenTheClientDisconnects(t *testing.T) {
	server := redistest.Start(t)
	newProcess(t, 0)
	handler, up := newHalfOpenGateway(t, at(server.Addr()))
	up.will(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		w.WriteHeader(499)
	}))
	front := httptest.NewServer(handler)
	defer front.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequest("GET", front.URL, nil)
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		answer, err := http.DefaultClient.Do(request.WithContext(ctx))
		if err == nil {
			answer.Body.Close()
		}
	}()
	key := breakerOf(t)
	underWay := func() bool { return server.Hash(key)["probe:1"] != "" }
	require.Eventually(t, underWay, 5*time.Second, time.Millisecond)

	cancel()
	done.Wait()
	require.Eventually(t, func() bool { return !underWay() }, 5*time.Second, time.Millisecond)
	require.Equal(t, "half-open", server.Hash(key)["state"])
	require.Equal(t, "", server.Hash(key)["successes"])
	up.will(nil)
	require.Equal(t, 200, get(handler))
	require.Equal(t, "closed", server.Hash(key)["state"])
}
