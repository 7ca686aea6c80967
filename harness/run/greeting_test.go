package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func portText(t *testing.T) string { return strconv.Itoa(free(t)) }

// nobodyAt returns an address that refuses connections.
func nobodyAt(t *testing.T) string { return gateway.Loopback(free(t)) }

// greet returns the greeting of a run with this environment.
func greet(t *testing.T, variables ...string) string {
	t.Helper()
	s, err := read(with(variables...))
	require.NoError(t, err)
	require.NoError(t, s.chooseAddresses())
	return s.greeting([]string{"dist/run.log"}, s.probe())
}

func TestGreeting_namesWhatDoesNotAnswer(t *testing.T) {
	server := redistest.Start(t)
	server.Do("CONFIG", "SET", "requirepass", "secret")
	at := []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + server.Port()}
	service := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(service.Close)
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { mute.Close() })
	refused := nobodyAt(t)

	for _, row := range []struct {
		name      string
		variables []string
		line      string
	}{
		{"Redis answers", append(at, "REDIS_PASSWORD=secret"), "  redis      " + server.Addr() + "\n"},
		{"Redis, and a wrong password", append(at, "REDIS_PASSWORD=wrong"), server.Addr() + " (REDIS_HOST: it does not answer: WRONGPASS "},
		{"Redis, and no password", at, server.Addr() + " (REDIS_HOST: it does not answer: NOAUTH "},
		{"Redis, and a database that it does not have", append(at, "REDIS_PASSWORD=secret", "REDIS_DB=999"),
			server.Addr() + " (REDIS_HOST: it does not answer: ERR DB index is out of range)\n"},
		{"no Redis", []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + portOf(refused)},
			refused + " (REDIS_HOST: it does not answer: dial tcp " + refused + ": connect: connection refused)\n"},
		{"a Redis that says nothing", []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + portOf(mute.Addr().String())}, "i/o timeout)\n"},
		{"a service that answers, if only 404", []string{"UPSTREAM_URL=" + service.URL + "/base"}, "  upstream   " + service.URL + "/base\n"},
		{"no service", []string{"UPSTREAM_URL=http://" + refused},
			"http://" + refused + " (UPSTREAM_URL: it does not answer: dial tcp " + refused + ": connect: connection refused)\n"},
		{"no service over HTTP/2", []string{"UPSTREAM_URL=h2c://" + refused}, "h2c://" + refused + " (UPSTREAM_URL: it does not answer: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			greeting := greet(t, row.variables...)
			require.Contains(t, greeting, row.line)
			require.NotContains(t, greeting, "secret")
		})
	}
}

func TestGreeting_namesTheStatusPageOfEachGateway(t *testing.T) {
	s, err := read(with("GATEWAYS=2"))
	require.NoError(t, err)
	require.NoError(t, s.chooseAddresses())
	greeting := s.greeting(nil, s.probe())
	for _, at := range s.gateways {
		require.Contains(t, greeting, "  status     http://"+at.apiAddress()+"/resilience/\n")
	}
}

func portOf(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// TestGreeting_hasTheCommandsOfTheREADME: what make run says to type is what README shows.
func TestGreeting_hasTheCommandsOfTheREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	s, err := read(with("GATEWAYS=2"))
	require.NoError(t, err)
	s.gateways, s.upstream, s.upstreamURL = []ports{{5000, 8080}, {5001, 8081}}, "127.0.0.1:3000", "http://127.0.0.1:3000"
	commands := 0
	for line := range strings.Lines(s.toTry()) {
		if strings.Contains(line, "curl -s") {
			commands++
			require.Contains(t, string(readme), "\n$ "+strings.TrimLeft(line[len("  failures into 503  "):], " "))
		}
	}
	require.Equal(t, 5, commands)
}

func TestGreeting_waitsForTheBucket(t *testing.T) {
	for _, row := range []struct {
		variables []string
		command   string
	}{
		{nil, "sleep 2; "},
		{[]string{"CIRCUIT_BREAKER_FAILURE_THRESHOLD=20"}, "sleep 4; "},
		{[]string{"RATE_LIMIT_REFILL_RATE=1", "RATE_LIMIT_REFILL_PERIOD=2s"}, "sleep 13; "},
		{[]string{"RATE_LIMIT_REFILL_RATE=1000"}, "sleep 2; "},
	} {
		s, err := read(with(row.variables...))
		require.NoError(t, err)
		require.Equal(t, row.command, s.pause(), row.variables)
	}
}

func TestGreeting_ofAnotherService(t *testing.T) {
	service := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(service.Close)
	greeting := greet(t, "UPSTREAM_URL="+service.URL)
	require.Contains(t, greeting, "/proxy/\n")
	require.NotContains(t, greeting, "fail", "a path of the dummy service")
}
