//go:build !yaegi

package store

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// secret is a client's API key, which is part of its bucket's key.
const secret = "sk_live_5f3a9c"

var write = NewScript(`redis.call('SET', KEYS[1], ARGV[1]) return '1'`)

func TestUnavailable_saysWhatIsWrong(t *testing.T) {
	rows := []struct {
		name   string
		start  func(t *testing.T) string
		reason string
	}{
		{"EVALSHA is renamed", renamed("EVALSHA"), "redis does not know EVALSHA: is this a Sentinel, or was the command renamed?"},
		{"EVALSHA and SCRIPT are renamed", renamed("EVALSHA", "SCRIPT"), "redis does not know EVALSHA: is this a Sentinel, or was the command renamed?"},
		{"EVAL and SCRIPT are renamed", renamed("EVAL", "SCRIPT"), "redis does not know EVAL: is this a Sentinel, or was the command renamed?"},
		{"a command of a script is renamed", renamed("SET"), "redis does not know a command that our scripts call: was it renamed?"},
		{"a Sentinel", startSentinel, "redis does not know EVALSHA: is this a Sentinel, or was the command renamed?"},
		{"a cluster without slots", startNode, "CLUSTERDOWN: this Redis Cluster does not serve all slots"},
		{"no right to run scripts", restricted("-evalsha"), "NOPERM: the user may not run EVALSHA"},
		{"no right to a command of a script", restricted("-set"), "NOPERM: the user may not run a command that our scripts call"},
		{"no right to the key", restricted("resetkeys"), "NOPERM: the user may not access the keys below keyPrefix"},
		{"not a Redis", startHTTP, "the server at this address is not a Redis, or it requires TLS"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s, n := newStore(t, Settings{Address: row.start(t)})
			call := &Call{Script: write, Keys: []string{"test:{gateway}:bucket:header:" + secret}, Args: []string{secret}}
			err := s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout))
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, call.Err, ErrUnavailable)
			require.NotContains(t, err.Error()+call.Err.Error(), secret)
			n.await(t, 1)
			require.Equal(t, row.reason, strings.TrimSuffix(n.get(0).Error(), ": SET"), "later versions name the command of a script")
			awaitFailedChecks(t, s)
			require.Equal(t, 1, n.count(), "it stays unavailable")
		})
	}
}

func renamed(commands ...string) func(t *testing.T) string {
	var args []string
	for _, command := range commands {
		args = append(args, "--rename-command", command, "")
	}
	return func(t *testing.T) string { return redistest.Start(t, args...).Addr() }
}

func restricted(right string) func(t *testing.T) string {
	return func(t *testing.T) string {
		server := redistest.Start(t)
		server.Do("ACL", "SETUSER", "default", right)
		return server.Addr()
	}
}

func startNode(t *testing.T) string {
	return redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t)).Addr()
}

func startSentinel(t *testing.T) string { return redistest.StartSentinel(t, "").Addr() }

func startHTTP(t *testing.T) string {
	return startAnswering(t, func(string) string { return "HTTP/1.1 400 Bad Request\r\n\r\n" })
}

// startAnswering starts a server that answers each command with what answer returns for the command's words, separated by
// spaces.
func startAnswering(t *testing.T, answer func(command string) string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go answerCommands(c, answer)
		}
	}()
	return listener.Addr().String()
}

func answerCommands(c net.Conn, answer func(command string) string) {
	defer c.Close()
	reader := bufio.NewReader(c)
	number := func() int {
		line, _ := reader.ReadString('\n')
		n, err := strconv.Atoi(strings.Trim(line, "*$\r\n"))
		if err != nil {
			return -1
		}
		return n
	}
	for {
		n := number()
		if n < 0 {
			return
		}
		var words []string
		for i := 0; i < n; i++ {
			word := make([]byte, number()+2)
			for at := 0; at < len(word); {
				m, err := reader.Read(word[at:])
				if err != nil {
					return
				}
				at += m
			}
			words = append(words, string(word[:len(word)-2]))
		}
		if _, err := c.Write([]byte(answer(strings.Join(words, " ")))); err != nil {
			return
		}
	}
}

