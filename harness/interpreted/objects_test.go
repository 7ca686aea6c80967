package interpreted

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects counts what each kind of request allocates in the interpreter, which is nearly all that it costs there. The bounds are a
// little above what was counted: a change that raises one needs a reason. docs/performance.md has the counts.
func TestObjects(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name             string
		capacity, period string // of the limit; "": none
		breaks           bool
		upstream         int
		clients, status  int
		body             bool
		most             float64
	}{
		{name: "a lease", capacity: "1000000", period: "1s", upstream: 200, clients: 1, status: 200, most: 33},
		{name: "a healthy circuit", breaks: true, upstream: 200, clients: 1, status: 200, most: 83},
		{name: "both", capacity: "1000000", period: "1s", breaks: true, upstream: 200, clients: 1, status: 200, most: 92},
		{name: "a healthy circuit, and a body", breaks: true, upstream: 200, clients: 1, status: 200, body: true, most: 93},
		{name: "both, and a body", capacity: "1000000", period: "1s", breaks: true, upstream: 200, clients: 1, status: 200, body: true, most: 102},
		{name: "an empty bucket", capacity: "10", period: "1s", breaks: true, upstream: 200, clients: 1, status: 429, most: 83},
		{name: "a bucket that stays empty for long", capacity: "10", period: "1h", breaks: true, upstream: 200, clients: 1, status: 429, most: 97},
		{name: "an open circuit", capacity: "1000000", period: "1s", breaks: true, upstream: 500, clients: 1, status: 503, most: 33},
		{name: "Redis is asked", capacity: "1000000", period: "1s", breaks: true, upstream: 200, clients: 4000, status: 200, most: 695},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				if row.capacity != "" {
					set(config, row.capacity, "RateLimit", "Capacity")
					set(config, row.capacity, "RateLimit", "RefillRate")
					set(config, row.period, "RateLimit", "RefillPeriod")
					set(config, strconv.FormatBool(row.clients == 1), "RateLimit", "StandingLease")
				}
				if row.breaks {
					set(config, "5", "CircuitBreaker", "FailureThreshold")
					set(config, "1h", "CircuitBreaker", "ResetTimeout")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(row.upstream) }))
			request := httptest.NewRequest("GET", "/", nil)
			body := io.NopCloser(strings.NewReader("a body"))
			if row.body {
				request.ContentLength = 6
			}
			n := 0
			addresses := addresses(row.clients)
			ask := func() {
				request.RemoteAddr = addresses[n%len(addresses)]
				n++
				request.Body = body
				handler.ServeHTTP(w, request)
			}
			requireObjects(t, row.most, ask)
			require.Equal(t, row.status, w.status)
		})
	}
}

// requireObjects requires that a request allocates at most that many objects, and not much less.
func requireObjects(t *testing.T, most float64, ask func()) {
	t.Helper()
	got := objectsOf(ask)
	t.Logf("%.0f objects", got)
	require.LessOrEqual(t, got, most)
	require.Greater(t, got, most/2, "too few to be true, or a reason for another bound")
}

// plugin is factory for middlewares that no reload replaces.
func plugin(t *testing.T) func(name string, change func(config reflect.Value), next http.Handler) http.Handler {
	create := factory(t)
	return func(name string, change func(config reflect.Value), next http.Handler) http.Handler {
		return create(context.Background(), next, name, change)
	}
}

// set sets a field of a block of the configuration.
func set(config reflect.Value, value, block, field string) {
	pointer := config.Elem().FieldByName(block)
	if pointer.IsNil() {
		pointer.Set(reflect.New(pointer.Type().Elem()))
	}
	pointer.Elem().FieldByName(field).SetString(value)
}

// addresses returns as many addresses of clients.
func addresses(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("10.0.%d.%d:5000", i/256, i%256)
	}
	return all
}

// writer is a ResponseWriter that makes no objects, and tells its status as Traefik's does.
type writer struct {
	header http.Header
	status int
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }
func (w *writer) WriteHeader(status int)      { w.status = status }
func (w *writer) Status() int                 { return w.status }

// objectsOf returns how many objects a request costs: the least of many short runs. What works in the background, such as the refresh of the
// circuit's view and the samples of admin, works by time, so a slow machine does more of it per request; in some of the short runs it does
// nothing. Together they are fewer requests than there are addresses.
func objectsOf(ask func()) float64 {
	for range 10 { // until the circuit has opened, and calls in the background are answered
		for range 50 {
			ask()
		}
		time.Sleep(20 * time.Millisecond)
	}
	least := math.Inf(1)
	for range 160 {
		least = min(least, testing.AllocsPerRun(20, ask))
	}
	return least
}
