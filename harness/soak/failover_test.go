package soak

import (
	"path/filepath"
	"testing"

	"github.com/resilient-gateway/resilience/harness/failover"
	"github.com/stretchr/testify/require"
)

// Every way in which the server that holds the state changes, with Sentinel and in a Cluster.
func TestFailover(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Run("sentinel", func(t *testing.T) { failover.RunSentinel(t, root) })
	t.Run("cluster", func(t *testing.T) { failover.RunCluster(t, root) })
}
