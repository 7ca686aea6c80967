package interpreted

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"github.com/traefik/traefik/v3/pkg/middlewares/recovery"
)

// TestObjects_ofAStatus is TestObjects for a Traefik without metrics, access log and tracing: the status is read from net/http's own writer, behind
// Traefik's recovery middleware. A route knows the types of writers that the process had met when the route learned its first. Any
// other writer gets a recorder.
func TestObjects_ofAStatus(t *testing.T) {
	server := redistest.Start(t)
	create := plugin(t)
	const http1, http2 = "HTTP/1.1", "HTTP/2.0"
	for _, row := range []struct {
		name         string
		limits       bool
		first, proto string // of the first request, and of those that are counted
		recorder     bool
		most         float64
	}{
		{name: "both, HTTP/2 that no route had met when this one learned HTTP/1", limits: true, first: http1, proto: http2, most: 190},
		{name: "a healthy circuit, HTTP/1", first: http1, proto: http1, most: 106},
		{name: "a healthy circuit, HTTP/2", first: http2, proto: http2, most: 106},
		{name: "both, HTTP/1", limits: true, first: http1, proto: http1, most: 115},
		{name: "both, HTTP/2", limits: true, first: http2, proto: http2, most: 115},
		{name: "both, HTTP/2 after HTTP/1", limits: true, first: http1, proto: http2, most: 115},
		{name: "both, HTTP/1 after HTTP/2", limits: true, first: http2, proto: http1, most: 115},
		{name: "both, through a recorder", limits: true, recorder: true, first: http1, proto: http1, most: 475},
	} {
		t.Run(row.name, func(t *testing.T) {
			handler := create(row.name, func(config reflect.Value) {
				set(config, server.Addr(), "Redis", "Address")
				set(config, "5", "CircuitBreaker", "FailureThreshold")
				if row.limits {
					set(config, "1000000", "RateLimit", "Capacity")
					set(config, "1000000", "RateLimit", "RefillRate")
				}
			}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) }))
			request := httptest.NewRequest("GET", "/", nil)
			answer := func(proto string, do func(w http.ResponseWriter)) {
				answerWith(t, proto, func(w http.ResponseWriter) {
					if row.recorder {
						w = struct{ http.ResponseWriter }{w}
					}
					do(w)
				})
			}
			answer(row.first, func(w http.ResponseWriter) {
				for range 200 { // more than are checked for other instances on their way
					handler.ServeHTTP(w, request)
				}
			})
			answer(row.proto, func(w http.ResponseWriter) {
				requireObjects(t, row.most, func() { handler.ServeHTTP(w, request) })
			})
		})
	}
}

// answerWith sends a request to a server as Traefik's is, and has its first middleware do something with the writer.
func answerWith(t *testing.T, proto string, do func(w http.ResponseWriter)) {
	t.Helper()
	handler, err := recovery.New(context.Background(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, proto, r.Proto)
		do(w)
	}))
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = proto == "HTTP/2.0"
	s.StartTLS()
	defer s.Close()
	response, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.ReadAll(response.Body) // which ends when the handler has returned
	require.NoError(t, err)
	require.Equal(t, 200, response.StatusCode)
}
