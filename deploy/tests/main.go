// Command tests tries a running development stack from inside: health, a proxied request, the rate limit, the circuit
// breaker and what the API shows. It prints what passed, and ends with 1 where something did not.
//
// The circuit is open to everybody while it is tried.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	s := &stack{
		gateway: env("GATEWAY_URL", "http://127.0.0.1:5000"),
		api:     env("API_URL", "http://127.0.0.1:8080"),
		client:  &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: workers}},
	}
	if !run(s) {
		os.Exit(1)
	}
}

func env(name, byDefault string) string {
	if value := os.Getenv(name); value != "" {
		return strings.TrimSuffix(value, "/")
	}
	return byDefault
}

// try is one of the tests. What it returns is printed beside its name.
type try struct {
	name string
	run  func() (string, error)
}

var errNotRun = errors.New("not tried: the middleware's settings are not known")

func run(s *stack) bool {
	// The breaker comes before the limit, which leaves an empty bucket behind.
	tries := []try{
		{"the gateway is healthy", s.healthy},
		{"the API shows the middleware, from labels", s.shown},
		{"a request reaches the upstream", s.proxied},
		{"failures open the circuit, and it recovers", s.circuit},
		{"a burst is limited", s.limited},
	}
	passed, failed := 0, 0
	for _, t := range tries {
		begun := time.Now()
		said, err := t.run()
		if err != nil {
			failed++
			fmt.Printf("FAIL  %s: %v\n", t.name, err)
			continue
		}
		passed++
		fmt.Printf("ok    %s: %s (%s)\n", t.name, said, time.Since(begun).Round(time.Millisecond))
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	return failed == 0
}
