package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_ofStanding counts what requests of clients cost that are seldom seen, with standing leases and without.
func TestObjects_ofStanding(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name, standing string // what standingLease says
		header         bool   // the client is that of a header
		breaks         bool
		most           float64
	}{
		{"by address", "true", false, false, 225},
		{"by address, with both", "true", false, true, 285},
		{"by a header", "true", true, false, 90},
		{"by a header, with both", "true", true, true, 150},
		{"by a header, without", "false", true, false, 420},
		{"by a header, with both, without", "false", true, true, 475},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, "1000000", "RateLimit", "Capacity")
				set(config, "1000000", "RateLimit", "RefillRate")
				set(config, row.standing, "RateLimit", "StandingLease")
				if row.header {
					source := config.Elem().FieldByName("RateLimit").Elem().FieldByName("SourceCriterion")
					source.Set(reflect.New(source.Type().Elem()))
					source.Elem().FieldByName("RequestHeaderName").SetString("X-Client")
				}
				if row.breaks {
					set(config, "5", "CircuitBreaker", "FailureThreshold")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
			request := httptest.NewRequest("GET", "/", nil)
			n := 0
			addresses := addresses(4000)
			requireObjects(t, row.most, func() {
				request.RemoteAddr = addresses[n%len(addresses)]
				if row.header {
					request.Header["X-Client"] = addresses[n%len(addresses) : n%len(addresses)+1]
				}
				n++
				handler.ServeHTTP(w, request)
			})
			require.Equal(t, 200, w.status)
		})
	}
	require.Len(t, server.Do("KEYS", "*:gateways"), 4)
}
