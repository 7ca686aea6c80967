package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// passed is the status of what the middleware lets through to Traefik's noop@internal, which costs next to nothing.
const passed = http.StatusTeapot

// startAbused starts a gateway with a route for each limit, at the path of its name. A trusting one takes the test for a
// load balancer, whose X-Forwarded-For counts.
func startAbused(t *testing.T, trusting bool, server *redistest.Server, limits map[string]block) *traefik {
	t.Helper()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	routers, middlewares := block{}, block{}
	for name, limit := range limits {
		plugin := block{"name": name, "rateLimit": limit}
		if server != nil {
			// What is tested here is what Redis decides, however busy the machine is.
			plugin["redis"] = block{"address": server.Addr(), "timeout": "10s"}
		}
		middlewares[name] = block{"plugin": block{"resilience": plugin}}
		routers[name] = block{
			"rule": "Path(`/" + name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "noop@internal",
		}
	}
	writeYAML(t, filepath.Join(dynamic, "abuse.yml"), block{"http": block{"routers": routers, "middlewares": middlewares}})
	withGauges := gauges(t, dynamic)
	return startTraefik(t, options{dynamic: dynamic, change: func(static map[string]any) {
		withGauges(static)
		delete(static, "accessLog")
		if trusting {
			gateway.Set(static, []string{"127.0.0.1/32"}, "entryPoints", "web", "forwardedHeaders", "trustedIPs")
		}
	}})
}

// scarce is a limit of five requests for each source.
func scarce(source block) block {
	return block{"capacity": 5, "refillRate": 1, "refillPeriod": "1h", "sourceCriterion": source}
}

func byHeader() block { return block{"requestHeaderName": "X-Key"} }

// statuses sends a request for each of the header's values, and counts the answers by their status.
func statuses(t *testing.T, g *traefik, path, header string, values ...string) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for _, value := range values {
		request, err := http.NewRequest(http.MethodGet, g.url(path), nil)
		require.NoError(t, err)
		for _, line := range strings.Split(value, "\n") {
			request.Header.Add(header, line)
		}
		r := send(request)
		require.NoError(t, r.err)
		counts[r.status]++
	}
	return counts
}

// rotating returns twenty texts of a format.
func rotating(format string) (texts []string) {
	for i := range 20 {
		texts = append(texts, fmt.Sprintf(format, i))
	}
	return texts
}

var fiveOfTwenty = map[int]int{passed: 5, 429: 15}

func TestAbuse_aSpoofedForwardedForGainsNothing(t *testing.T) {
	t.Parallel()
	const forwarded = "X-Forwarded-For"
	limits := map[string]block{
		"address":  scarce(block{"ipStrategy": block{"depth": 0}}),
		"depth":    scarce(block{"ipStrategy": block{"depth": 1}}),
		"excluded": scarce(block{"ipStrategy": block{"excludedIPs": "10.0.0.0/8"}}),
		"subnet":   scarce(block{"ipStrategy": block{"depth": 1, "ipv6Subnet": 64}}),
	}
	t.Run("of a stranger, whose own is not heeded", func(t *testing.T) {
		g := startAbused(t, false, redistest.Start(t), limits)
		for name := range limits {
			require.Equal(t, fiveOfTwenty, statuses(t, g, "/"+name, forwarded, rotating("198.51.100.%d")...), name)
		}
	})
	t.Run("through a load balancer, which tells who it had it from", func(t *testing.T) {
		g := startAbused(t, true, redistest.Start(t), limits)
		for _, row := range []struct{ name, path, format string }{
			{"at the balancer", "/address", "198.51.100.%d"},
			{"before the balancer's own", "/depth", "203.0.113.%d, 198.51.100.1"},
			{"before the balancer's own, in a line of their own", "/depth", "203.0.113.%d\n198.51.100.2"},
			{"before a chain of balancers", "/excluded", "203.0.113.%d, 198.51.100.1, 10.0.0.1"},
			{"before a chain of balancers, each with a line of its own", "/excluded", "203.0.113.%d\n198.51.100.2\n10.0.0.1"},
			{"in a network of its own", "/subnet", "2001:db8:0:1::%x"},
			{"in a network of its own, written in another way", "/subnet", "2001:0DB8:0000:0002:%04x:0:0:1"},
		} {
			require.Equal(t, fiveOfTwenty, statuses(t, g, row.path, forwarded, rotating(row.format)...), row.name)
		}
		require.Equal(t, map[int]int{passed: 20}, statuses(t, g, "/subnet", forwarded, rotating("2001:db8:1:%x::1")...), "other networks")
		require.Equal(t, map[int]int{passed: 20}, statuses(t, g, "/subnet", forwarded, rotating("::ffff:198.51.100.%d")...),
			"IPv4 clients are not one network")
	})
}