// Two nodes have half of the slots each: that checks succeed on one of them must not make it available.
func TestUnavailable_aClusterNodeThatServesSomeKeys(t *testing.T) {
	first := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t))
	port := redistest.FreePort(t)
	second := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", port)
	first.Do("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
	second.Do("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
	first.Do("CLUSTER", "MEET", "127.0.0.1", second.Port(), port)
	require.Eventually(t, func() bool {
		return strings.Contains(first.Text("CLUSTER", "INFO")+second.Text("CLUSTER", "INFO"), "cluster_state:ok") &&
			!strings.Contains(first.Text("CLUSTER", "INFO")+second.Text("CLUSTER", "INFO"), "cluster_state:fail")
	}, 10*time.Second, 20*time.Millisecond)

	s, n := newStore(t, Settings{Address: second.Addr()})
	require.GreaterOrEqual(t, first.Int("CLUSTER", "KEYSLOT", "test:check"), int64(8192), "the second serves the key of a usual check")
	tag := 0
	for first.Int("CLUSTER", "KEYSLOT", fmt.Sprint(tag)) >= 8192 {
		tag++
	}
	call := &Call{Script: write, Keys: []string{fmt.Sprintf("test:{%d}:bucket:header:%s", tag, secret)}, Args: []string{"1"}}
	require.ErrorIs(t, s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout)), ErrUnavailable)
	n.await(t, 1)
	require.EqualError(t, n.get(0), "MOVED: this is a Redis Cluster; write redis.cluster: true")
	awaitFailedChecks(t, s)
	require.Equal(t, 1, n.count())
}

func TestUnavailable_whileAScriptLacksACommand(t *testing.T) {
	server := redistest.Start(t)
	hash := NewScript(`redis.call('HSET', KEYS[1], 'a', '1') return '1'`)
	server.Do("ACL", "SETUSER", "default", "-hset")
	s, n := newStore(t, Settings{Address: server.Addr()})
	run := func() error {
		return s.Run([]*Call{{Script: hash, Keys: []string{"test:h"}}}, time.Now().Add(s.settings.Timeout))
	}
	require.ErrorIs(t, run(), ErrUnavailable)
	awaitFailedChecks(t, s)
	require.Equal(t, 1, n.count(), "though it writes other keys")
	server.Do("ACL", "SETUSER", "default", "+hset")
	awaitAvailable(t, s)
	require.NoError(t, run())
	require.Equal(t, int64(0), server.Int("EXISTS", "test:check"), "a check leaves nothing")
}

// checkAllScript must call every command that the engines' scripts call, but for those of sorted sets: a gateway that may not run them has no
// standing leases, and Redis serves it otherwise.
func TestCheckAll_callsWhatTheScriptsCall(t *testing.T) {
	called := map[string]bool{}
	for _, pattern := range []string{"../../breaker/*.go", "../../ratelimit/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, match := range regexp.MustCompile(`(?:redis\.p?call|takeFirst)\('([A-Z]+)'`).FindAllStringSubmatch(string(text), -1) {
				called[match[1]] = true
			}
		}
	}
	require.Greater(t, len(called), 7, called)
	for command := range called {
		if strings.HasPrefix(command, "Z") {
			require.NotContains(t, checkAllScript.bySource, "'"+command+"'")
			continue
		}
		require.Contains(t, checkAllScript.bySource, "'"+command+"'")
		require.Contains(t, ourCommands, command)
	}
}

// A proxy before Redis may answer anything, also the client's key, which it was sent.
func TestErrors_containNothingOfAnAnswer(t *testing.T) {
	for _, answer := range []string{
		"-%s\r\n", "-ERR %s\r\n", "-LOADING %s\r\n", "-NOPERM '%s'\r\n", "-ERR unknown command '%s'\r\n", "-NOAUTH: %s\r\n", "-%s MOVED\r\n",
		"+%s\r\n", "$5\r\n%s\r\n", "%s\r\n", ":%s\r\n", "-ERR Error running script %s: -%s\r\n", "-ERR user_script:%s: 1\r\n",
		"-MOVED 1 %s\r\n", "*3\r\n$1\r\n%s\r\n", "-%s", "-ERR\x00%s\n",
	} {
		for _, at := range []string{"AUTH", "SELECT", "SCRIPT", "EVALSHA"} {
			answer, at := answer, at
			address := startAnswering(t, func(command string) string {
				if strings.HasPrefix(command, at) {
					return strings.ReplaceAll(answer, "%s", secret)
				}
				if strings.HasPrefix(command, "EVAL") {
					return "+1\r\n"
				}
				return "+OK\r\n"
			})
			s, n := newStore(t, Settings{Address: address, Username: "u", Password: secret, DB: 1})
			s.settings.Timeout = 20 * time.Millisecond
			call := &Call{Script: sum, Args: []string{secret, "1"}}
			err := s.Run([]*Call{call}, time.Now().Add(s.settings.Timeout))
			said := fmt.Sprint(err, call.Err)
			for i := 0; i < n.count(); i++ {
				said += fmt.Sprint(n.get(i))
			}
			require.NotContains(t, said, "sk_live", "%s: %q", at, answer)
			s.Close()
		}
	}
}

