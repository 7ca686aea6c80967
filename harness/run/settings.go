package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/harness/gateway"
)

// settings of a run, from the environment.
type settings struct {
	web, api    string
	redis       string // host and port
	ownRedis    bool
	embedded    bool
	upstream    string // host and port of the dummy one; empty where upstreamURL is another's
	upstreamURL string
	variables   []variable
	collector   []variable
}

// variable is one of the middleware's settings.
type variable struct {
	name, value string
}

const apiAddress = "127.0.0.1:8080"

// defaults are those of the dynamic files.
var defaults = []variable{
	{"RATE_LIMIT_CAPACITY", "100"},
	{"RATE_LIMIT_REFILL_RATE", "10"},
	{"RATE_LIMIT_REFILL_PERIOD", "1s"},
	{"CIRCUIT_BREAKER_FAILURE_THRESHOLD", "5"},
	{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "30"},
	{"CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD", "2"},
}

// collector is how the image, too, has Go collect garbage.
var collector = []variable{{"GOGC", "400"}, {"GOMEMLIMIT", "512MiB"}}

func read(getenv func(string) string) (*settings, error) {
	value := func(name, byDefault string) string {
		if text := getenv(name); text != "" {
			return text
		}
		return byDefault
	}
	port := value("PORT", "5000")
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, fmt.Errorf("PORT: %q is not a port; write 5000", port)
	}
	s := &settings{web: "127.0.0.1:" + port, api: apiAddress}
	for _, v := range defaults {
		s.variables = append(s.variables, variable{v.name, value(v.name, v.value)})
	}
	for _, v := range collector {
		s.collector = append(s.collector, variable{v.name, value(v.name, v.value)})
	}
	if host := getenv("REDIS_HOST"); host != "" {
		s.redis = net.JoinHostPort(host, value("REDIS_PORT", "6379"))
	} else {
		address, err := gateway.FreeAddress()
		if err != nil {
			return nil, err
		}
		s.redis = address
		s.ownRedis = true
	}
	s.upstreamURL = getenv("UPSTREAM_URL")
	if s.upstreamURL == "" {
		address, err := gateway.FreeAddress()
		if err != nil {
			return nil, err
		}
		s.upstream = address
		s.upstreamURL = "http://" + address
	}
	return s, nil
}

// check returns an error if a port is taken.
func (s *settings) check() error {
	if err := gateway.Check(s.web, "choose another port: PORT=5001 make run"); err != nil {
		return err
	}
	return gateway.Check(s.api, "it is the one of the dashboard's API: end that program first")
}

// env is what the dynamic files read.
func (s *settings) env() []string {
	host, port, _ := net.SplitHostPort(s.redis)
	env := []string{"REDIS_HOST=" + host, "REDIS_PORT=" + port, "UPSTREAM_URL=" + s.upstreamURL}
	if s.ownRedis {
		env = append(env, "REDIS_PASSWORD=", "REDIS_DB=0")
	}
	for _, v := range append(s.collector, s.variables...) {
		env = append(env, v.name+"="+v.value)
	}
	return env
}

func (s *settings) greeting(logFile string) string {
	redis := s.redis
	if s.ownRedis {
		redis += " (started here)"
	}
	if s.embedded {
		redis = s.redis + " (embedded: there is no redis-server on this machine)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `
The gateway runs.

  gateway    http://%s/proxy/...
  API        http://%s/api/http/middlewares
  upstream   %s
  redis      %s
  log        %s

`, s.web, s.api, s.upstreamURL, redis, logFile)
	for _, v := range s.variables {
		fmt.Fprintf(&b, "  %-44s %s\n", v.name, v.value)
	}
	fmt.Fprintf(&b, `
Try, in another terminal:

  a request          curl -i http://%[1]s/proxy/ok
  a burst into 429   curl -s -o /dev/null -w '%%{http_code}\n' 'http://%[1]s/proxy/ok?[1-300]' | sort | uniq -c
  failures into 503  for i in 1 2 3 4 5 6; do curl -s -w ' %%{http_code}\n' http://%[1]s/proxy/fail; done

Ctrl-C ends it.
`, s.web)
	return b.String()
}
