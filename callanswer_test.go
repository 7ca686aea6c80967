package resilience

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// newCall returns a gRPC call, as Traefik's server over HTTP/2 presents it.
func newCall(contentType string) *http.Request {
	r := httptest.NewRequest("POST", "/shop.Orders/Place", io.NopCloser(strings.NewReader("\x00\x00\x00\x00\x00")))
	r.Proto = "HTTP/2.0"
	r.ProtoMajor = 2
	r.ProtoMinor = 0
	r.ContentLength = -1
	r.Header.Set("Content-Type", contentType)
	return r
}

func sendRequest(handler http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// requireCallStatus checks every part of a refused call: headers alone, with these and no other. retryAfter "": none.
func requireCallStatus(t *testing.T, w *httptest.ResponseRecorder, code, message, retryAfter string) {
	want := http.Header{"Content-Type": {"application/grpc"}, "Grpc-Status": {code}, "Grpc-Message": {message}}
	if retryAfter != "" {
		want.Set("Retry-After", retryAfter)
	}
	require.Equal(t, 200, w.Code)
	require.Equal(t, "", w.Body.String())
	require.Equal(t, want, w.Result().Header)
}

func TestCall_isRefusedInItsOwnForm(t *testing.T) {
	for _, row := range []struct {
		name                      string
		config                    *Config
		first                     int // the service's status, which opens the circuit or takes the only token; 0: no such request
		code, message, retryAfter string
	}{
		{"an empty bucket", &Config{RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "1s"}}, 200,
			"8", "Too many requests, please try again later.", "1"},
		{"an empty bucket, and a circuit", &Config{RateLimit: &RateLimitConfig{Capacity: "1", RefillRate: "1", RefillPeriod: "90s"}, CircuitBreaker: failures("5")}, 200,
			"8", "Too many requests, please try again later.", "90"},
		{"an open circuit", &Config{CircuitBreaker: &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "30s"}}, 500,
			"14", "Service temporarily unavailable due to circuit open.", "30"},
		{"no Redis, for the limiter", &Config{Redis: &RedisConfig{Address: closedPort, OnError: "deny"}, RateLimit: tokens("1")}, 0,
			"14", "Service temporarily unavailable, please try again later.", "1"},
		{"no Redis, for the breaker", &Config{Redis: &RedisConfig{Address: closedPort, OnError: "deny"}, CircuitBreaker: failures("1")}, 0,
			"14", "Service temporarily unavailable, please try again later.", "1"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			newStoppedClock(t)
			handler, up := newGateway(t, row.config)
			if row.first > 0 {
				up.will(status(row.first))
				require.Equal(t, row.first, get(handler))
			}
			for i := 0; i < 4; i++ { // the first refusals are another function's than those that follow
				requireCallStatus(t, sendRequest(handler, newCall("application/grpc")), row.code, row.message, row.retryAfter)
			}
		})
	}
}

func TestCall_denied(t *testing.T) {
	newProcess(t, 0)
	m, _ := newInstance(t, &Config{RateLimit: tokens("1")})
	deny := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuseDenied(m, &slowRequest{w: w, r: r, now: m.now()})
	})

	requireCallStatus(t, sendRequest(deny, newCall("application/grpc")), "7", "Forbidden.", "")
	requireAnswer(t, send(deny, "GET", "/"), 403, `{"error":"Forbidden."}`, 0)
}

func TestCall_isRecognized(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(r *http.Request)
		is     bool
	}{
		{"a call", func(r *http.Request) {}, true},
		{"with a codec", func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc+proto") }, true},
		{"with a parameter", func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc; charset=utf-8") }, true},
		{"over HTTP/3", func(r *http.Request) { r.ProtoMajor = 3 }, true},
		{"over HTTP/1", func(r *http.Request) { r.ProtoMajor = 1 }, false},
		{"gRPC-Web", func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc-web+proto") }, false},
		{"gRPC-Web in text", func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc-web-text") }, false},
		{"Connect", func(r *http.Request) { r.Header.Set("Content-Type", "application/connect+proto") }, false},
		{"JSON", func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, false},
		{"no type", func(r *http.Request) { r.Header.Del("Content-Type") }, false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			newProcess(t, 0)
			handler, _ := newGateway(t, &Config{RateLimit: tokens("1")})
			require.Equal(t, 200, get(handler))
			r := newCall("application/grpc")
			row.change(r)
			w := sendRequest(handler, r)
			if row.is {
				require.Equal(t, 200, w.Code)
				require.Equal(t, "8", w.Header().Get("Grpc-Status"))
				return
			}
			require.Equal(t, 429, w.Code)
			require.Equal(t, limitedBody, w.Body.String())
		})
	}
}

// The refusal of a call has status 200. An outer instance must not take it for a success of the service.
func TestCall_refusedInsideCountsNothing(t *testing.T) {
	for _, writer := range []struct {
		name string
		send func(handler http.Handler, r *http.Request) int
	}{
		{"a writer with Status", func(handler http.Handler, r *http.Request) int {
			w := statuswriter.New()
			handler.ServeHTTP(w, r)
			return w.Code
		}},
		{"a recorder", func(handler http.Handler, r *http.Request) int { return sendRequest(handler, r).Code }},
	} {
		writer := writer
		t.Run(writer.name, func(t *testing.T) {
			newProcess(t, 0)
			handler, up := nest(t, nil, named("outer", nil, nil, failures("2")), named("inner", nil, byClient(tokens("1")), nil))
			up.will(status(500))
			ask := func(address string) int {
				r := newCall("application/grpc")
				r.RemoteAddr = address + ":1"
				r.Header.Set("X-Client", address)
				return writer.send(handler, r)
			}
			require.Equal(t, 500, ask("192.0.2.1"), "a failure")
			for i := 0; i < 3; i++ {
				require.Equal(t, 200, ask("192.0.2.1"), "refused inside, which resets no count")
			}
			require.Equal(t, 1, up.count())
			require.Equal(t, 500, ask("192.0.2.2"), "the second failure in a row opens the circuit")
			require.Equal(t, 200, ask("192.0.2.3"))
			require.Equal(t, 2, up.count(), "it is open")
		})
	}
}
