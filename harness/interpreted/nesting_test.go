package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_nested counts what a request allocates that passes the middleware twice. In the last row an instance has met another one
// on another route, so it keeps checking, but its requests pass it once.
func TestObjects_nested(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name         string
		inner, outer string // scopes; "": no such middleware
		breaks       bool
		most         float64
	}{
		{name: "a limiter twice", inner: "a", outer: "a", most: 300},
		{name: "both twice", inner: "b", outer: "b", breaks: true, most: 395},
		{name: "both, and both of another scope", inner: "c", outer: "d", breaks: true, most: 640},
		{name: "both once, where others were met", outer: "b", breaks: true, most: 265},
	} {
		t.Run(row.name, func(t *testing.T) {
			change := func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, "1000000", "RateLimit", "Capacity")
				set(config, "1000000", "RateLimit", "RefillRate")
				if row.breaks {
					set(config, "5", "CircuitBreaker", "FailureThreshold")
				}
			}
			var service http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) })
			inside := service
			if row.inner != "" {
				inside = create(row.inner, change, inside)
			}
			here := inside
			handler := create(row.outer, change, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { here.ServeHTTP(w, r) }))
			if row.inner == "" {
				here = create(row.outer, change, service)
			}
			request := httptest.NewRequest("GET", "/", nil)
			w := &writer{header: http.Header{}}
			ask := func() { handler.ServeHTTP(w, request) }
			for range 20 {
				for range 50 {
					ask()
				}
				time.Sleep(10 * time.Millisecond)
			}
			here = inside
			got := objectsOf(ask)
			t.Logf("%.0f objects", got)
			require.Equal(t, 200, w.status)
			require.LessOrEqual(t, got, row.most)
			require.Greater(t, got, row.most/2, "too few to be true, or a reason for another bound")
		})
	}
}
