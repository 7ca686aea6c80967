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

// newHalfOpenGateway returns a middleware whose circuit has been open for its resetTimeout: the next request is a probe. One probe at a
// time may pass. One success closes the circuit, and one failure opens it for longer than the test takes.
func newHalfOpenGateway(t *testing.T, redis *RedisConfig) (http.Handler, *upstream) {
	opener, failing := newGateway(t, &Config{Redis: redis, CircuitBreaker: failures("1")})
	failing.will(status(500))
	require.Equal(t, 500, get(opener))
	elapse(t, redis, time.Hour)
	return newGateway(t, &Config{Redis: redis, CircuitBreaker: &CircuitBreakerConfig{
		FailureThreshold: "2", ResetTimeout: "1h", HalfOpenSuccessThreshold: "1"}})
}

// stateOf returns the state of a circuit that one failure opens when it is half-open, and two when it is closed.
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
	connected := context.Background()
	disconnected, cancel := context.WithCancel(connected)
	cancel()
	rows := []struct {
		name   string
		ctx    context.Context
		answer http.Handler
		after  string
	}{
		{"success", connected, nil, "closed"},
		{"a status that is not the upstream's fault", connected, status(404), "closed"},
		{"nothing written", connected, nothingWritten, "closed"},
		{"another protocol", connected, status(101), "closed"},
		{"early hints, then success", connected, hintsThen(200), "closed"},
		{"failure", connected, status(503), "open"},
		{"early hints, then failure", connected, hintsThen(500), "open"},
		{"a panic", connected, panicking, "open"},
		{"a client that disconnects returns its place", disconnected, status(502), "half-open"},
		{"a client that disconnects before a panic, too", disconnected, panicking, "half-open"},
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
			panic(http.ErrAbortHandler) // what comes after the headers does not count
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
		require.Equal(t, before, up.count(), "the only place is taken")

		headers <- true
		<-begun
		advance(60 * time.Millisecond) // the gateway asks Redis again only after 50 ms
		require.Equal(t, 200, get(handler), "the probe's answer has not ended")
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
	gateway := httptest.NewServer(handler)
	defer gateway.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequest("GET", gateway.URL, nil)
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
	inFlight := func() bool { return server.Hash(key)["probe:1"] != "" }
	waitFor(t, inFlight)

	cancel()
	done.Wait()
	waitFor(t, func() bool { return !inFlight() })
	require.Equal(t, "half-open", server.Hash(key)["state"])
	require.Equal(t, "", server.Hash(key)["successes"])
	up.will(nil)
	require.Equal(t, 200, get(handler))
	require.Equal(t, "closed", server.Hash(key)["state"])
}
