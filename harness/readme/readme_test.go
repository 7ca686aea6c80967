// Package readme keeps the documents true: what they say of the configuration, the environment, the commands, the answers, the rights in
// Redis, the files, the tests and the rules of the interpreter is compared with the files that make it so. It also keeps them short,
// linked and in plain words.
package readme

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/resilient-gateway/resilience"

// The documents that the checks know by name. All others are checked for their links, commands, YAML and words.
const (
	readme        = "README.md"
	configuration = "docs/configuration.md"
	operations    = "docs/operations.md"
	architecture  = "docs/architecture.md"
	interpreter   = "docs/interpreter.md"
	performance   = "docs/performance.md"
)

// mutation is a change to a document that a check must see.
type mutation struct {
	document string
	old, new string
	problem  string // a part of what the check then says
}

var checks = []struct {
	name      string
	problems  func(t *testing.T, all documents) []string
	mutations []mutation
}{
	{"the tables have the keys of the configuration, and their defaults", configurationKeys, []mutation{
		{configuration, "`redis.tls.ca`</a>", "`redis.tls.cacert`</a>", "redis.tls.ca: not in the tables"},
		{configuration, "`redis.tls.ca`</a>", "`redis.tls.cacert`</a>", "redis.tls.cacert: no such key"},
		{configuration, `id="opt-redis-db"`, `id="opt-redis-database"`, `redis.db: anchor "opt-redis-database", not "opt-redis-db"`},
		{configuration, `href="#opt-redis-db"`, `href="#opt-redis"`, `redis.db: link to "#opt-redis", not to its anchor`},
		{configuration, "requests that may come at once | 100 |", "requests that may come at once | 200 |", `rateLimit.capacity: default "200", not "100"`},
		{configuration, "Without it the state is kept in this process | – | No |\n| <a id=\"opt-redis-sentinel\"", "Without it the state is kept in this process | none | No |\n| <a id=\"opt-redis-sentinel\"", `redis.address: default "none", not "–"`},
		{configuration, "Block. Makes the middleware answer", "Text. Makes the middleware answer", `health: type "Text", not "Block"`},
		{configuration, "List. The rightmost address", "Text. The rightmost address", `excludedIPs: type "Text", not "List"`},
		{configuration, "Number. The database | 0 | No |", "Number. The database | 0 | |", "redis.db: required is"},
		{configuration, "`health.path`</a>", "`health`</a>", "health: twice"},
		{configuration, "`redis.dialTimeout`</a>", "`redis.dialtimeout`</a>", "redis.dialTimeout: not in the tables"},
	}},
	{"the README has the defaults of the configuration", commonKeys, []mutation{
		{readme, "| `redis.timeout` | 100ms |", "| `redis.timeout` | 1s |", `redis.timeout: default "1s", not "100ms"`},
		{readme, "| `rateLimit.refillRate`, `rateLimit.refillPeriod` | 10, 1s |", "| `rateLimit.refillRate`, `rateLimit.refillPeriod` | 10, 2s |", `rateLimit.refillPeriod: default "2s", not "1s"`},
		{readme, "| `redis.onError` |", "| `redis.onFailure` |", "redis.onFailure: no such key"},
	}},
	{"each YAML block parses", parses, []mutation{
		{configuration, "          rateLimit:\n", "          rateLimit: {\n", "yaml: "},
		{readme, "          rateLimit:\n", "          rateLimit: {\n", "yaml: "},
	}},
	{"each make target exists", makeTargets, []mutation{
		{"docs/development.md", "`make fuzz`", "`make fuss`", "make fuss: no such target"},
		{readme, "`make test`", "`make tests`", "make tests: no such target"},
	}},
	{"the variables are those of the dynamic files, and their defaults", environment, []mutation{
		{configuration, "| `REDIS_DB` |", "| `REDIS_DATABASE` |", "REDIS_DB: not in the table"},
		{configuration, "| `REDIS_DB` |", "| `REDIS_DATABASE` |", "REDIS_DATABASE: no dynamic file reads it"},
		{configuration, "| `REDIS_PORT` | 6379 |", "| `REDIS_PORT` | 6380 |", `REDIS_PORT: default "6380", not "6379"`},
		{readme, "`RATE_LIMIT_CAPACITY=20 make run`", "`RATE_LIMIT_SIZE=20 make run`", "RATE_LIMIT_SIZE: no dynamic file reads it"},
	}},
	{"the rights of the Redis user are those of the tests", rights, []mutation{
		{operations, " +hdel", "", "not [+evalsha"},
		{operations, " +pttl", " +pttl +flushall", "+flushall"},
		{operations, "~resilience:*", "~*", "~resilience:*"},
		{operations, "ACL SETUSER", "SETUSER", "0 lines"},
	}},
	{"the table of Redis's commands has what the plugin sends, and since when it is there", redisCommands, []mutation{
		{operations, "| `ASKING` | 3.0", "| `ASKING` | 2.8", "ASKING: since 2.8.0, and Redis says [3.0.0]"},
		{operations, "`TIME`, `PTTL`, `PEXPIRE`", "`TIME`, `PTTL`", "PEXPIRE: not in the table of commands"},
		{operations, "`GET`, `DEL`", "`GET`, `DEL`, `UNLINK`", "UNLINK: nothing sends it"},
		{operations, "| `SELECT` | 1.0", "| `SELECT` | always", "SELECT: since when?"},
	}},
	{"the examples are configurations that the plugin takes", examples, []mutation{
		{configuration, "            refillRate: 10\n", "            refilRate: 10\n", "rateLimit.refilRate: no such key"},
		{configuration, "plugin.resilience.rateLimit.refillRate:", "plugin.resilience.rateLimit.refilRate:", "rateLimit.refilRate: no such key"},
		{configuration, "        refillRate: 10\n        refillPeriod: \"1s\"\n      circuitBreaker", "        refilRate: 10\n      circuitBreaker", "rateLimit.refilRate: no such key"},
		{operations, "    ca: /run/secrets/redis/ca.pem\n", "    cacert: /run/secrets/redis/ca.pem\n", "redis.tls.cacert: no such key"},
		{configuration, "resetTimeout: \"30s\"", "resetTimeout: 30", `write "30s"`},
		{configuration, "kind: Middleware", "kind: TLSOption", configuration + ": Kubernetes: no example"},
		{readme, "kind: Middleware", "kind: TLSOption", readme + ": Kubernetes: no example"},
		{readme, "plugin.resilience.", "plugin.resilient.", readme + ": Labels: no example"},
		{configuration, "--experimental.abortOnPluginFailure=true", "--ping", "Labels: no abortOnPluginFailure"},
		{configuration, "moduleName: " + module, "moduleName: example.com/resilience", "Files: no moduleName"},
		{readme, "moduleName: " + module, "moduleName: example.com/resilience", readme + ": no moduleName"},
	}},
	{"the answers are those of the code", answers, []mutation{
		{readme, "please try again later.\"}` |\n| the circuit", "try again later.\"}` |\n| the circuit", "limitedBody"},
	}},
	{"the messages in the log are those of the code", logTexts, []mutation{
		{operations, `"message":"redis is back"`, `"message":"redis is here"`, "redis is here"},
		{operations, `"message":"circuit half-open"`, `"message":"circuit half-closed"`, "circuit half-closed"},
	}},
	{"the tables of the log have what the code writes", logSchema, []mutation{
		{operations, "| `redis is back` |", "| `redis is here` |", "redis is back: not in the table of messages"},
		{operations, "| `bucket deleted` |", "| `bucket removed` |", "bucket removed: the plugin writes no such message"},
		{operations, "| `refused: circuit open (dry run)` |", "| `refused: circuit` |", "refused: circuit open (dry run): not in the table of messages"},
		{operations, "| `traceId` |", "| `trace` |", "traceId: not in the table of fields"},
		{operations, "| `source` |", "| `origin` |", "origin: the plugin writes no such field"},
	}},
	{"each link leads somewhere", links, []mutation{
		{configuration, "(#order-of-middlewares)", "(#order-of-things)", "#order-of-things"},
		{readme, "(docs/operations.md#redis-unavailable)", "(docs/operations.md#redis-gone)", "docs/operations.md#redis-gone"},
		{configuration, "(../traefik/traefik.yml)", "(../traefik/static.yml)", "traefik/static.yml"},
		{"docs/decisions/0005-batches.md", "(../interpreter.md#r1)", "(../interpreter.md#r999)", "interpreter.md#r999"},
	}},
	{"each document can be reached from the README", reachable, []mutation{
		{"docs/decisions/README.md", "(0003-leases.md)", "(0002-scripts-with-a-twin.md)", "docs/decisions/0003-leases.md: no way leads to it"},
	}},
	{"no document is longer than it may be", lengths, []mutation{
		{readme, "## More\n", "## More\n" + strings.Repeat("\n", maxLines[readme]), "README.md: "},
		{performance, "## Method\n", "## Method\n" + strings.Repeat("\n", maxLines[performance]), "docs/performance.md: "},
	}},
	{"the words are plain", words, []mutation{
		{readme, "## More\n", "## More\n\nThat is dear.\n", `README.md: "dear"`},
		{operations, "Tested with Redis 7.", "Tested with a Redis of\nits own.", `docs/operations.md: "of its own"`},
		{operations, "Tested with Redis 7.", "At the most Redis 7.", `docs/operations.md: "at the most"`},
	}},
	{"each test that is named exists", namedTests, []mutation{
		{"docs/reliability.md", "`TestTruth`", "`TestTruths`", "TestTruths: no such test"},
		{"docs/reliability.md", "`FuzzScript`", "`FuzzScripture`", "FuzzScripture: no such test"},
	}},
	{"each file that is named exists", namedPaths, []mutation{
		{"docs/reliability.md", "`harness/e2e/circuit_test.go`", "`harness/e2e/circle_test.go`", "harness/e2e/circle_test.go: no such file"},
	}},
	{"the rules of the interpreter are numbered, checked and cited", rules, []mutation{
		{interpreter, `<a id="r4" href="#r4">R4</a>`, `<a id="r5" href="#r5">R5</a>`, "R5: the number is not 4"},
		{interpreter, "| range over a number |", "| – |", "range over a number: no rule names this check"},
		{interpreter, "Code cites a rule", "Code cites a rule (see R999)", "R999: no such rule"},
	}},
	{"the file map has each file", fileMap, []mutation{
		{architecture, "| `config.go` |", "| `configs.go` |", "config.go: not in the file map"},
		{architecture, "| `config.go` |", "| `configs.go` |", "configs.go: no such file"},
	}},
}

func TestDocuments(t *testing.T) {
	all := read(t)
	for _, check := range checks {
		t.Run(check.name, func(t *testing.T) {
			require.Empty(t, check.problems(t, all))
		})
	}
}

// TestDocuments_isSeen shows each check what it must refuse.
func TestDocuments_isSeen(t *testing.T) {
	all := read(t)
	for _, check := range checks {
		for _, m := range check.mutations {
			t.Run(check.name+": "+m.problem, func(t *testing.T) {
				require.Contains(t, all[m.document], m.old)
				require.NotContains(t, strings.Join(check.problems(t, all), "\n"), m.problem)
				changed := all.with(m.document, strings.ReplaceAll(all[m.document], m.old, m.new))
				require.Contains(t, strings.Join(check.problems(t, changed), "\n"), m.problem)
			})
		}
	}
}
