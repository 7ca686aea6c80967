package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_ofAHeader is TestObjects where the key is a header. One that is configured in another spelling than net/http's costs
// more, because a middleware may have set it in that one; and so does any other key source, such as the host.
func TestObjects_ofAHeader(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name     string
		header   string // "": the key is the host
		breaks   bool
		capacity string
		status   int
		most     float64
	}{
		{"a lease", "X-Api-Key", false, "1000000", 200, 39},
		{"both", "X-Api-Key", true, "1000000", 200, 98},
		{"an empty bucket", "X-Api-Key", true, "10", 429, 102},
		{"a lease, in another spelling", "X-API-Key", false, "1000000", 200, 87},
		{"both, in another spelling", "X-API-Key", true, "1000000", 200, 150},
		{"an empty bucket, in another spelling", "X-API-Key", true, "10", 429, 150},
		{"a lease, by host", "", false, "1000000", 200, 190},
		{"both, by host", "", true, "1000000", 200, 249},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, row.capacity, "RateLimit", "Capacity")
				set(config, row.capacity, "RateLimit", "RefillRate")
				set(config, "1h", "RateLimit", "RefillPeriod")
				source := config.Elem().FieldByName("RateLimit").Elem().FieldByName("SourceCriterion")
				source.Set(reflect.New(source.Type().Elem()))
				if row.header == "" {
					source.Elem().FieldByName("RequestHost").SetString("true")
				} else {
					source.Elem().FieldByName("RequestHeaderName").SetString(row.header)
				}
				if row.breaks {
					set(config, "5", "CircuitBreaker", "FailureThreshold")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
			request := httptest.NewRequest("GET", "/", nil)
			if row.header != "" {
				request.Header.Set(row.header, "key")
			}
			ask := func() { handler.ServeHTTP(w, request) }
			requireObjects(t, row.most, ask)
			require.Equal(t, row.status, w.status)
		})
	}
}
