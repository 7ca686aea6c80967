package store

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRedirectionIn(t *testing.T) {
	for _, row := range []struct{ name, text, dialled, want string }{
		{"an IP", "MOVED 1 10.0.0.2:6379", "redis-0:7000", "10.0.0.2:6379"},
		{"a name", "ASK 1 redis-1:6379", "redis-0:7000", "redis-1:6379"},
		{"IPv6", "MOVED 1 ::1:6379", "redis-0:7000", "[::1]:6379"},
		{"no host", "MOVED 1 :6379", "redis-0:7000", "redis-0:6379"},
		{"no host, after IPv6", "MOVED 1 :6379", "[::1]:7000", "[::1]:6379"},
		{"no host at all", "MOVED 1 :6379", "", ""},
		{"not known", "MOVED 1 ?:6379", "redis-0:7000", ""},
		{"no port", "MOVED 1 redis-1", "redis-0:7000", ""},
		{"a port of zero", "MOVED 1 redis-1:0", "redis-0:7000", ""},
		{"no address", "MOVED 1", "redis-0:7000", ""},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) { require.Equal(t, row.want, redirectionIn(row.text, row.dialled)) })
	}
}

func TestNodeIn(t *testing.T) {
	list := func(values ...interface{}) []interface{} { return values }
	for _, row := range []struct {
		name string
		node interface{}
		want string
	}{
		{"an IP", list("10.0.0.2", "6379", "id", list()), "10.0.0.2:6379"},
		{"an older Redis", list("10.0.0.2", "6379", "id"), "10.0.0.2:6379"},
		{"a name", list("redis-1", "6379", "id", list("ip", "10.0.0.2")), "redis-1:6379"},
		{"an unknown endpoint", list(nil, "6379", "id", list("ip", "10.0.0.2", "hostname", "redis-1")), "redis-0:6379"},
		{"no name", list("?", "6379", "id", list("ip", "10.0.0.2")), "10.0.0.2:6379"},
		{"no name, and the IP is not the first value", list("?", "6379", "id", list("a", "b", "ip", "10.0.0.2")), "10.0.0.2:6379"},
		{"no name and no IP, as a node that has met no other", list("?", "6379", "id", list("ip", "")), "redis-0:6379"},
		{"no name, and nothing else", list("?", "6379", "id"), ""},
		{"no name, and an odd list", list("?", "6379", "id", list("ip")), ""},
		{"no name, and an odd value", list("?", "6379", "id", list("ip", list())), ""},
		{"no name, and a text", list("?", "6379", "id", "ip"), ""},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) { require.Equal(t, row.want, nodeIn(row.node, "redis-0:7000")) })
	}
}

// Nodes that name no host are reached by the host by which a node was dialled, which certificates may name.
func TestCluster_ofUnknownEndpoints(t *testing.T) {
	c := redistest.StartCluster(t, 2, false, 2*time.Second, "--cluster-preferred-endpoint-type", "unknown-endpoint")
	from := c.Owner("test:{a}:1", c.Nodes[0])
	to := other(c, "test:{a}:1")
	s, n := newClusterStore(t, net.JoinHostPort("localhost", from.Port()))
	_, err := countOnce(s, "test:{a}:1")
	require.NoError(t, err)
	slot := from.Int("CLUSTER", "KEYSLOT", "{a}")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.Text("CLUSTER", "MYID"))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.Text("CLUSTER", "MYID"))
	_, err = countOnce(s, "test:{a}:2")
	require.NoError(t, err)
	require.Equal(t, net.JoinHostPort("localhost", to.Port()), s.importer.Address())
	c.Migrate("test:{a}:1", to, 5, time.Millisecond)
	value, err := countOnce(s, "test:{a}:1")
	require.NoError(t, err)
	require.Equal(t, int64(2), value)
	_, server := s.Topology()
	require.Equal(t, net.JoinHostPort("localhost", to.Port()), server)
	require.Equal(t, 0, n.count())
}

// Nodes that are to be known by a hostname, but have none, call themselves "?". Only a key that has been moved already, while
// its slot is being moved, cannot be reached: a call about it fails alone.
func TestCluster_ofNodesWithoutHostnames(t *testing.T) {
	c := redistest.StartCluster(t, 2, false, 2*time.Second, "--cluster-preferred-endpoint-type", "hostname")
	from := c.Owner("test:{a}:1", c.Nodes[0])
	to := other(c, "test:{a}:1")
	s, n := newClusterStore(t, to.Addr())
	_, err := countOnce(s, "test:{a}:1")
	require.NoError(t, err)
	slot := from.Int("CLUSTER", "KEYSLOT", "{a}")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.Text("CLUSTER", "MYID"))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.Text("CLUSTER", "MYID"))
	_, err = countOnce(s, "test:{a}:2")
	require.True(t, errors.Is(err, ErrUnavailable))
	require.Equal(t, errNowhere, err)
	_, err = countOnce(s, "test:{a}:1")
	require.NoError(t, err)
	c.Migrate("test:{a}:1", to, 5, time.Millisecond)
	value, err := countOnce(s, "test:{a}:1")
	require.NoError(t, err)
	require.Equal(t, int64(3), value)
	require.Equal(t, 0, n.count())
}
