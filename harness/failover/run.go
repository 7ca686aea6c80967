// Package failover has gateways work while the server that holds their state changes: with Sentinel, and in a Redis Cluster.
package failover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	gateways = 2
	settles  = time.Second            // before and after each change
	backIn   = 2 * time.Second        // after a failover
	machine  = 100 * time.Millisecond // what a request may take on top of one timeout
	inFlight = 2 * gateways           // clients of the scarce limit
)

// RunSentinel has two gateways follow a master that three sentinels watch, through the changes of these names, or all.
func RunSentinel(t *testing.T, root string, changes ...string) {
	group := redistest.StartGroup(t, 3, 3, down)
	s := &stage{t: t, group: group}
	connection := block{
		"address": group.Addresses(), "sentinel": block{"master": redistest.MasterName}, "timeout": timeout.String(),
		"username": redistest.GatewayUser, "password": redistest.GatewayUser,
	}
	runChanges(t, root, s, connection, names{"scarce", "plenty", "open", "many", "wide"}, pick(Sentinels, changes))
}

// RunCluster has two gateways follow the node of a cluster of six that serves their slots, through the changes of these names, or all.
func RunCluster(t *testing.T, root string, changes ...string) {
	cluster := redistest.StartCluster(t, 3, true, 2*down)
	n := onOneNode(cluster, cluster.Nodes[0])
	s := &stage{t: t, cluster: cluster, keys: []string{"resilience:{" + n.many + "}:", "resilience:{" + n.wide + "}:"}}
	connection := block{
		"address": cluster.Nodes[0].Addr() + "," + cluster.Nodes[4].Addr(), "cluster": "true", "timeout": timeout.String(),
	}
	runChanges(t, root, s, connection, n, pick(Clusters, changes))
}

func runChanges(t *testing.T, root string, s *stage, connection block, n names, changes []Change) {
	require.NotEmpty(t, changes)
	s.awaitReady()
	origin := startOrigin(t)
	var members []*member
	for range gateways {
		members = append(members, startMember(t, root, origin, connection, n))
	}
	late := redistest.Late(t)
	l := startLoad(members, n)
	defer l.end()
	for _, m := range members {
		require.Eventually(t, func() bool {
			l.get("http://"+m.web+"/"+n.open+"/fail", "open")
			return l.get("http://"+m.web+"/"+n.open, "open").status == 503
		}, 60*time.Second, 50*time.Millisecond, "the circuit opens")
	}
	time.Sleep(settles) // the bucket is empty, and no answer is from before the opening
	begun := time.Now()
	lost := 0
	for _, change := range changes {
		t.Run(change.Name, func(t *testing.T) {
			s.t = t
			follow(t, s, members, l, change, late)
		})
		if change.Loses {
			lost++
		}
		s.t = t
	}
	seen := l.since(begun)
	t.Logf("%.0f s: %v", time.Since(begun).Seconds(), counts(seen))
	judgeLimit(t, seen, members, lost)
	for _, m := range members {
		assert.Zero(t, m.log.panics, m.log)
	}
}

// follow makes one change, and requires what is promised.
func follow(t *testing.T, s *stage, members []*member, l *load, change Change, late func() time.Duration) {
	s.awaitReady()
	require.Eventually(t, func() bool { return available(members) }, 60*time.Second, 10*time.Millisecond)
	time.Sleep(settles)
	begun := time.Now()
	pings := startPings(s.servers())
	change.begin(s)
	announced := time.Now()
	server := s.master
	if !change.Blind {
		server = s.current()
	}
	before := evaluated(server)
	require.Eventually(t, func() bool { return available(members) && evaluated(server) > before+20 }, 60*time.Second, 5*time.Millisecond)
	back := time.Since(announced)
	time.Sleep(settles)
	seen := l.since(begun)
	ours, plain := slowest(seen)
	allowance := late()
	var lines []string
	for i, m := range members {
		byStore := map[string]int{}
		for _, e := range m.log.since(begun) {
			lines = append(lines, fmt.Sprintf("%d %s: %s", i, e.middleware, e.message))
			byStore[e.middleware]++
		}
		for name, n := range byStore {
			assert.LessOrEqual(t, n, 2, "lines of %s", name)
		}
	}
	t.Logf("announced after %d ms, back %d ms later; slowest %d ms, without the middleware %d ms; %v; %q", announced.Sub(begun).Milliseconds(),
		back.Milliseconds(), ours.Milliseconds(), plain.Milliseconds(), counts(seen), lines)
	for kind := range counts(seen) {
		assert.Contains(t, []string{"scarce 200", "scarce 429", "plenty 200", "open 503", "many 200", "wide 200", "plain 200"}, kind)
	}
	assert.Less(t, ours, timeout+machine+plain+allowance, "the slowest answer")
	assert.Less(t, back, backIn+allowance, "back after the announcement")
	answered := pings.end()
	t.Logf("the slowest Redis answered in %d ms", answered.Milliseconds())
	if change.Quiet && answered < timeout/3 {
		assert.Empty(t, lines, "Redis was never unavailable")
	}
	if change.Works {
		judgeLeft(t, s.master, announced.Add(backIn+allowance))
	}
	change.end(s)
}

// judgeLeft requires that no gateway has a former master run a script from a time on.
func judgeLeft(t *testing.T, former *redistest.Server, since time.Time) {
	time.Sleep(time.Until(since))
	before := evaluated(former)
	time.Sleep(settles)
	assert.Equal(t, before, evaluated(former), "scripts that the former master has run")
}

func available(members []*member) bool {
	for _, m := range members {
		if !m.log.available() {
			return false
		}
	}
	return true
}

// evaluated returns how many scripts a server has run.
func evaluated(server *redistest.Server) int {
	text := server.Text("INFO", "commandstats")
	var n int
	for _, line := range strings.Split(text, "\r\n") {
		if _, err := fmt.Sscanf(line, "cmdstat_evalsha:calls=%d,", &n); err == nil {
			return n
		}
	}
	return 0
}

// judgeLimit requires that the scarce bucket never ran below empty, with a full bucket more for each time that data may have been lost, and, while
// a gateway had no Redis, with the rate once more for it.
func judgeLimit(t *testing.T, seen []answered, members []*member, lost int) {
	last := seen[0].sent
	level := 2.0 + rate // empty at the beginning, but for what a second adds
	level += float64(lost * capacity)
	lowest := level
	for _, a := range seen {
		if a.kind != "scarce" || a.status != 200 {
			continue
		}
		factor := 1.0
		for _, m := range members {
			if m.log.unavailableAt(a.sent) {
				factor++
			}
		}
		level += rate * factor * a.sent.Sub(last).Seconds()
		level--
		last = a.sent
		lowest = min(lowest, level)
	}
	t.Logf("at least %.1f of %d more tokens were left", lowest, lost*capacity)
	assert.GreaterOrEqual(t, lowest, -float64(inFlight), "more than was promised")
}
