package interpreted

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
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
	for range 10 { // until the circuit has opened, and calls in the background are answered
		for range 50 {
			ask()
		}
		time.Sleep(20 * time.Millisecond)
	}
	got := math.Inf(1)
	for range 10 { // the least, as the breaker's view is too old after a halt of the machine
		got = min(got, testing.AllocsPerRun(300, ask))
	}
	t.Logf("%.0f objects", got)
	require.LessOrEqual(t, got, most)
	require.Greater(t, got, most/2, "too few to be true, or a reason for another bound")
}

// plugin loads the bundle as Traefik does, and returns what makes a middleware of it.
func plugin(t *testing.T) func(name string, change func(config reflect.Value), next http.Handler) http.Handler {
	dist := t.TempDir()
	command := exec.Command("go", "run", "./bundle", dist)
	command.Dir = "../.."
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	i := interp.New(interp.Options{GoPath: filepath.Join(dist, "plugins-local"), Env: os.Environ()})
	require.NoError(t, i.Use(stdlib.Symbols))
	_, err = i.Eval(`import "github.com/resilient-gateway/resilience"`)
	require.NoError(t, err)
	createConfig, err := i.Eval("resilience.CreateConfig")
	require.NoError(t, err)
	create, err := i.Eval("resilience.New")
	require.NoError(t, err)
	return func(name string, change func(config reflect.Value), next http.Handler) http.Handler {
		config := createConfig.Call(nil)[0]
		change(config)
		made := create.Call([]reflect.Value{
			reflect.ValueOf(context.Background()), reflect.ValueOf(next), config, reflect.ValueOf(name),
		})
		require.Nil(t, made[1].Interface())
		return made[0].Interface().(http.Handler)
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
