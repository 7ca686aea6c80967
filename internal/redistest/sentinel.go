package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// MasterName is the name that sentinels of tests know their master by.
const MasterName = "mymaster"

// GatewayUser is a user of all servers of a group, and the password. Sentinels and replicas need none.
const GatewayUser = "gateway"

// Group is a master with replicas, and sentinels that watch them.
type Group struct {
	t         testing.TB
	Servers   []*Server // the first is the master at the beginning
	Sentinels []*Server
}

// StartGroup starts a group: some servers and sentinels, which find a master down after a while without answers. The arguments
// are the servers'.
func StartGroup(t testing.TB, servers, sentinels int, down time.Duration, args ...string) *Group {
	t.Helper()
	own := append([]string{"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--user", GatewayUser},
		"on", ">"+GatewayUser, "allkeys", "allchannels", "allcommands")
	args = append(own, args...)
	g := &Group{t: t, Servers: []*Server{Start(t, args...)}}
	master := g.Servers[0]
	for len(g.Servers) < servers {
		replica := Start(t, append([]string{"--replicaof", "127.0.0.1 " + master.Port()}, args...)...)
		replica.args = args // it starts again as what it is by then: perhaps the master
		g.Servers = append(g.Servers, replica)
	}
	for _, replica := range g.Servers[1:] {
		r := replica
		require.Eventually(t, func() bool { return strings.Contains(r.Text("INFO", "replication"), "master_link_status:up") },
			20*time.Second, 20*time.Millisecond)
	}
	g.startSentinels(sentinels, fmt.Sprintf(`sentinel monitor %[1]s 127.0.0.1 %[2]s %[3]d
sentinel down-after-milliseconds %[1]s %[4]d
sentinel failover-timeout %[1]s 4000
sentinel parallel-syncs %[1]s 2
`, MasterName, master.Port(), sentinels/2+1, down.Milliseconds()))
	return g
}

func (g *Group) startSentinels(count int, configuration string) {
	g.t.Helper()
	for len(g.Sentinels) < count {
		g.Sentinels = append(g.Sentinels, StartSentinel(g.t, configuration))
	}
	for _, sentinel := range g.Sentinels {
		s := sentinel
		require.Eventually(g.t, func() bool {
			fields, err := redis.StringMap(s.Do("SENTINEL", "MASTER", MasterName), nil)
			return err == nil && fields["num-other-sentinels"] == fmt.Sprint(count-1) && fields["num-slaves"] == fmt.Sprint(len(g.Servers)-1)
		}, 20*time.Second, 20*time.Millisecond, "the sentinels know each other and the replicas")
	}
}

// StartSentinel starts a sentinel with a configuration, to which its port and address are added.
func StartSentinel(t testing.TB, configuration string) *Server {
	t.Helper()
	s := &Server{t: t, port: FreePort(t), dir: t.TempDir()}
	s.sentinel = filepath.Join(s.dir, "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\n%s", s.port, s.dir, configuration)
	require.NoError(t, os.WriteFile(s.sentinel, []byte(text), 0o600))
	s.Run()
	t.Cleanup(s.Kill)
	return s
}

// Addresses returns the addresses of the sentinels, with commas.
func (g *Group) Addresses() string {
	var all []string
	for _, s := range g.Sentinels {
		all = append(all, s.Addr())
	}
	return strings.Join(all, ",")
}

// Announced returns the server that a sentinel announces as the master, or nil.
func (g *Group) Announced(sentinel int) *Server {
	pair, err := redis.Strings(g.Sentinels[sentinel].Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName), nil)
	require.NoError(g.t, err)
	for _, s := range g.Servers {
		if s.Port() == pair[1] {
			return s
		}
	}
	return nil
}

// AwaitMaster waits until the first sentinel announces another master than the given one, and returns it.
func (g *Group) AwaitMaster(previous *Server) *Server {
	g.t.Helper()
	var announced *Server
	require.Eventually(g.t, func() bool {
		announced = g.Announced(0)
		return announced != nil && announced != previous
	}, time.Minute, 5*time.Millisecond, "a failover")
	return announced
}

// FailOver has a sentinel make one of the replicas the master, by hand, and waits until the first sentinel announces it. A sentinel
// refuses for as long as it finds no replica fit, by what it asked them up to ten seconds ago, or gives up: then it is asked again.
func (g *Group) FailOver(sentinel int, master *Server) {
	g.t.Helper()
	c, err := redis.Dial("tcp", g.Sentinels[sentinel].Addr())
	require.NoError(g.t, err)
	defer c.Close()
	asked, answer := time.Time{}, error(nil)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if announced := g.Announced(0); announced != nil && announced != master {
			return
		}
		require.True(g.t, time.Now().Before(end), "no failover; the last answer was %v", answer)
		wait := 10 * time.Second // longer than a failover takes until it is given up
		if answer != nil {
			wait = 200 * time.Millisecond
		}
		if time.Since(asked) < wait {
			continue
		}
		_, answer = c.Do("SENTINEL", "FAILOVER", MasterName)
		asked = time.Now()
		if answer != nil {
			temporary := strings.HasPrefix(answer.Error(), "NOGOODSLAVE") || strings.HasPrefix(answer.Error(), "INPROG")
			require.True(g.t, temporary, answer)
		}
	}
}

// CutOff keeps all but the GatewayUser from a server, as a broken network might: sentinels and replicas find it down.
func (g *Group) CutOff(s *Server) {
	s.Login(GatewayUser, GatewayUser)
	s.Do("ACL", "SETUSER", "default", "off")
	s.Do("CLIENT", "KILL", "USER", "default")
}

// Rejoin ends a CutOff.
func (g *Group) Rejoin(s *Server) {
	s.Do("ACL", "SETUSER", "default", "on")
	s.options = nil
}

// AwaitReady waits until all servers are up and replicate from the announced master, as a failover requires.
func (g *Group) AwaitReady() {
	g.t.Helper()
	require.Eventually(g.t, func() bool {
		for i := range g.Sentinels {
			fields, err := redis.StringMap(g.Sentinels[i].Do("SENTINEL", "MASTER", MasterName), nil)
			if err != nil || fields["flags"] != "master" || g.Announced(i) != g.Announced(0) {
				return false
			}
		}
		info := g.Announced(0).Text("INFO", "replication")
		return strings.Contains(info, "role:master") && strings.Count(info, "state=online") == len(g.Servers)-1
	}, 2*time.Minute, 50*time.Millisecond, "all are up")
}
