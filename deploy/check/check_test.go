package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// check runs the command on the project's own dynamic files with the variables, and returns what it writes.
func check(t *testing.T, variables string, args ...string) (written string, code int) {
	t.Helper()
	for _, line := range strings.Split(variables, "\n") {
		if name, value, found := strings.Cut(line, "="); found {
			t.Setenv(name, value)
		}
	}
	var b strings.Builder
	code = run(append([]string{"-static", "none", "-dynamic", "../../dynamic"}, args...), &b, &b)
	return b.String(), code
}

func TestCheck(t *testing.T) {
	for _, row := range []struct{ name, variables, want string }{
		{"nothing is set", "", ""},
		{"all is set", "REDIS_HOST=redis\nREDIS_PORT=6390\nREDIS_DB=3\nRATE_LIMIT_CAPACITY=20\nUPSTREAM_URL=https://shop.example.com:8443/base\nPORT=5001", ""},
		{"set to nothing", "RATE_LIMIT_CAPACITY=\nUPSTREAM_URL=\nPORT=\nCIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=", ""},
		{"a number with a comma", "RATE_LIMIT_CAPACITY=1,000", `RATE_LIMIT_CAPACITY: "1,000" is not a whole number from 1 to 1000000000`},
		{"seconds with a unit", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=30s", `CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "30s" is not a number of seconds; write 30`},
		{"too many seconds", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=1000000000", `CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS: "1000000000s" is out of bounds`},
		{"a URL without scheme", "UPSTREAM_URL=shop:8080", `UPSTREAM_URL: "shop:8080" has no scheme; write http://shop:8080`},
		{"a URL with another scheme", "UPSTREAM_URL=ftp://shop", "UPSTREAM_URL: \"ftp://shop\" has the scheme ftp"},
		{"a URL without host", "UPSTREAM_URL=http:///path", "has no host"},
		{"a URL with a port too large", "UPSTREAM_URL=http://shop:80800", "has the port 80800"},
		{"a URL with a query", "UPSTREAM_URL=http://shop/?x=1", "has a query"},
		{"a URL with a password is not shown", "UPSTREAM_URL=ftp://me:secret@shop", "a password may be in it"},
		{"an address that two variables make", "REDIS_HOST=redis\nREDIS_PORT=no", "REDIS_HOST, REDIS_PORT: "},
		{"sentinels", "REDIS_SENTINELS=sentinel-1:26379,sentinel-2:26379\nREDIS_SENTINEL_MASTER=shop\nREDIS_SENTINEL_PASSWORD=secret", ""},
		{"one sentinel, and the usual name of the master", "REDIS_SENTINELS=sentinel-1:26379\nREDIS_HOST=redis", ""},
		{"a sentinel without a port", "REDIS_SENTINELS=sentinel-1:26379,sentinel-2\nREDIS_HOST=redis", `REDIS_SENTINELS: "sentinel-2" is not a host and a port`},
		{"a name that no master has", "REDIS_SENTINELS=sentinel-1:26379\nREDIS_SENTINEL_MASTER=my master", `REDIS_SENTINEL_MASTER: "my master" is not `},
		{"what only all three together break", "RATE_LIMIT_CAPACITY=1000000000\nRATE_LIMIT_REFILL_PERIOD=10000d", "RATE_LIMIT_CAPACITY, RATE_LIMIT_REFILL_PERIOD, RATE_LIMIT_REFILL_RATE: "},
		{"a value that breaks its file", "RATE_LIMIT_CAPACITY=1'0", "RATE_LIMIT_CAPACITY: its value cannot be written into middlewares.yml"},
		{"a port", "PORT=70000", `PORT: "70000" is not a port`},
		{"an image", "GATEWAY_IMAGE=Some Image", `GATEWAY_IMAGE: "Some Image" is not the name of an image`},
	} {
		t.Run(row.name, func(t *testing.T) {
			written, code := check(t, row.variables)
			if row.want == "" {
				require.Empty(t, written)
				require.Zero(t, code)
				return
			}
			require.Contains(t, written, row.want)
			require.Equal(t, 1, strings.Count(written, "\n"), "one problem is told once: %s", written)
			require.NotContains(t, written, "secret")
			require.Equal(t, exitProblems, code)
		})
	}
}

func TestCheck_allProblemsAtOnce(t *testing.T) {
	written, code := check(t, "RATE_LIMIT_CAPACITY=1,000\nCIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=30s\nUPSTREAM_URL=shop\nREDIS_DB=x\nPORT=x")
	require.Equal(t, exitProblems, code)
	require.Contains(t, written, "check: 5 problems\n")
	for _, name := range []string{"RATE_LIMIT_CAPACITY", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "UPSTREAM_URL", "REDIS_DB", "PORT"} {
		require.Contains(t, written, "check: "+name+": ")
	}
	require.NotContains(t, written, "30ss")
}

func TestCheck_decodesAsTraefikDoes(t *testing.T) {
	write := func(content string) []string {
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(folder, "own.yml"), []byte(content), 0o644))
		return checkFolder(folder)
	}
	const head = "http:\n  middlewares:\n    m:\n      plugin:\n        resilience:\n"
	require.Empty(t, write(head+"          rateLimit: {capacity: 5.0, sourceCriterion: {ipStrategy: {excludedIPs: [10.0.0.0/8, 10.1.0.1]}}}\n"),
		"numbers and lists need no quotes")
	require.Empty(t, write("http:\n  middlewares:\n    strip: {stripPrefix: {prefixes: [/x]}}\n    other: {plugin: {another: {any: 1}}}\n"),
		"other middlewares are not ours to judge")
	require.Equal(t, []string{`own.yml, middleware m: rateLimit.capacity: "0.500000" is not a whole number from 1 to 1000000000`},
		write(head+"          rateLimit: {capacity: 0.5}\n"))
	require.Len(t, write(head+"          ratelimits: {capacity: 5}\n"), 1, "a key that is misspelt")
	require.Len(t, write("http: ["), 1, "no YAML")
	require.Len(t, write(`{{ nothing }}`), 1, "no template")
	require.Equal(t, []string{`own.yml, service s: "shop" has no scheme; write http://shop`},
		write("http: {services: {s: {loadBalancer: {servers: [{url: shop}]}}}}"))
}

