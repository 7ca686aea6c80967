package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// echo starts what answers each command with an error that holds all words of the command.
func echo(t *testing.T, code string) string {
	return listen(t, func(c net.Conn) { echoOn(c, code) })
}

func echoOn(c net.Conn, code string) {
	reader := bufio.NewReader(c)
	number := func() (n int, err error) {
		line, err := reader.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.Trim(line, "*$\r\n"))
	}
	for {
		count, err := number()
		if err != nil {
			return
		}
		var words []string
		for range count {
			length, err := number()
			if err != nil {
				return
			}
			word := make([]byte, length+2)
			if _, err := io.ReadFull(reader, word); err != nil {
				return
			}
			words = append(words, strings.Join(strings.Fields(string(word)), " "))
		}
		fmt.Fprintf(c, "-%s %s\r\n", code, strings.Join(words, " "))
	}
}

// Redis repeats in its errors what it was sent, and that holds the API keys of clients.
func TestRefusing_noKeyOfAClientIsLogged(t *testing.T) {
	t.Parallel()
	renamed := func(commands ...string) string {
		var args []string
		for _, command := range commands {
			args = append(args, "--rename-command", command, "")
		}
		return redistest.Start(t, args...).Addr()
	}
	restricted := func(right string) string {
		server := redistest.Start(t)
		server.Do("ACL", "SETUSER", "default", right)
		return server.Addr()
	}
	const sentinelOrRenamed = "is this a Sentinel, or was the command renamed?"
	rows := []struct{ name, address, reason string }{
		{"evalsha", renamed("EVALSHA"), "redis does not know EVALSHA: " + sentinelOrRenamed},
		{"eval", renamed("EVAL", "SCRIPT"), "redis does not know EVAL: " + sentinelOrRenamed},
		{"set", renamed("SET"), "redis does not know a command that our scripts call: was it renamed?"},
		{"noevalsha", restricted("-evalsha"), "NOPERM: the user may not run EVALSHA"},
		{"noset", restricted("-set"), "NOPERM: the user may not run a command that our scripts call"},
		{"nokeys", restricted("resetkeys"), "NOPERM: the user may not access the keys below keyPrefix"},
		{"cluster", redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t)).Addr(),
			"CLUSTERDOWN: this Redis Cluster does not serve all slots"},
		{"moved", echo(t, "MOVED 1"), "MOVED: this is a Redis Cluster; write redis.cluster: true"},
		{"loading", echo(t, "LOADING"), "LOADING: redis is loading its data"},
		{"odd", echo(t, "ERR"), ""},
		{"odder", echo(t, "sk_live_5f3a9c"), ""},
	}
	plugins := map[string]block{}
	for _, row := range rows {
		plugins[row.name] = block{
			"redis":          block{"address": row.address, "timeout": patience, "dialTimeout": patience},
			"rateLimit":      block{"capacity": 20, "refillRate": 1, "refillPeriod": "1h", "sourceCriterion": block{"requestHeaderName": "X-Api-Key"}},
			"circuitBreaker": block{"failureThreshold": 3},
		}
	}
	g := startTraefik(t, options{upstream: startUpstream(t), dynamic: writeRows(t, plugins), change: func(static map[string]any) {
		gateway.Set(static, "DEBUG", "log", "level")
	}})
	for i := range 5 {
		for _, row := range rows {
			for _, path := range []string{"", "/fail"} {
				request, err := http.NewRequest(http.MethodGet, g.url("/"+row.name+path), nil)
				require.NoError(t, err)
				request.Header.Set("X-Api-Key", fmt.Sprintf("sk_live_5f3a9c%d", i))
				require.NotEqual(t, 429, send(request).status)
			}
		}
	}
	away := map[string][]string{}
	for _, event := range g.events("redis unavailable") {
		away[event["middleware"]] = append(away[event["middleware"]], event["reason"])
	}
	for _, row := range rows {
		if row.reason == "" {
			require.Empty(t, away[row.name], "an error that is about one call")
			continue
		}
		require.Equal(t, []string{row.reason}, away[row.name], row.name)
	}
	odd := g.events("unexpected redis reply")
	require.NotEmpty(t, odd)
	for _, event := range odd {
		require.Equal(t, "redis answered with an unknown error; its text is left out because it may contain a client's key", event["reason"])
	}
	require.LessOrEqual(t, len(odd), 2*10, "a line a second for each middleware, and not for each client")
	require.Contains(t, g.log.String(), `"level":"debug"`)
	require.NotContains(t, g.log.String(), "sk_live")
	require.NotContains(t, g.log.String(), "5f3a9c")
}

// Redis closes the connections while a failing request is at the service, each time.
func TestIdle_noFailureIsLostWithAConnection(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		path  string
		close func(server *redistest.Server)
	}{
		{"timeout 1", "/proxy/status/500?seconds=2.3", func(*redistest.Server) {}},
		{"CLIENT KILL", "/proxy/status/500?seconds=0.3", func(server *redistest.Server) {
			time.Sleep(100 * time.Millisecond)
			server.Do("CLIENT", "KILL", "TYPE", "normal")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--timeout", "1")
			g := startTraefik(t, options{upstream: startUpstream(t), plugin: block{
				"redis": redisBlock(server), "circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "1h"},
			}})
			var got []int
			for range 6 {
				answered := make(chan int)
				go func() { answered <- g.get(row.path).status }()
				row.close(server)
				got = append(got, <-answered)
			}
			require.Equal(t, []int{500, 500, 500, 503, 503, 503}, got)
			require.Equal(t, "open", server.Hash(breakerKey)["state"])
			require.Empty(t, g.events("redis unavailable"))
		})
	}
}

// A Redis that takes 900 ms for an answer is asked by the first request, which has 1500 ms: time for one answer, and on a busy machine.
func TestSlow_aFirstRequestIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	far, err := gateway.StartDelay(server.Addr(), 900*time.Millisecond)
	require.NoError(t, err)
	t.Cleanup(far.Stop)
	g := startTraefik(t, options{upstream: startUpstream(t), plugin: block{
		"redis": block{"address": far.Address, "timeout": "1500ms"}, "rateLimit": block{"capacity": 5, "refillRate": 1, "refillPeriod": "1h"},
	}})
	var got []int
	for range 6 {
		got = append(got, g.get("/proxy/ok").status)
	}
	require.Equal(t, []int{200, 200, 200, 200, 200, 429}, got)
	require.Empty(t, g.events("redis unavailable"))
	require.Contains(t, server.Text("INFO", "commandstats"), "cmdstat_evalsha")
	require.NotContains(t, server.Text("INFO", "commandstats"), "cmdstat_eval:")
}
