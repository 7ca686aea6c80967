package failover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const (
	down      = 500 * time.Millisecond // after which a server without answers is taken to be down
	mostLater = 60 * time.Second       // for a failover
)

// Change is one way in which the server that holds the state changes.
type Change struct {
	Name  string
	Loses bool // data may be lost, so that each bucket may be full once
	Quiet bool // no gateway may find Redis unavailable
	Blind bool // no sentinel is up
	Works bool // the former master goes on answering

	// begin makes the change and returns when it is complete: a new master is announced, or the former one is back.
	begin func(s *stage)
	// end brings everything up again.
	end func(s *stage)
}

// stage is a Redis of several servers, and which of them holds the state.
type stage struct {
	t       testing.TB
	group   *redistest.Group   // or nil
	cluster *redistest.Cluster // or nil
	keys    []string           // of the cluster: which slots; the first is what is asked about
	master  *redistest.Server
}

func (s *stage) servers() []*redistest.Server {
	if s.group != nil {
		return s.group.Servers
	}
	return s.cluster.Nodes
}

// current returns the server that holds the state, according to the others.
func (s *stage) current() *redistest.Server {
	if s.group != nil {
		return s.group.Announced(0)
	}
	return s.cluster.Owner(s.keys[0], s.other())
}

// other returns a master that is not the one with the state.
func (s *stage) other() *redistest.Server { return s.node("role:master") }

// replica returns the replica of the cluster's node with the state.
func (s *stage) replica() *redistest.Server { return s.node("master_port:" + s.master.Port()) }

// node returns a node of the cluster, other than the one with the state, which says this of its replication.
func (s *stage) node(says string) *redistest.Server {
	s.t.Helper()
	for _, node := range s.cluster.Nodes {
		if node != s.master && strings.Contains(node.Text("INFO", "replication"), says+"\r\n") {
			return node
		}
	}
	require.FailNow(s.t, "no node is "+says)
	return nil
}

// awaitAnother waits until another server is announced.
func (s *stage) awaitAnother() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		current := s.current()
		return current != nil && current != s.master
	}, mostLater, 5*time.Millisecond, "a failover")
}

// awaitReady waits until everything is up, and notes which server holds the state.
func (s *stage) awaitReady() {
	s.t.Helper()
	if s.group != nil {
		s.group.AwaitReady()
		s.master = s.group.Announced(0)
		return
	}
	s.cluster.AwaitReady()
	s.master = s.cluster.Owner(s.keys[0], s.cluster.Nodes[0])
}

// moveSlots moves the slots of the cluster to another node, one after another. Meanwhile no node answers most calls of the wide limit.
func moveSlots(s *stage) {
	to := s.other()
	for _, key := range s.keys {
		s.cluster.Migrate(key, to, 10, 100*time.Millisecond)
	}
}

func run(s *stage)    { s.master.Run() }
func resume(s *stage) { s.master.Resume() }
func nothing(*stage)  {}

// Sentinels are the changes of a master that three sentinels watch.
var Sentinels = []Change{
	{Name: "killed", Loses: true, begin: func(s *stage) { s.master.Kill(); s.awaitAnother() }, end: run},
	{Name: "demoted by hand", Loses: true, Works: true, begin: func(s *stage) { s.group.FailOver(1, s.master) }, end: nothing},
	{Name: "stopped", Loses: true, begin: func(s *stage) { s.master.Pause(); s.awaitAnother() }, end: resume},
	{Name: "killed, with one of the sentinels stopped", Loses: true, begin: func(s *stage) {
		s.group.Sentinels[2].Pause()
		s.master.Kill()
		s.awaitAnother()
	}, end: func(s *stage) { s.group.Sentinels[2].Resume(); s.master.Run() }},
	{Name: "cut off from the sentinels", Loses: true, Quiet: true, Works: true, begin: func(s *stage) {
		s.group.CutOff(s.master)
		s.awaitAnother()
	}, end: func(s *stage) { s.group.Rejoin(s.master) }},
	{Name: "all sentinels killed", Quiet: true, Blind: true, begin: func(s *stage) {
		for _, sentinel := range s.group.Sentinels {
			sentinel.Kill()
		}
		time.Sleep(3 * time.Second)
	}, end: func(s *stage) {
		for _, sentinel := range s.group.Sentinels {
			sentinel.Run()
		}
	}},
	{Name: "restarted while no sentinel is up", Loses: true, Blind: true, begin: func(s *stage) {
		for _, sentinel := range s.group.Sentinels {
			sentinel.Kill()
		}
		s.master.Restart()
	}, end: func(s *stage) {
		for _, sentinel := range s.group.Sentinels {
			sentinel.Run()
		}
	}},
}

// Clusters are the changes of a node that serves the slot of the state.
var Clusters = []Change{
	{Name: "killed", Loses: true, begin: func(s *stage) { s.master.Kill(); s.awaitAnother() }, end: run},
	{Name: "slots moved to another node", Quiet: true, begin: moveSlots, end: nothing},
	{Name: "slots moved back", Quiet: true, begin: moveSlots, end: nothing},
	{Name: "stopped", Loses: true, begin: func(s *stage) { s.master.Pause(); s.awaitAnother() }, end: resume},
	{Name: "handed over by hand", Quiet: true, begin: func(s *stage) {
		s.cluster.TakeOver(s.keys[0], s.replica(), func() { time.Sleep(5 * time.Millisecond) })
		s.awaitAnother()
	}, end: nothing},
	{Name: "taken over by force", Loses: true, begin: func(s *stage) {
		s.replica().Do("CLUSTER", "FAILOVER", "TAKEOVER")
		s.awaitAnother()
	}, end: nothing},
}

// pick returns the changes of these names, or all if there are none.
func pick(all []Change, names []string) []Change {
	if len(names) == 0 {
		return all
	}
	var chosen []Change
	for _, name := range names {
		for _, c := range all {
			if c.Name == name {
				chosen = append(chosen, c)
			}
		}
	}
	return chosen
}

// onOneNode returns names whose slots the node serves.
func onOneNode(c *redistest.Cluster, node *redistest.Server) names {
	next := func(prefix string) string {
		for i := 0; ; i++ {
			name := fmt.Sprint(prefix, i)
			if c.Owner("{"+name+"}", node) == node {
				return name
			}
		}
	}
	return names{next("scarce"), next("plenty"), next("open"), next("many"), next("wide")}
}
