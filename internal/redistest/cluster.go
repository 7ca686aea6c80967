package redistest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// slots is how many a cluster has.
const slots = 16384

// Cluster is a Redis Cluster. The first half of the nodes are masters at the beginning, each with as many slots; the others
// are their replicas, in the same order.
type Cluster struct {
	t     testing.TB
	Nodes []*Server
}

// StartCluster starts a cluster of some masters, each with a replica or none. It finds a node down after a while without
// answers. The arguments are the nodes'.
func StartCluster(t testing.TB, masters int, replicas bool, down time.Duration, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	count := masters
	if replicas {
		count = 2 * masters
	}
	var buses []string
	for len(c.Nodes) < count {
		bus := FreePort(t)
		buses = append(buses, bus)
		c.Nodes = append(c.Nodes, Start(t, append([]string{
			"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", fmt.Sprint(down.Milliseconds()),
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
		}, args...)...))
	}
	for i, node := range c.Nodes {
		node.Do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i < masters {
			node.Do("CLUSTER", "ADDSLOTSRANGE", i*slots/masters, (i+1)*slots/masters-1)
		}
		if i > 0 {
			c.Nodes[0].Do("CLUSTER", "MEET", "127.0.0.1", node.Port(), buses[i])
		}
	}
	c.await(func(node *Server) bool {
		return strings.Contains(node.Text("CLUSTER", "INFO"), fmt.Sprint("cluster_known_nodes:", count))
	})
	for i := masters; i < count; i++ {
		c.Nodes[i].Do("CLUSTER", "REPLICATE", c.Nodes[i-masters].Text("CLUSTER", "MYID"))
	}
	c.AwaitReady()
	return c
}

// await waits until something is true of all nodes.
func (c *Cluster) await(is func(node *Server) bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		for _, node := range c.Nodes {
			if !is(node) {
				return false
			}
		}
		return true
	}, 2*time.Minute, 20*time.Millisecond)
}

// AwaitReady waits until all nodes are up and serve all slots, and all replicas have their masters' data.
func (c *Cluster) AwaitReady() {
	c.t.Helper()
	c.await(func(node *Server) bool {
		info, nodes := node.Text("CLUSTER", "INFO"), node.Text("CLUSTER", "NODES")
		return strings.Contains(info, "cluster_state:ok") && !strings.Contains(nodes, "fail") && !strings.Contains(nodes, "disconnected") &&
			!strings.Contains(node.Text("INFO", "replication"), "master_link_status:down")
	})
}

// Addresses returns the addresses of all nodes, with commas.
func (c *Cluster) Addresses() string {
	var all []string
	for _, node := range c.Nodes {
		all = append(all, node.Addr())
	}
	return strings.Join(all, ",")
}

// Owner returns the node that serves a key's slot according to another node, or nil.
func (c *Cluster) Owner(key string, as *Server) *Server {
	slot := as.Int("CLUSTER", "KEYSLOT", key)
	ranges, err := redis.Values(as.Do("CLUSTER", "SLOTS"), nil)
	require.NoError(c.t, err)
	for _, one := range ranges {
		fields := one.([]any)
		if fields[0].(int64) > slot || slot > fields[1].(int64) {
			continue
		}
		port := fmt.Sprint(fields[2].([]any)[1])
		for _, node := range c.Nodes {
			if node.Port() == port {
				return node
			}
		}
	}
	return nil
}

// TakeOver has a replica take over a key's slot by hand, and calls do until it has. Redis gives up if that takes longer than five
// seconds, as on a busy machine: then it is tried again.
func (c *Cluster) TakeOver(key string, replica *Server, do func()) {
	c.t.Helper()
	asked := time.Time{}
	for end := time.Now().Add(60 * time.Second); c.Owner(key, replica) != replica; {
		require.True(c.t, time.Now().Before(end), "the replica has not taken over")
		if time.Since(asked) > 6*time.Second {
			replica.Do("CLUSTER", "FAILOVER")
			asked = time.Now()
		}
		do()
	}
}

// Migrate moves a key's slot from its owner to another node, some keys at a time, with a pause after each time.
func (c *Cluster) Migrate(key string, to *Server, keys int, pause time.Duration) {
	c.t.Helper()
	from := c.Owner(key, to)
	slot := from.Int("CLUSTER", "KEYSLOT", key)
	source, target := from.Text("CLUSTER", "MYID"), to.Text("CLUSTER", "MYID")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	for {
		found, err := redis.Strings(from.Do("CLUSTER", "GETKEYSINSLOT", slot, keys), nil)
		require.NoError(c.t, err)
		if len(found) == 0 {
			break
		}
		args := []any{"127.0.0.1", to.Port(), "", 0, 5000, "KEYS"}
		for _, one := range found {
			args = append(args, one)
		}
		from.Do("MIGRATE", args...)
		time.Sleep(pause)
	}
	to.Do("CLUSTER", "SETSLOT", slot, "NODE", target)
	from.Do("CLUSTER", "SETSLOT", slot, "NODE", target)
}
