package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// limit, circuit and redis make a plugin's configuration of one block.
func limit(b block) block   { return block{"rateLimit": b} }
func circuit(b block) block { return block{"circuitBreaker": b} }
func redis(b block) block   { return block{"redis": b, "rateLimit": block{"capacity": 1}} }

func source(b block) block { return limit(block{"sourceCriterion": b}) }

var badConfigurations = []struct {
	plugin  block
	message string
}{
	{limit(block{"capacity": "many"}), `rateLimit.capacity: "many" is not a whole number from 1 to 1000000000`},
	{limit(block{"capacity": 0}), `rateLimit.capacity: "0" is not a whole number from 1 to 1000000000`},
	{limit(block{"capacity": -1}), `rateLimit.capacity: "-1" is not a whole number from 1 to 1000000000`},
	{limit(block{"capacity": 1.5}), `rateLimit.capacity: "1.500000" is not a whole number from 1 to 1000000000`},
	{limit(block{"capacity": 2000000000}), `rateLimit.capacity: "2000000000" is not a whole number from 1 to 1000000000`},
	{limit(block{"refillRate": 0.1}), `rateLimit.refillRate: "0.100000" is not a whole number from 1 to 1000000000; for a fraction of a token make refillPeriod longer`},
	{limit(block{"refillPeriod": 30}), `rateLimit.refillPeriod: "30" is not a duration, as it has no unit; if it is seconds, write "30s"`},
	{limit(block{"refillPeriod": "-1s"}), `rateLimit.refillPeriod: "-1s" is out of bounds; write a duration from 1us to 10000d, in whole microseconds`},
	{limit(block{"refillPeriod": "1500ns"}), `rateLimit.refillPeriod: "1500ns" is out of bounds; write a duration from 1us to 10000d, in whole microseconds`},
	{limit(block{"capacity": 1000000000, "refillRate": 7, "refillPeriod": "24h"}), `rateLimit: capacity 1000000000, refillRate 7 and refillPeriod 24h0m0s are more than can be counted exactly; write the same rate as another fraction: capacity times refillPeriod must stay below 2^53 microseconds when refillRate and refillPeriod are divided by what they have in common`},
	{limit(block{"capacty": 10}), `rateLimit.capacty: there is no such key; did you mean "capacity"?`},
	{limit(block{"average": 10, "burst": 20}), `2 problems: (1) rateLimit.average: there is no such key; valid keys: capacity, refillRate, refillPeriod, sourceCriterion, limits, tiers, cost, penalty, maxDelay, maxDelayed, dryRun, standingLease, responseHeaders, responseHeadersOn (2) rateLimit.burst: there is no such key; valid keys: capacity, refillRate, refillPeriod, sourceCriterion, limits, tiers, cost, penalty, maxDelay, maxDelayed, dryRun, standingLease, responseHeaders, responseHeadersOn`},
	{source(block{"requestHeader": "X-Api-Key"}), `rateLimit.sourceCriterion.requestHeader: there is no such key; did you mean "requestHeaderName"?`},
	{source(block{"requestHeaderName": "X Api Key"}), `rateLimit.sourceCriterion.requestHeaderName: "X Api Key" is not the name of a header, such as "X-Api-Key"`},
	{source(block{"requestHeaderName": "X-Api-Key", "all": true}), `rateLimit.sourceCriterion: all gives all requests one bucket, and excludes requestHeaderName; leave out one or the other`},
	{source(block{"requestPath": "/api/*"}), `rateLimit.sourceCriterion.requestPath: "/api/*" holds none or more than eight of {name}; write a pattern such as "/api/{tenant}/*"`},
	{source(block{"requestCookie": "session"}), `rateLimit.sourceCriterion.requestCookie: there is no such key; did you mean "requestCookieName"?`},
	{source(block{"requestMethod": true, "missingSource": "deny"}), `rateLimit.sourceCriterion.missingSource: "deny" has no effect, as every request has this source; leave it out`},
	{source(block{"requestHost": "maybe"}), `rateLimit.sourceCriterion.requestHost: "maybe" is neither true nor false; write "true" or "false"`},
	{source(block{"ipStrategy": block{"depth": -1}}), `rateLimit.sourceCriterion.ipStrategy.depth: "-1" is not a whole number from 0 to 1000`},
	{source(block{"ipStrategy": block{"ipv6Subnet": 129}}), `rateLimit.sourceCriterion.ipStrategy.ipv6Subnet: "129" is not a whole number from 1 to 128`},
	{source(block{"ipStrategy": block{"excludedIPs": "10.0.0.0/8, 10.0.0.0/40"}}), `rateLimit.sourceCriterion.ipStrategy.excludedIPs: "10.0.0.0/40" is not an IP address or a network, such as "10.0.0.0/8"`},
	{source(block{"ipStrategy": block{"exludedIPs": "10.0.0.1"}}), `rateLimit.sourceCriterion.ipStrategy.exludedIPs: there is no such key; did you mean "excludedIPs"?`},
	{circuit(block{"resetTimeout": 30}), `circuitBreaker.resetTimeout: "30" is not a duration, as it has no unit; if it is seconds, write "30s"`},
	{circuit(block{"resetTimeout": "half a minute"}), `circuitBreaker.resetTimeout: "half a minute" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`},
	{circuit(block{"resetTimeout": "0s"}), `circuitBreaker.resetTimeout: "0s" is out of bounds; write a duration from 1us to 10000d, in whole microseconds`},
	{circuit(block{"failureThreshold": 0}), `circuitBreaker.failureThreshold: "0" is not a whole number from 1 to 1000000000`},
	{circuit(block{"failureTreshold": 5}), `circuitBreaker.failureTreshold: there is no such key; did you mean "failureThreshold"?`},
	{circuit(block{"halfOpenMaxProbes": 5000}), `circuitBreaker.halfOpenMaxProbes: "5000" is not a whole number from 1 to 1000`},
	{circuit(block{"probeTimeout": "10"}), `circuitBreaker.probeTimeout: "10" is not a duration, as it has no unit; if it is seconds, write "10s"`},
	{redis(block{"address": "redis"}), `redis.address: "redis" is not a host and a port; write "redis:6379"`},
	{redis(block{"address": "redis://:pa55@redis:6379"}), `redis.address: this is not a host and a port (it is not shown, as a password may be in it); write "redis:6379"; user, password, database and TLS have keys of their own`},
	{redis(block{"address": "redis:6379", "db": "first"}), `redis.db: "first" is not a whole number from 0 to 1000000`},
	{redis(block{"address": "redis:6379", "timeout": "100"}), `redis.timeout: "100" is not a duration, as it has no unit; if it is milliseconds, write "100ms"`},
	{redis(block{"address": "redis:6379", "onError": "open"}), `redis.onError: "open" is not one of local, allow and deny`},
	{redis(block{"address": "redis:6379", "keyPrefix": "a b"}), `redis.keyPrefix: "a b" is not a name of letters, digits and . _ @ -, at most 64`},
	{redis(block{"address": "redis:6379", "username": "gateway"}), `redis.username: a user needs a password; write passwordEnv or passwordFile too`},
	{redis(block{"address": "redis:6379", "password": "a", "passwordEnv": "B"}), `redis: password, passwordEnv and passwordFile exclude each other; write one of them`},
	{redis(block{"address": "redis:6379", "passwordFile": "/does/not/exist"}), `redis.passwordFile: stat /does/not/exist: no such file or directory; write the name of a file that Traefik can read`},
	{redis(block{"address": "redis:6379", "tls": block{"enabled": true, "ca": "/does/not/exist"}}), `redis.tls.ca: stat /does/not/exist: no such file or directory; write the name of a file that Traefik can read`},
	{redis(block{"address": "redis:6379", "tls": block{"enabled": true, "cert": "/cert.pem"}}), `redis.tls: cert and key go together; write both or neither`},
	{limit(block{"refillPeriod": "1y"}), `rateLimit.refillPeriod: "1y" is not a duration; write a number and a unit: us, ms, s, m, h, d or w`},
	{redis(block{"address": "/var/run/redis.sock"}), `redis.address: this is the name of a socket, and only TCP is supported; write a host and a port, such as "redis:6379"`},
	{redis(block{"address": "::1"}), `redis.address: "::1" is not a host and a port; write "[::1]:6379"`},
	{redis(block{"address": "redis:6379", "passwordFile": "/dev/zero"}), `redis.passwordFile: "/dev/zero" is not a regular file; write the name of one`},
	{redis(block{"address": "redis:6379", "tls": block{"enabled": true, "ca": "/dev/zero"}}), `redis.tls.ca: "/dev/zero" is not a regular file; write the name of one`},
	{redis(block{"address": "redis:6379", "tls": block{"enabled": true, "cert": "/dev/zero", "key": "/dev/zero"}}), `2 problems: (1) redis.tls.cert: "/dev/zero" is not a regular file; write the name of one (2) redis.tls.key: "/dev/zero" is not a regular file; write the name of one`},
	{redis(block{"adress": "redis:6379"}), `redis.adress: there is no such key; did you mean "address"?`},
	{block{"name": "a name"}, `name: "a name" is not a name of letters, digits and . _ @ -, at most 64`},
	{block{"health": block{"path": "health"}}, `health.path: "health" is not a path that begins with / and holds no ?, # or space, such as "/health"`},
	{block{"ratelimits": block{"capacity": 1}}, `ratelimits: there is no such key; did you mean "rateLimit"?`},
	{block{"rateLimit": block{"capacity": 0, "refillRate": "x"}, "circuitBreaker": block{"resetTimeout": 30}}, `3 problems: (1) rateLimit.capacity: "0" is not a whole number from 1 to 1000000000 (2) rateLimit.refillRate: "x" is not a whole number from 1 to 1000000000 (3) circuitBreaker.resetTimeout: "30" is not a duration, as it has no unit; if it is seconds, write "30s"`},
	// Traefik's decoder speaks first: its message names the key.
	{block{"rateLimit": "on"}, "plugin: failed to decode configuration: 1 error(s) decoding:\n\n* 'RateLimit' expected a map, got 'string'"},
	{limit(block{"capacity": []int{1, 2}}), "plugin: failed to decode configuration: 1 error(s) decoding:\n\n* 'RateLimit.Capacity' expected type 'string', got unconvertible type '[]interface {}', value: '[1 2]'"},
}

func TestConfiguration_errorsSayWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	routers, middlewares := block{}, block{}
	for i, row := range badConfigurations {
		name := fmt.Sprint("bad", i)
		middlewares[name] = block{"plugin": block{"resilience": row.plugin}}
		routers[name] = block{
			"rule": "Path(`/" + name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "noop@internal",
		}
	}
	folder := t.TempDir()
	writeDynamic(t, folder, limit(block{"capacity": 1}))
	content, err := yaml.Marshal(block{"http": block{"routers": routers, "middlewares": middlewares}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "bad.yml"), content, 0o644))
	g := startTraefik(t, options{dynamic: folder})

	for i, row := range badConfigurations {
		t.Run(fmt.Sprint(row.plugin), func(t *testing.T) {
			name := fmt.Sprint("bad", i)
			var shown struct {
				Status string
				Error  []string
			}
			getJSON(t, "http://"+g.api+"/api/http/middlewares/"+name+"@file", &shown)
			require.Equal(t, "disabled", shown.Status)
			require.Equal(t, []string{row.message}, shown.Error)
			require.Equal(t, http.StatusNotFound, g.get("/"+name).status)
		})
	}
	require.NotContains(t, g.log.String(), "pa55")
}
