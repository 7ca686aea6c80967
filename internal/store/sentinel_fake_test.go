//go:build !yaegi

package store

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// announcing starts a server that answers as a sentinel does, with the address of the server that is set.
func announcing(t *testing.T, announced *atomic.Value) string {
	return startAnswering(t, func(command string) string {
		if !strings.HasPrefix(command, "SENTINEL GET-MASTER-ADDR-BY-NAME") {
			return "-ERR unknown command\r\n"
		}
		host, port, _ := net.SplitHostPort(announced.Load().(string))
		return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(host), host, len(port), port)
	})
}

// An old master that cannot reach the sentinels goes on accepting writes. The connections to it end when the sentinels announce
// another one, and no call fails.
func TestSentinel_anOldMasterIsLeftThoughItWorks(t *testing.T) {
	first, second := redistest.Start(t), redistest.Start(t)
	first.Do("SET", "who", "1")
	second.Do("SET", "who", "2")
	var announced atomic.Value
	announced.Store(first.Addr())
	sentinels := []string{announcing(t, &announced), announcing(t, &announced), announcing(t, &announced)}
	s, n := newStore(t, Settings{Address: strings.Join(sentinels, ","), Sentinel: &SentinelSettings{Master: "m"}})
	ask := func() int64 {
		call := &Call{Script: who, Keys: []string{"who"}}
		require.NoError(t, runOne(s, call))
		return call.Reply[0]
	}
	require.Equal(t, int64(1), ask())
	late := redistest.Late(t)
	keepConnections(t, s, 8)
	busy, err := acquire(s, time.Now().Add(time.Second))
	require.NoError(t, err)
	lost := s.Lost()

	announced.Store(second.Addr())
	begun := time.Now()
	for ask() != 2 {
		require.Less(t, time.Since(begun), 1500*time.Millisecond+late())
	}
	release(s, busy)
	for i := 0; i < 20; i++ {
		require.Equal(t, int64(2), ask())
	}
	require.Greater(t, s.Lost(), lost)
	require.Equal(t, 0, n.count())
	require.Equal(t, 1, strings.Count(first.Text("CLIENT", "LIST", "TYPE", "normal"), "\n"), "the connections to it are closed")

	second.Do("REPLICAOF", "127.0.0.1", "1")
	announced.Store(first.Addr())
	call := &Call{Script: mark, Keys: []string{"k"}, Args: []string{"x"}, Once: true}
	require.NoError(t, runOne(s, call), "a demoted master refuses, and the call is made on the new one")
	require.Equal(t, int64(1), first.Int("EXISTS", "k"))
	require.Equal(t, 0, n.count())
}

// One that turns out to be a replica is not used while the old master works.
func TestSentinel_anAnnouncedReplicaIsNotUsed(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Port())
	var announced atomic.Value
	announced.Store(master.Addr())
	s, n := newUsedStore(t, Settings{Address: announcing(t, &announced), Sentinel: &SentinelSettings{Master: "m"}})
	announced.Store(replica.Addr())
	repeatFor(2*watchInterval+watchInterval/2, 5*time.Millisecond, func() {
		require.NoError(t, runOne(s, &Call{Script: mark, Keys: []string{"k"}, Args: []string{"x"}}))
	})
	require.Equal(t, 0, n.count())
}

// Sentinels that take connections and do not answer, as stopped ones do, and one that is out of date.
func TestSentinel_someThatDoNotAnswerAreNotWaitedFor(t *testing.T) {
	first, second := redistest.Start(t), redistest.Start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var previous, current atomic.Value
	previous.Store(first.Addr())
	current.Store(second.Addr())
	second.Do("SET", "who", "2")
	for _, row := range []struct {
		name      string
		sentinels []string
		most      time.Duration
	}{
		{"two agree", []string{listener.Addr().String(), announcing(t, &current), announcing(t, &current)}, 400 * time.Millisecond},
		{"two agree, one is out of date", []string{announcing(t, &previous), announcing(t, &current), announcing(t, &current)}, 400 * time.Millisecond},
		{"only one answers", []string{listener.Addr().String(), listener.Addr().String(), announcing(t, &current)}, time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			late := redistest.Late(t)
			s, _ := newStore(t, Settings{Address: strings.Join(row.sentinels, ","), Sentinel: &SentinelSettings{Master: "m"}})
			call := &Call{Script: who, Keys: []string{"who"}}
			begun := time.Now()
			require.NoError(t, s.Run([]*Call{call}, time.Now().Add(2*time.Second)))
			require.Equal(t, []int64{2}, call.Reply)
			require.Less(t, time.Since(begun), row.most+late())
		})
	}
}