func TestCheck_theStaticFileNamesTheFolder(t *testing.T) {
	static := filepath.Join(t.TempDir(), "traefik.yml")
	require.NoError(t, os.WriteFile(static, []byte("providers: {file: {directory: /somewhere}}"), 0o644))
	folder, err := options{static: static}.folder()
	require.NoError(t, err)
	require.Equal(t, "/somewhere", folder)
}

func TestSpace(t *testing.T) {
	written, code := check(t, "", "-space", "99999999999")
	require.Equal(t, exitProblems, code)
	require.Contains(t, written, "the disk of Docker has ")
	_, code = check(t, "", "-space", "1")
	require.Zero(t, code)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"unknown"}, {"exec"}, {"smoke", "more"}, {"-unknown"}} {
		_, code := check(t, "", args...)
		require.Equal(t, exitUsage, code, args)
	}
}

// limited serves a bucket of that number of tokens, which is empty for the first requests.
func limited(t *testing.T, empty, tokens int) string {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests++; requests <= empty || requests > empty+tokens {
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestSmoke(t *testing.T) {
	passed, err := smoke(limited(t, 0, 5), time.Second)
	require.NoError(t, err)
	require.Equal(t, "a 429 after 6 requests", passed)
	_, err = smoke(limited(t, 2, 5), 5*time.Second)
	require.NoError(t, err, "the bucket was empty, from the deployment before")
	_, err = smoke(limited(t, 0, 1000), time.Second)
	require.ErrorContains(t, err, "no 429")
	_, err = smoke(limited(t, 1000, 0), time.Second)
	require.ErrorContains(t, err, "never 200")
}

func TestDisabled(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := `[{"name":"fine@file","status":"enabled"}]`
		if r.URL.Path == "/api/http/middlewares" {
			text = `[{"name":"gateway@file","status":"disabled","error":["rateLimit.capacity: wrong"]}]`
		}
		_, _ = w.Write([]byte(text))
	}))
	defer server.Close()
	var b strings.Builder
	require.NoError(t, printDisabled(server.URL, &b))
	require.Equal(t, "middleware gateway@file is disabled: [rateLimit.capacity: wrong]\n", b.String())
}
