package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestObjects_ofLimits is TestObjects for routes with several limits: two of the client, and one for everybody. On the fast path that costs
// at most eight objects more than one limit. A client whose bucket is known to be empty is refused at little cost.
func TestObjects_ofLimits(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name            string
		limits, breaks  bool
		capacity        string
		clients, status int
		most            float64
	}{
		{"one limit", false, false, "1000000", 1, 200, 33},
		{"three limits", true, false, "1000000", 1, 200, 41},
		{"one limit and a breaker", false, true, "1000000", 1, 200, 92},
		{"three limits and a breaker", true, true, "1000000", 1, 200, 100},
		{"three limits, an empty bucket", true, true, "10", 1, 429, 160},
		{"three limits, Redis is asked", true, true, "1000000", 4000, 200, 3400},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, row.capacity, "RateLimit", "Capacity")
				set(config, row.capacity, "RateLimit", "RefillRate")
				set(config, "1h", "RateLimit", "RefillPeriod")
				if row.limits {
					addLimit(config, "hourly", "2000000", false)
					addLimit(config, "everyone", "100000000", true)
				}
				if row.breaks {
					set(config, "5", "CircuitBreaker", "FailureThreshold")
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

// addLimit adds a further limit to the rateLimit block.
func addLimit(config reflect.Value, name, capacity string, everyone bool) {
	limits := config.Elem().FieldByName("RateLimit").Elem().FieldByName("Limits")
	if limits.IsNil() {
		limits.Set(reflect.MakeMap(limits.Type()))
	}
	limit := reflect.New(limits.Type().Elem().Elem())
	limit.Elem().FieldByName("Capacity").SetString(capacity)
	limit.Elem().FieldByName("RefillRate").SetString(capacity)
	if everyone {
		source := limit.Elem().FieldByName("SourceCriterion")
		source.Set(reflect.New(source.Type().Elem()))
		source.Elem().FieldByName("All").SetString("true")
	}
	limits.SetMapIndex(reflect.ValueOf(name), limit)
}