// hostile are values of a header that try to be somebody else's key, or more than a key.
var hostile = func() []string {
	long := strings.Repeat("x", 64<<10)
	sum := func(text string) string {
		digest := sha256.Sum256([]byte(text))
		return hex.EncodeToString(digest[:])
	}
	values := []string{
		"victim", "VICTIM", "victim.", "ip:127.0.0.1", "header:victim", "none:", ":", "breaker", "*", "?", "[a-z]", "{keys}", "}",
		"}:bucket:header:victim", "resilience:{keys}:bucket:header:victim", "resilience:{keys}:breaker", "resilience:check",
		"two words", sum("two words"), "header:" + sum("two words"), long, long + "y", sum(long), long[:63], long[:64], sum(long[:64]),
		"\\r\\nDEL victim", "%0d%0aDEL%20victim", "victim\tvictim", "\xff\xfe", "Größe", "\u202evictim", "'); return redis.call('KEYS','*')--",
		`","level":"panic","message":"owned`, "{{ env `PATH` }}", "$(id)", "${jndi:ldap://victim}", "<script>", "%s%n%v", "0", "-1", "1e999", "null",
	}
	return values
}()

var ourKey = regexp.MustCompile(`^resilience:\{keys\}:bucket:(header|none):[A-Za-z0-9.:_-]{0,64}$`)

func TestAbuse_eachHostileKeyHasASeparateBucket(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]*redistest.Server{"in Redis": redistest.Start(t), "in this process": nil} {
		t.Run(name, func(t *testing.T) {
			g := startAbused(t, false, server, map[string]block{"keys": scarce(byHeader())})
			for range 2 {
				for _, value := range hostile {
					statuses(t, g, "/keys", "X-Key", value, value)
				}
			}
			for _, value := range hostile {
				require.Equal(t, map[int]int{passed: 1, 429: 2}, statuses(t, g, "/keys", "X-Key", value, value, value), "%.80q", value)
			}
			requireCleanLog(t, g, "victim", "owned", "xxxxxxxx")
			if server == nil {
				return
			}
			keys, err := redigo.Strings(server.Do("KEYS", "*"), nil)
			require.NoError(t, err)
			require.Len(t, keys, len(hostile))
			for _, key := range keys {
				require.Regexp(t, ourKey, key)
			}
		})
	}
}

// requireCleanLog requires that each line is one event, and that none holds any of the texts.
func requireCleanLog(t *testing.T, g *traefik, texts ...string) {
	t.Helper()
	require.NotEmpty(t, g.events("refused: rate limit exceeded"))
	for _, line := range strings.Split(strings.TrimSpace(g.log.String()), "\n") {
		var event map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &event), line)
		for _, text := range texts {
			require.NotContains(t, line, text)
		}
	}
}