// Whatever answers instead of a sentinel, nothing panics, and Redis is unavailable.
func TestSentinel_anyAnswer(t *testing.T) {
	for _, answer := range []string{
		"*2\r\n$1\r\na\r\n:1\r\n", "*1\r\n$1\r\na\r\n", "*2\r\n*0\r\n*0\r\n", "*2\r\n$-1\r\n$-1\r\n", "$-1\r\n", "*-1\r\n", "+OK\r\n", "\r\n", "*1000000000\r\n",
		"$1000000000\r\n", "$5\r\nab", "*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n", "HTTP/1.1 400 Bad Request\r\n", "-IDONTKNOW\r\n", "*200000\r\n" + strings.Repeat("$1\r\na\r\n", 200000),
	} {
		answer := answer
		s, n := newStore(t, Settings{
			Address: startAnswering(t, func(string) string { return answer }), Sentinel: &SentinelSettings{Master: "m"},
		})
		s.settings.DialTimeout = 100 * time.Millisecond
		requireUnavailable(t, s)
		n.await(t, 1)
		require.NotContains(t, n.get(0).Error(), "panic", answer)
		s.Close()
	}
}

// What docs/operations.md says a user needs, besides what every user of Redis does.
func TestRights_ofSeveralServers(t *testing.T) {
	const rights = "reset on >p ~test:* +evalsha +eval +time +get +set +del +hgetall +hset +hdel +pttl +pexpire +script|load "
	allow := func(server *redistest.Server, more string) {
		args := []any{"SETUSER", "gateway"}
		for _, rule := range strings.Fields(rights + more) {
			args = append(args, rule)
		}
		server.Do("ACL", args...)
	}
	master := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, "user default off\nuser asks on >p +sentinel|get-master-addr-by-name\nsentinel monitor m 127.0.0.1 "+master.Port()+" 1\n")
	settings := Settings{
		Address: sentinel.Addr(), Username: "gateway", Password: "p",
		Sentinel: &SentinelSettings{Master: "m", Username: "asks", Password: "p"},
	}
	allow(master, "")
	s, n := newStore(t, settings)
	requireUnavailable(t, s)
	n.await(t, 1)
	require.EqualError(t, n.get(0), "NOPERM: the user may not run ROLE")
	allow(master, "+role")
	s, _ = newStore(t, settings)
	requireAnswers(t, s)

	c := redistest.StartCluster(t, 2, false, 2*time.Second)
	for _, node := range c.Nodes {
		allow(node, "+cluster|slots +asking")
	}
	clustered := Settings{Address: c.Addresses(), Cluster: true, HashTag: "{a}", Username: "gateway", Password: "p"}
	s, n = newStore(t, clustered)
	step := func() {
		require.NoError(t, runOne(s, &Call{Script: mark, Keys: []string{"test:{a}:key"}, Args: []string{"x"}}))
	}
	step()
	moved := make(chan bool)
	go func() {
		c.Migrate("test:{a}:key", other(c, "test:{a}:key"), 1, 200*time.Millisecond)
		close(moved)
	}()
	require.Eventually(t, func() bool {
		step()
		select {
		case <-moved:
			return true
		default:
			return false
		}
	}, patience, 5*time.Millisecond)
	require.Equal(t, 0, n.count())
}

// A closed store leaves the sentinels alone.
func TestSentinel_aClosedStoreAsksNoMore(t *testing.T) {
	master := redistest.Start(t)
	var asked atomic.Int64
	host, port, _ := net.SplitHostPort(master.Addr())
	sentinel := startAnswering(t, func(string) string {
		asked.Add(1)
		return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(host), host, len(port), port)
	})
	s, _ := newUsedStore(t, Settings{Address: sentinel, Sentinel: &SentinelSettings{Master: "m"}})
	require.Eventually(t, func() bool { return asked.Load() >= 3 }, patience, time.Millisecond, "they are asked in the background")
	s.Close()
	before := asked.Load()
	repeatFor(2*watchInterval, 10*time.Millisecond, func() {})
	require.LessOrEqual(t, asked.Load(), before+1, "one that had begun")
	require.Equal(t, 1, strings.Count(master.Text("CLIENT", "LIST", "TYPE", "normal"), "\n"), "no connection is left but that which asks")
}
