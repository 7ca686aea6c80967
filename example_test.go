package resilience

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
)

// Traefik does this with each router that uses the middleware. Without Redis the state is kept in this process.
func ExampleNew() {
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusBadGateway)
		}
		io.WriteString(w, "from upstream")
	})
	config := CreateConfig()
	config.RateLimit = &RateLimitConfig{Capacity: "3", RefillRate: "1", RefillPeriod: "1h"}
	config.CircuitBreaker = &CircuitBreakerConfig{FailureThreshold: "1", ResetTimeout: "30s"}
	handler, err := New(context.Background(), upstream, config, "example@file")
	if err != nil {
		fmt.Println(err)
		return
	}

	request := func(client, path string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = client + ":1234"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(client, w.Code, w.Body)
	}
	for i := 0; i < 4; i++ {
		request("192.0.2.1", "/")
	}
	request("192.0.2.2", "/broken")
	request("192.0.2.2", "/")

	// Output:
	// 192.0.2.1 200 from upstream
	// 192.0.2.1 200 from upstream
	// 192.0.2.1 200 from upstream
	// 192.0.2.1 429 {"error":"Too many requests, please try again later."}
	// 192.0.2.2 502 from upstream
	// 192.0.2.2 503 {"error":"Service temporarily unavailable due to circuit open."}
}