func TestAbuse_traefikRefusesControlCharacters(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	g := startAbused(t, true, server, map[string]block{
		"header": scarce(byHeader()), "depth": scarce(block{"ipStrategy": block{"depth": 1}}), "host": scarce(block{"requestHost": true}),
	})
	for b := 0; b < 256; b++ {
		if b == '\n' || b == '\r' {
			continue // they end the line; what follows is another header
		}
		value := "a" + string([]byte{byte(b)}) + "b"
		for _, request := range []string{
			"GET /header HTTP/1.1\r\nHost: shop.example\r\nX-Key: " + value,
			"GET /depth HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: " + value,
			"GET /host HTTP/1.1\r\nHost: " + value,
		} {
			answer := talk(t, g.web, step{send: request + "\r\nConnection: close\r\n\r\n"})
			require.Regexp(t, `^HTTP/1.1 (418|400|404|429) `, answer[:min(len(answer), 20)], "%q", request)
			if b < ' ' && b != '\t' || b == 0x7f {
				require.Regexp(t, `^HTTP/1.1 400 `, answer[:min(len(answer), 20)], "%q", request)
			}
		}
	}
	keys, err := redigo.Strings(server.Do("KEYS", "*"), nil)
	require.NoError(t, err)
	for _, key := range keys {
		require.Regexp(t, `^resilience:\{(header|depth|host)\}:bucket:(header|ip|host|none):[A-Za-z0-9.:_-]{0,64}$`, key)
	}
}

// flood sends a request for each of the keys, over many connections, each with a few requests under way. It returns the
// answers by their status.
func flood(t *testing.T, g *traefik, path string, keys int, value func(i int) string) map[string]int {
	t.Helper()
	const clients, together = 64, 16
	counts := map[string]int{}
	var mu sync.Mutex
	var done sync.WaitGroup
	for c := range clients {
		done.Go(func() {
			own, err := floodOne(g.web, path, c, keys, clients, together, value)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				counts[err.Error()]++
			}
			for status, n := range own {
				counts[status] += n
			}
		})
	}
	done.Wait()
	return counts
}

func floodOne(address, path string, first, keys, stride, together int, value func(i int) string) (map[string]int, error) {
	counts := map[string]int{}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return counts, err
	}
	defer c.Close()
	reader := bufio.NewReader(c)
	for i := first; i < keys; {
		var requests bytes.Buffer
		sent := 0
		for ; i < keys && sent < together; i += stride {
			fmt.Fprintf(&requests, "GET %s HTTP/1.1\r\nHost: a\r\nX-Key: %s\r\n\r\n", path, value(i))
			sent++
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(requests.Bytes()); err != nil {
			return counts, err
		}
		for range sent {
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				return counts, err
			}
			io.Copy(io.Discard, response.Body)
			counts[fmt.Sprint(response.StatusCode)]++
		}
	}
	return counts, nil
}