// The server announces a string of 500 MB, or does not end its line.
func TestRead_allocatesNothingForABadAnswer(t *testing.T) {
	for _, at := range []string{"AUTH", "SCRIPT", "EVALSHA"} {
		for _, answer := range []string{"$500000000\r\n", "*500000000\r\n", strings.Repeat("x", 1<<16)} {
			answer, at := answer, at
			t.Run(at+" "+answer[:4], func(t *testing.T) {
				address := startAnswering(t, func(command string) string {
					if strings.HasPrefix(command, at) {
						return strings.Repeat(answer, 1+(100<<20)/len(answer)*(len(answer)>>16))
					}
					return "+OK\r\n"
				})
				s, n := newStore(t, Settings{Address: address, Password: "p"})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := s.Run([]*Call{{Script: sum, Args: []string{"1", "1"}}}, time.Now().Add(s.settings.Timeout))
				require.ErrorIs(t, err, ErrUnavailable)
				n.await(t, 1)
				runtime.ReadMemStats(&after)
				server := 2 * uint64(100<<20) // which runs in this process
				require.Less(t, after.TotalAlloc-before.TotalAlloc, server+(60<<20))
			})
		}
	}
}

func stats(server *redistest.Server) map[string]string {
	calls := map[string]string{}
	for _, match := range regexp.MustCompile(`cmdstat_([a-z|]+):calls=(\d+),.*failed_calls=(\d+)`).FindAllStringSubmatch(server.Text("INFO", "commandstats"), -1) {
		calls[match[1]] = match[2] + " failed " + match[3]
	}
	return calls
}

func TestScripts_takeOneRoundTripEach(t *testing.T) {
	server := redistest.Start(t)
	first, second := NewScript(`return '1'`), NewScript(`return '2'`)
	s, _ := newStore(t, Settings{Address: server.Addr(), Timeout: patience})
	run := func(script *Script) {
		require.NoError(t, s.Run([]*Call{{Script: script}}, time.Now().Add(s.settings.Timeout)))
	}
	run(first)
	run(second)
	require.Equal(t, "2 failed 0", stats(server)["evalsha"])
	require.Empty(t, stats(server)["eval"])
	server.Do("SCRIPT", "FLUSH")
	run(first)
	require.Equal(t, "3 failed 1", stats(server)["evalsha"])
	require.Equal(t, "1 failed 0", stats(server)["eval"])
}

func TestRights_loadingScriptsIsNotNeeded(t *testing.T) {
	server := redistest.Start(t)
	for _, right := range []string{"-script", "-script|load"} {
		server.Do("ACL", "SETUSER", "gateway", "reset", "on", ">p", "~*", "+@all", right)
		server.Do("SCRIPT", "FLUSH")
		server.Do("ACL", "LOG", "RESET")
		server.Do("CONFIG", "RESETSTAT")
		s, n := newStore(t, Settings{Address: server.Addr(), Username: "gateway", Password: "p", Timeout: patience})
		for i := 0; i < 3; i++ {
			c, err := s.dialSafely()
			require.NoError(t, err)
			release(s, c)
			_, err = add(s, "1", "1")
			require.NoError(t, err)
		}
		require.Equal(t, 0, n.count())
		require.Equal(t, "3 failed 1", stats(server)["evalsha"])
		require.Equal(t, "1 failed 0", stats(server)["eval"])
		require.LessOrEqual(t, len(server.Do("ACL", "LOG").([]interface{})), 1, "not every connection tries")
	}
}

func TestRights_theseAreEnough(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		right, evals string
		loads        bool
	}{
		{"+script|load", "", true},
		{"-script|load", "1 failed 0", false},
	} {
		server.Do("ACL", "SETUSER", "gateway", "reset", "on", ">p", "~test:*", "+evalsha", "+eval", "+time", "+get", "+set", "+del", "+hgetall",
			"+hset", "+hdel", "+pttl", "+pexpire", row.right)
		server.Do("SCRIPT", "FLUSH")
		server.Do("CONFIG", "RESETSTAT")
		s, n := newStore(t, Settings{Address: server.Addr(), Username: "gateway", Password: "p", Timeout: patience})
		for i := 0; i < 3; i++ {
			_, err := add(s, "1", "1")
			require.NoError(t, err)
		}
		require.Equal(t, 0, n.count())
		require.Equal(t, row.evals, stats(server)["eval"])
		require.Equal(t, row.loads, stats(server)["script|load"] != "" && !strings.HasPrefix(stats(server)["script|load"], "0"))
		s.checkEverything = true
		c, err := s.dialAndCheck()
		require.NoError(t, err, "they are enough for the check of all commands")
		release(s, c)
	}
}
