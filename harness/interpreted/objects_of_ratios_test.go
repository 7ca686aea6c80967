package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_ofRatios is TestObjects where all requests are counted for a ratio: that costs at most four objects more than failures in a row
// do. Where slow answers count, each has a recorder.
func TestObjects_ofRatios(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name   string
		limits bool
		key    string
		more   float64 // than without a ratio, at most
	}{
		{"a healthy circuit", false, "FailureRatio", 4},
		{"both", true, "FailureRatio", 4},
		{"slow answers", false, "SlowRatio", 680},
	} {
		t.Run(row.name, func(t *testing.T) {
			count := func(name, key string) float64 {
				w := &writer{header: http.Header{}}
				handler := create(name, func(config reflect.Value) {
					set(config, server.Addr(), "Redis", "Address")
					set(config, "5", "CircuitBreaker", "FailureThreshold")
					if key != "" {
						set(config, "50", "CircuitBreaker", key)
					}
					if row.limits {
						set(config, "1000000", "RateLimit", "Capacity")
						set(config, "1000000", "RateLimit", "RefillRate")
					}
				}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
				request := httptest.NewRequest("GET", "/", nil)
				ask := func() { handler.ServeHTTP(w, request) }
				got := objectsOf(ask)
				require.Equal(t, 200, w.status)
				return got
			}
			without, with := count(row.name+" in a row", ""), count(row.name, row.key)
			t.Logf("%.0f objects, %.0f without", with, without)
			require.LessOrEqual(t, with, without+row.more)
			require.Greater(t, with, without, "too few to be true")
		})
	}
}
