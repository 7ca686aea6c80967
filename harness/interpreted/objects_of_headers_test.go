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

// TestObjects_ofHeaders is TestObjects for routes that tell clients what is left of their buckets, or whose answers are configured.
func TestObjects_ofHeaders(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name, headers, on, body string
		capacity                string
		clients, status         int
		most                    float64
	}{
		{"admitted, always", "both", "always", "", "1000000", 1, 200, 112},
		{"refused, always", "both", "always", "", "10", 1, 429, 256},
		{"Redis is asked, always", "both", "always", "", "1000000", 4000, 200, 970},
		{"admitted, refused only", "both", "refused", "", "1000000", 1, 200, 92},
		{"refused, refused only", "both", "refused", "", "10", 1, 429, 214},
		{"Redis is asked, refused only", "both", "refused", "", "1000000", 4000, 200, 680},
		{"admitted, a configured answer", "none", "always", "wait {retryAfter} s", "1000000", 1, 200, 92},
		{"refused, a configured answer", "none", "always", "wait {retryAfter} s", "10", 1, 429, 316},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, row.capacity, "RateLimit", "Capacity")
				set(config, row.capacity, "RateLimit", "RefillRate")
				set(config, strconv.FormatBool(row.clients == 1), "RateLimit", "StandingLease")
				set(config, row.headers, "RateLimit", "ResponseHeaders")
				set(config, row.on, "RateLimit", "ResponseHeadersOn")
				set(config, "5", "CircuitBreaker", "FailureThreshold")
				if row.body != "" {
					set(config, "json", "Answers", "Format")
					set(config.Elem().FieldByName("Answers"), row.body, "RateLimited", "Body")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
			request := httptest.NewRequest("GET", "/", nil)
			n := 0
			addresses := addresses(row.clients)
			ask := func() {
				request.RemoteAddr = addresses[n%len(addresses)]
				n++
				handler.ServeHTTP(w, request)
			}
			requireObjects(t, row.most, ask)
			require.Equal(t, row.status, w.status)
		})
	}
}
