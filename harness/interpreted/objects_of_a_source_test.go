package interpreted

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// token is a JWT with the claims sub and realm.tenant, as a client sends it.
const token = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsInJlYWxtIjp7InRlbmFudCI6ImFjbWUifX0.c2ln"

// TestObjects_ofASource is TestObjects for the key sources that are derived from a request, each with a lease.
func TestObjects_ofASource(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	for _, row := range []struct {
		name    string
		source  map[string]string
		address bool // it is a part
		breaks  bool
		status  int
		most    float64
	}{
		{name: "all", source: map[string]string{"All": "true"}, status: 200, most: 48},
		{name: "a method", source: map[string]string{"RequestMethod": "true"}, status: 200, most: 69},
		{name: "a path", source: map[string]string{"RequestPath": "/api/{tenant}/*"}, status: 200, most: 132},
		{name: "a cookie", source: map[string]string{"RequestCookieName": "session"}, status: 200, most: 171},
		{name: "a query", source: map[string]string{"RequestQueryName": "tenant"}, status: 200, most: 124},
		{name: "a claim", source: map[string]string{"RequestJWTClaim": "sub"}, status: 200, most: 239},
		{name: "a claim within another", source: map[string]string{"RequestJWTClaim": "realm.tenant"}, status: 200, most: 268},
		{name: "two headers", source: map[string]string{"RequestHeaderName": "X-Tenant,X-User"}, status: 200, most: 166},
		{name: "an address and a method", source: map[string]string{"RequestMethod": "true"}, address: true, status: 200, most: 216},
		{name: "a header and a path", source: map[string]string{"RequestHeaderName": "X-Tenant", "RequestPath": "/api/{tenant}/*"}, status: 200, most: 203},
		{name: "a header, required", source: map[string]string{"RequestHeaderName": "X-Tenant", "MissingSource": "deny"}, status: 200, most: 40},
		{name: "a header, required, and a breaker", source: map[string]string{"RequestHeaderName": "X-Tenant", "MissingSource": "deny"}, breaks: true, status: 200, most: 98},
		{name: "a cookie and a breaker", source: map[string]string{"RequestCookieName": "session"}, breaks: true, status: 200, most: 229},
		{name: "no header, denied", source: map[string]string{"RequestHeaderName": "X-None", "MissingSource": "deny"}, status: 403, most: 453},
		{name: "no header, not limited", source: map[string]string{"RequestHeaderName": "X-None", "MissingSource": "pass"}, status: 200, most: 177},
		{name: "no header, by address", source: map[string]string{"RequestHeaderName": "X-None", "MissingSource": "address"}, status: 200, most: 221},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := &writer{header: http.Header{}}
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, "1000000", "RateLimit", "Capacity")
				set(config, "1000000", "RateLimit", "RefillRate")
				source := config.Elem().FieldByName("RateLimit").Elem().FieldByName("SourceCriterion")
				source.Set(reflect.New(source.Type().Elem()))
				for key, value := range row.source {
					source.Elem().FieldByName(key).SetString(value)
				}
				if row.address {
					strategy := source.Elem().FieldByName("IPStrategy")
					strategy.Set(reflect.New(strategy.Type().Elem()))
				}
				if row.breaks {
					set(config, "5", "CircuitBreaker", "FailureThreshold")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
			request := httptest.NewRequest("GET", "/api/acme/orders?page=2&tenant=acme", nil)
			request.Header.Set("X-Tenant", "acme")
			request.Header.Set("X-User", "alice")
			request.Header.Set("Cookie", "theme=dark; session=0123456789abcdef0123456789abcdef; lang=en")
			request.Header.Set("Authorization", token)
			ask := func() { handler.ServeHTTP(w, request) }
			requireObjects(t, row.most, ask)
			require.Equal(t, row.status, w.status)
		})
	}
}