// KEYS=1000000 takes some minutes.
func TestAbuse_aFloodOfKeysTakesBoundedMemory(t *testing.T) {
	plain := func(i int) string { return fmt.Sprint("client-", i) }
	t.Run("in Redis, by expiry", func(t *testing.T) {
		keys := number(t, "KEYS", 20000)
		server := redistest.Start(t)
		g := startAbused(t, false, server, map[string]block{
			"flood": {"capacity": 10, "refillRate": 10, "refillPeriod": "1s", "sourceCriterion": byHeader()},
		})
		before, begun := g.heap(), time.Now()
		most := int64(0)
		for part := range 10 {
			value := func(i int) string { return plain(part*keys/10 + i) }
			require.Equal(t, map[string]int{"418": keys / 10}, flood(t, g, "/flood", keys/10, value), "each key has its own bucket")
			most = max(most, server.Int("DBSIZE"))
		}
		grown := g.heap() - before
		t.Logf("%d keys in %s; the gateway's heap grew by %d KB; at most %d keys in Redis, which used %s",
			keys, time.Since(begun).Round(time.Millisecond), grown>>10, most, peak(server))
		require.Less(t, grown, int64(50<<20))
		// A bucket one token short of full is full, and gone, after a tenth of a second; Redis counts it until it looks.
		require.Less(t, most, int64(keys/2))
		require.Eventually(t, func() bool { return server.Int("DBSIZE") == 0 }, 5*time.Second, 50*time.Millisecond)
	})
	t.Run("in this process, by one bucket for those too many", func(t *testing.T) {
		keys := number(t, "KEYS", 70000)
		g := startAbused(t, false, nil, map[string]block{"flood": scarce(byHeader())})
		require.Equal(t, map[int]int{passed: 1}, statuses(t, g, "/flood", "X-Key", "victim"))
		before := g.heap()
		counts := flood(t, g, "/flood", keys, plain)
		grown := g.heap() - before
		t.Logf("%v; the gateway's heap grew by %d KB", counts, grown>>10)
		require.Less(t, grown, int64(50<<20))
		require.Equal(t, map[string]int{"418": 65535 + 5, "429": keys - 65535 - 5}, counts)
		require.Equal(t, map[int]int{passed: 4, 429: 1}, statuses(t, g, "/flood", "X-Key", "victim", "victim", "victim", "victim", "victim"))
	})
	t.Run("of 64 KB each", func(t *testing.T) {
		server := redistest.Start(t)
		g := startAbused(t, false, server, map[string]block{"flood": scarce(byHeader())})
		long := strings.Repeat("x", 64<<10)
		before := g.heap()
		require.Equal(t, map[string]int{"418": 1000}, flood(t, g, "/flood", 1000, func(i int) string { return long + fmt.Sprint(i) }))
		grown := g.heap() - before
		t.Logf("the gateway's heap grew by %d KB, and Redis used %s", grown>>10, peak(server))
		require.Less(t, grown, int64(10<<20))
		require.Equal(t, int64(1000), server.Int("DBSIZE"))
	})
}

func peak(server *redistest.Server) string {
	for _, line := range strings.Fields(server.Text("INFO", "memory")) {
		if size, ok := strings.CutPrefix(line, "used_memory_peak_human:"); ok {
			return size
		}
	}
	return "?"
}

func TestAbuse_thousandsOfNamesComeAndGo(t *testing.T) {
	const names = 1000
	t.Parallel() // it waits for long
	up, server := startUpstream(t), redistest.Start(t)
	many := func(names int) block {
		routers, middlewares := block{}, block{}
		for i := range names {
			name := fmt.Sprint("name-", i)
			middlewares[name] = block{"plugin": block{"resilience": block{
				"name": name, "redis": redisBlock(server), "circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"},
			}}}
			routers[name] = block{
				"rule": "PathPrefix(`/" + name + "/`)", "entryPoints": []string{"web"}, "middlewares": []string{name, "strip"}, "service": "upstream",
			}
		}
		middlewares["strip"] = block{"stripPrefixRegex": block{"regex": []string{"/name-[0-9]+"}}}
		return block{"routers": routers, "middlewares": middlewares}
	}
	g := startReloadable(t, up, many(1))
	before := g.level(server)
	g.reload(many(names))
	for i := range names {
		path, want := "ok", http.StatusOK
		if i%2 == 0 {
			path, want = "fail", http.StatusInternalServerError
		}
		require.Equal(t, want, g.get(fmt.Sprintf("/name-%d/%s", i, path)).status)
	}
	full := g.level(server)
	require.Less(t, full.heap-before.heap, int64(160<<20), "some 145 KB for a router and its circuit")
	require.LessOrEqual(t, full.connections, before.connections+8)
	for i := range names {
		require.Equal(t, []int{503, 200}[i%2], g.get(fmt.Sprintf("/name-%d/ok", i)).status, "each has a circuit of its own: %d", i)
	}
	g.reload(many(1))
	time.Sleep(32 * time.Second) // what is not used any more is let go after half a minute
	after := g.level(server)
	// Traefik itself keeps some of what its thousand routers needed.
	require.Less(t, after.heap-before.heap, (full.heap-before.heap)/2)
}
