package main

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
)

// with returns an environment of these variables, each as NAME=value.
func with(variables ...string) func(string) string {
	return func(name string) string {
		for _, variable := range variables {
			if value, found := strings.CutPrefix(variable, name+"="); found {
				return value
			}
		}
		return ""
	}
}

func TestRead_refusesWhatIsWrong(t *testing.T) {
	for _, row := range []struct {
		variable string
		problem  string // "": it is right
	}{
		{"GATEWAYS=2", ""},
		{"GATEWAYS=0", `GATEWAYS: "0" is not a whole number from 1 to 10, such as 1`},
		{"GATEWAYS=11", `GATEWAYS: "11" is not a whole number from 1 to 10, such as 1`},
		{"PORT=65535", ""},
		{"PORT=65536", `PORT: "65536" is not a whole number from 1 to 65535, such as 5000`},
		{"PORT=:5001", `PORT: ":5001" is not a whole number from 1 to 65535, such as 5000`},
		{"API_PORT=0", `API_PORT: "0" is not a whole number from 1 to 65535, such as 8080`},

		{"REDIS_HOST=redis.internal", ""},
		{"REDIS_HOST=::1", ""},
		{"REDIS_HOST=[::1]", ""},
		{"REDIS_HOST=redis:6379", "REDIS_HOST: this is not the name or the address of a host, such as redis.internal; " +
			"port, database and password are in REDIS_PORT, REDIS_DB and REDIS_PASSWORD"},
		{"REDIS_HOST=redis://:secret@redis", "REDIS_HOST: this is not the name or the address of a host"},
		{"REDIS_PORT=tcp://10.0.0.1:6379", `REDIS_PORT: "tcp://10.0.0.1:6379" is not a whole number from 1 to 65535, such as 6379`},
		{"REDIS_DB=-1", `REDIS_DB: "-1" is not a whole number from 0 to 1000000, such as 0`},

		{"UPSTREAM_URL=http://localhost:3000", ""},
		{"UPSTREAM_URL=https://shop.internal/base/", ""},
		{"UPSTREAM_URL=h2c://[::1]:3000", ""},
		{"UPSTREAM_URL=shop", `UPSTREAM_URL: "shop" is not a URL with a scheme and a host; write one such as http://localhost:3000`},
		{"UPSTREAM_URL=localhost:3000", `UPSTREAM_URL: "localhost:3000" is not a URL with a scheme and a host`},
		{"UPSTREAM_URL=//shop", `UPSTREAM_URL: "//shop" has the scheme "", and only http, https and h2c are supported`},
		{"UPSTREAM_URL=ftp://shop", `UPSTREAM_URL: "ftp://shop" has the scheme "ftp", and only http, https and h2c are supported`},
		{"UPSTREAM_URL=http:///base", `UPSTREAM_URL: "http:///base" has no host`},
		{"UPSTREAM_URL=http://:3000", `UPSTREAM_URL: "http://:3000" has no host`},
		{"UPSTREAM_URL=http://shop:80800", `UPSTREAM_URL: "http://shop:80800" has the port 80800, which is not from 1 to 65535`},
		{"UPSTREAM_URL=http://shop:http", `UPSTREAM_URL: "http://shop:http" is not a URL with a scheme and a host`},
		{"UPSTREAM_URL=http://shop/?a=b", `UPSTREAM_URL: "http://shop/?a=b" has a query or a fragment, which Traefik does not pass on`},
		{"UPSTREAM_URL=http://shop/#a", `UPSTREAM_URL: "http://shop/#a" has a query or a fragment`},
		{"UPSTREAM_URL=http://me:secret@shop", "UPSTREAM_URL: this has a user, whom Traefik does not pass on"},
		{"UPSTREAM_URL=ftp://me:secret@shop", `UPSTREAM_URL: this has the scheme "ftp"`},

		{"RATE_LIMIT_CAPACITY=1,000", `RATE_LIMIT_CAPACITY: "1,000" is not a whole number from 1 to 1000000000`},
		{"RATE_LIMIT_REFILL_RATE=0.5", "RATE_LIMIT_REFILL_RATE: \"0.5\" is not a whole number from 1 to 1000000000; " +
			"for a fraction of a token make RATE_LIMIT_REFILL_PERIOD longer"},
		{"RATE_LIMIT_REFILL_PERIOD=1m", ""},
		{"RATE_LIMIT_REFILL_PERIOD=soon", `RATE_LIMIT_REFILL_PERIOD: "soon" is not a duration; write a number and a unit`},
		{"CIRCUIT_BREAKER_FAILURE_THRESHOLD=0", `CIRCUIT_BREAKER_FAILURE_THRESHOLD: "0" is not a whole number from 1 to 1000000000`},
		{"CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD=two", `CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD: "two" is not a whole number`},
		{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=2.5", ""},
		{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=30s",
			`CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "30s" is not a number of seconds, without a unit; write 30`},
		{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=1m",
			`CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "1m" is not a number of seconds, without a unit; write 60`},
		{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=long",
			`CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "long" is not a number of seconds, without a unit; write 30`},
		{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=0", `CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "0" seconds is out of bounds`},
	} {
		t.Run(row.variable, func(t *testing.T) {
			_, err := read(with(row.variable))
			if row.problem == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, row.problem)
			require.NotContains(t, err.Error(), "\n", "one problem")
			for _, never := range []string{"30ss", "secret", "rateLimit.", "circuitBreaker.", "resetTimeout"} {
				require.NotContains(t, err.Error(), never)
			}
		})
	}
}

func TestRead_tellsAllProblemsAtOnce(t *testing.T) {
	wrong := []string{
		"GATEWAYS=x", "PORT=x", "API_PORT=x", "REDIS_HOST=x:1", "REDIS_PORT=x", "REDIS_DB=x", "UPSTREAM_URL=x", "RATE_LIMIT_CAPACITY=x",
		"RATE_LIMIT_REFILL_RATE=x", "RATE_LIMIT_REFILL_PERIOD=x", "CIRCUIT_BREAKER_FAILURE_THRESHOLD=x",
		"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=x", "CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD=x",
	}
	_, err := read(with(wrong...))
	require.ErrorContains(t, err, strconv.Itoa(len(wrong))+" problems\n")
	for _, variable := range wrong {
		name, _, _ := strings.Cut(variable, "=")
		require.Regexp(t, `(?m)^  `+name+`: `, err.Error())
	}
}

func TestRead_valuesThatDoNotGoTogether(t *testing.T) {
	_, err := read(with("RATE_LIMIT_REFILL_RATE=1", "RATE_LIMIT_REFILL_PERIOD=10000d", "RATE_LIMIT_CAPACITY=1000000000"))
	require.ErrorContains(t, err, "RATE_LIMIT_CAPACITY, RATE_LIMIT_REFILL_RATE, RATE_LIMIT_REFILL_PERIOD:")
}

func TestRead_defaults(t *testing.T) {
	s, err := read(with())
	require.NoError(t, err)
	require.Equal(t, []ports{{5000, 8080}}, s.gateways)
	require.Equal(t, 1, s.number)
	require.True(t, s.ownRedis)
	require.Empty(t, s.upstreamURL)
}

func TestEnv_ofARedisWithAnAddressOfIPv6(t *testing.T) {
	s, err := read(with("REDIS_HOST=::1", "REDIS_PORT=6380", "UPSTREAM_URL=http://shop/base"))
	require.NoError(t, err)
	require.Subset(t, s.env(), []string{"REDIS_HOST=[::1]", "REDIS_PORT=6380", "UPSTREAM_URL=http://shop/base", "GOGC=400"})
	require.NotContains(t, strings.Join(s.env(), "\n"), "REDIS_PASSWORD", "it is the user's own")
}

// listenOn takes a free port until the test ends.
func listenOn(t *testing.T) int {
	t.Helper()
	address, err := gateway.FreeAddress()
	require.NoError(t, err)
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

func free(t *testing.T) int {
	t.Helper()
	address, err := gateway.FreeAddress()
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	return number
}

// TestCheckPorts_theHintWorks follows each hint: what it says to type has no further problem.
func TestCheckPorts_theHintWorks(t *testing.T) {
	taken, other, unused := listenOn(t), listenOn(t), free(t)
	for _, row := range []struct {
		name      string
		port, api int
		problems  []string
	}{
		{"both are free", unused, free(t), nil},
		{"the port is taken", taken, unused, []string{"PORT: " + gateway.Loopback(taken) + " is taken by another program"}},
		{"the API's is taken", unused, taken, []string{"API_PORT: " + gateway.Loopback(taken) + " is taken by another program"}},
		{"both are taken", taken, other, []string{"PORT: " + gateway.Loopback(taken), "API_PORT: " + gateway.Loopback(other)}},
		{"both are the same", unused, unused, []string{"API_PORT: " + gateway.Loopback(unused) + " is the port of the gateway itself"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &settings{number: 2, gateways: []ports{{row.port, row.api}}}
			err := s.checkPorts()
			if row.problems == nil {
				require.NoError(t, err)
				return
			}
			for _, problem := range row.problems {
				require.ErrorContains(t, err, problem)
			}
			_, hint, found := strings.Cut(err.Error(), "; write: ")
			require.True(t, found, err.Error())
			words := strings.Fields(hint)
			require.Equal(t, []string{"GATEWAYS=2", "make", "run"}, append(words[:1:1], words[3:]...), hint)
			again, err := read(with(words...))
			require.NoError(t, err)
			require.NoError(t, again.checkPorts())
			if row.port == unused {
				require.Contains(t, hint, "PORT="+strconv.Itoa(unused)+" ", "what was right stays")
			}
		})
	}
}

func TestChooseAddresses_noPortTwice(t *testing.T) {
	port := free(t)
	s, err := read(with("GATEWAYS=4", "PORT="+strconv.Itoa(port), "API_PORT="+strconv.Itoa(port+1)))
	require.NoError(t, err)
	require.NoError(t, s.chooseAddresses())
	require.Len(t, s.gateways, 4)
	require.Equal(t, ports{port, port + 1}, s.gateways[0])
	seen := map[string]bool{}
	for _, at := range s.gateways {
		for _, address := range []string{at.web(), at.apiAddress()} {
			require.False(t, seen[address], address)
			seen[address] = true
		}
	}
	require.NotEmpty(t, s.redis)
	require.Equal(t, "http://"+s.upstream, s.upstreamURL)
}
