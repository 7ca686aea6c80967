package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

var count = NewScript(`return '' .. redis.call('INCR', KEYS[1])`)

// newClusterStore returns a store for keys with the hash tag {a}.
func newClusterStore(t *testing.T, addresses string) (*Store, *notes) {
	return newStore(t, Settings{Address: addresses, Cluster: true, HashTag: "{a}"})
}

// countOnce counts a key up and returns its value.
func countOnce(s *Store, key string) (int64, error) {
	call := &Call{Script: count, Keys: []string{key}, Once: true}
	if err := runOne(s, call); err != nil {
		return 0, err
	}
	return call.Reply[0], nil
}

// other returns a node of the first half that does not serve the key.
func other(c *redistest.Cluster, key string) *redistest.Server {
	owner := c.Owner(key, c.Nodes[0])
	for _, node := range c.Nodes {
		if node != owner {
			return node
		}
	}
	return nil
}

// Any node is enough to find the one that serves the keys.
func TestCluster_anyNodeIsASeed(t *testing.T) {
	c := redistest.StartCluster(t, 3, false, 2*time.Second)
	for i, node := range c.Nodes {
		s, n := newClusterStore(t, "127.0.0.1:"+redistest.FreePort(t)+","+node.Addr())
		value, err := countOnce(s, "test:{a}:n")
		require.NoError(t, err)
		require.Equal(t, int64(i+1), value)
		require.Equal(t, 0, n.count())
	}
}

// A slot moves to another node and back while its keys are counted up. Every call counts once, and none fails.
func TestCluster_aSlotThatMovesIsFollowed(t *testing.T) {
	c := redistest.StartCluster(t, 2, false, 2*time.Second)
	s, n := newClusterStore(t, c.Nodes[0].Addr())
	const keys = 40
	expected := map[string]int64{}
	next := 0
	step := func() {
		key := fmt.Sprint("test:{a}:", next%keys)
		next++
		value, err := countOnce(s, key)
		require.NoError(t, err)
		expected[key]++
		require.Equal(t, expected[key], value, key)
	}
	for i := 0; i < keys; i++ {
		step()
	}
	for round := 0; round < 2; round++ {
		to := other(c, "test:{a}:0")
		moved := make(chan bool, 1)
		go func() {
			defer func() { recover() }()
			c.Migrate("test:{a}:0", to, 5, 50*time.Millisecond)
			moved <- true
		}()
		for len(moved) == 0 {
			step()
		}
		for i := 0; i < keys; i++ {
			step()
		}
		require.Equal(t, to.Addr(), c.Owner("test:{a}:0", to).Addr())
		require.Contains(t, to.Text("INFO", "commandstats"), "cmdstat_asking", "the node was asked before it had the slot")
	}
	require.Equal(t, 0, n.count())
}

// While its slot moves, a call fails alone unless all its keys are on one node: that does not make Redis unavailable.
func TestCluster_aCallWithKeysOnTwoNodes(t *testing.T) {
	c := redistest.StartCluster(t, 2, false, 2*time.Second)
	s, n := newClusterStore(t, c.Nodes[0].Addr())
	for _, key := range []string{"test:{a}:1", "test:{a}:2"} {
		_, err := countOnce(s, key)
		require.NoError(t, err)
	}
	from, to := c.Owner("test:{a}:1", c.Nodes[0]), other(c, "test:{a}:1")
	slot := from.Int("CLUSTER", "KEYSLOT", "{a}")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.Text("CLUSTER", "MYID"))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.Text("CLUSTER", "MYID"))
	from.Do("MIGRATE", "127.0.0.1", to.Port(), "test:{a}:1", 0, 1000)

	for _, row := range []struct {
		name string
		keys []string
	}{
		{"on both", []string{"test:{a}:1", "test:{a}:2"}},
		{"one of them nowhere, as a full bucket", []string{"test:{a}:1", "test:{a}:3"}},
		{"both nowhere", []string{"test:{a}:3", "test:{a}:4"}},
	} {
		call := &Call{Script: sum, Keys: row.keys, Args: []string{"1", "2"}}
		err := runOne(s, call)
		require.True(t, errors.Is(err, ErrUnavailable), row.name)
		require.Equal(t, errTryAgain, call.Err, row.name)
	}
	for _, key := range []string{"test:{a}:1", "test:{a}:2"} {
		value, err := countOnce(s, key)
		require.NoError(t, err)
		require.Equal(t, int64(2), value)
	}
	require.Equal(t, 0, n.count())
}

// The node that serves the keys is killed, and its replica promoted. The only seed was that node.
func TestCluster_aPromotedReplicaIsUsed(t *testing.T) {
	c := redistest.StartCluster(t, 3, true, time.Second)
	owner := c.Owner("test:{a}:n", c.Nodes[0])
	s, n := newClusterStore(t, owner.Addr())
	_, err := countOnce(s, "test:{a}:n")
	require.NoError(t, err)
	late := redistest.Late(t)
	others := 0
	for c.Nodes[others] == owner {
		others++
	}
	owner.Kill()
	var promoted time.Time
	require.Eventually(t, func() bool {
		begun := time.Now()
		value, err := countOnce(s, "test:{a}:n")
		require.True(t, time.Since(begun) < s.settings.Timeout+500*time.Millisecond)
		if promoted.IsZero() && c.Owner("test:{a}:n", c.Nodes[others]) != owner {
			promoted = time.Now()
		}
		if err != nil {
			require.True(t, errors.Is(err, ErrUnavailable), err)
			return false
		}
		return value >= 1
	}, 30*time.Second, 2*time.Millisecond, "the replica is promoted")
	if !promoted.IsZero() {
		t.Logf("back %s after the promotion", time.Since(promoted))
		require.Less(t, time.Since(promoted), 2*time.Second+late())
	}
	n.await(t, 2)
	require.Equal(t, error(nil), n.get(1))
}

// A replica that takes over by hand loses nothing, and no call fails.
func TestCluster_aReplicaThatTakesOverIsUsed(t *testing.T) {
	c := redistest.StartCluster(t, 3, true, time.Second)
	s, n := newClusterStore(t, c.Nodes[0].Addr())
	owner := c.Owner("test:{a}:n", c.Nodes[0])
	replica := c.Nodes[0]
	for i, node := range c.Nodes {
		if node == owner {
			replica = c.Nodes[i+3]
		}
	}
	expected := int64(0)
	step := func() {
		expected++
		value, err := countOnce(s, "test:{a}:n")
		require.NoError(t, err)
		require.Equal(t, expected, value)
	}
	step()
	c.TakeOver("test:{a}:n", replica, step)
	step()
	require.Equal(t, 0, n.count())
}

func TestCluster_saysWhatIsWrong(t *testing.T) {
	free := "127.0.0.1:" + redistest.FreePort(t)
	alone := redistest.Start(t)
	empty := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t))
	denied := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-port", redistest.FreePort(t))
	denied.Do("ACL", "SETUSER", "default", "-cluster")
	for _, row := range []struct{ name, address, reason string }{
		{"not a cluster", alone.Addr(), "this redis is not a node of a cluster"},
		{"no slots", empty.Addr(), "CLUSTERDOWN: no node of the cluster serves this name's slot"},
		{"no right to ask", denied.Addr(), "NOPERM: the user may not run CLUSTER|SLOTS"},
		{"nothing", free, "dial tcp " + free + ": connect: connection refused"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			s, n := newClusterStore(t, row.address)
			requireUnavailable(t, s)
			n.await(t, 1)
			require.Equal(t, row.reason, n.get(0).Error())
		})
	}
}
