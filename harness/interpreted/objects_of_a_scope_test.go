package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_ofScope is TestObjects where each host, or each value of a part of the path, has a circuit. Such a route has no fast path.
func TestObjects_ofScope(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name, scope      string
		limits           bool
		upstream, status int
		most             float64
	}{
		{"a host", "host", false, 200, 200, 580},
		{"a part of the path", "path:/api/{tenant}/*", false, 200, 200, 590},
		{"a host, and a limit", "host", true, 200, 200, 645},
		{"a host whose circuit is open", "host", false, 500, 503, 1060},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, "5", "CircuitBreaker", "FailureThreshold")
				set(config, "1h", "CircuitBreaker", "ResetTimeout")
				set(config, row.scope, "CircuitBreaker", "Scope")
				if row.limits {
					set(config, "1000000", "RateLimit", "Capacity")
					set(config, "1000000", "RateLimit", "RefillRate")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(row.upstream) }))
			request := httptest.NewRequest("GET", "/api/acme/items", nil)
			requireObjects(t, row.most, func() { handler.ServeHTTP(w, request) })
			require.Equal(t, row.status, w.status)
		})
	}
}
