package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_ofCounting is TestObjects where a middleware of the process has an admin block, so that all requests are counted. On the fast path
// that costs at most two objects. A request for which Redis is asked costs some 50 more: the slow path counts the decision, and the store the
// call and its duration.
func TestObjects_ofCounting(t *testing.T) {
	server := redistest.Start(t)
	counting, plain := plugin(t), plugin(t)
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	counting("console", func(config reflect.Value) { set(config, "/resilience", "Admin", "Path") }, nothing)
	for _, row := range []struct {
		name            string
		capacity        string // of the limit; "": none
		breaks          bool
		upstream        int
		clients, status int
		most            float64 // objects, and how many more than without
		more            float64
	}{
		{name: "a lease", capacity: "1000000", upstream: 200, clients: 1, status: 200, most: 32, more: 2},
		{name: "a healthy circuit", breaks: true, upstream: 200, clients: 1, status: 200, most: 81, more: 2},
		{name: "both", capacity: "1000000", breaks: true, upstream: 200, clients: 1, status: 200, most: 90, more: 2},
		{name: "an empty bucket", capacity: "10", breaks: true, upstream: 200, clients: 1, status: 429, most: 81, more: 2},
		{name: "an open circuit", capacity: "1000000", breaks: true, upstream: 500, clients: 1, status: 503, most: 34, more: 2},
		{name: "Redis is asked", capacity: "1000000", breaks: true, upstream: 200, clients: 4000, status: 200, most: 735, more: 60},
	} {
		t.Run(row.name, func(t *testing.T) {
			objects := func(create func(string, func(reflect.Value), http.Handler) http.Handler, name string) float64 {
				w := &writer{header: http.Header{}}
				handler := create(name, func(config reflect.Value) {
					set(config, server.Addr(), "Redis", "Address")
					if row.capacity != "" {
						set(config, row.capacity, "RateLimit", "Capacity")
						set(config, row.capacity, "RateLimit", "RefillRate")
						set(config, strconv.FormatBool(row.clients == 1), "RateLimit", "StandingLease")
					}
					if row.breaks {
						set(config, "5", "CircuitBreaker", "FailureThreshold")
						set(config, "1h", "CircuitBreaker", "ResetTimeout")
					}
				}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(row.upstream) }))
				request := httptest.NewRequest("GET", "/", nil)
				n := 0
				addresses := addresses(row.clients)
				got := objectsOf(func() {
					request.RemoteAddr = addresses[n%len(addresses)]
					n++
					handler.ServeHTTP(w, request)
				})
				require.Equal(t, row.status, w.status)
				return got
			}
			with, without := objects(counting, row.name), objects(plain, row.name+", uncounted")
			t.Logf("%.0f objects, and %.0f without admin", with, without)
			require.LessOrEqual(t, with, row.most)
			require.LessOrEqual(t, with, without+row.more)
			require.Greater(t, with, row.most/2, "too few to be true, or a reason for another bound")
		})
	}
}
