package redistest

import (
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/stretchr/testify/require"
)

// A sentinel that finds no replica fit refuses. FailOver waits until one is.
func TestFailOver_aReplicaComesBack(t *testing.T) {
	g := StartGroup(t, 2, 1, 300*time.Millisecond)
	master, replica := g.Servers[0], g.Servers[1]
	replica.Pause()
	c, err := redis.Dial("tcp", g.Sentinels[0].Addr())
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool {
		_, err := c.Do("SENTINEL", "FAILOVER", MasterName)
		return err != nil && err.Error() == "NOGOODSLAVE No suitable replica to promote"
	}, 20*time.Second, time.Second, "the sentinel finds the replica down")
	back := time.AfterFunc(time.Second, replica.Resume)
	defer back.Stop()
	g.FailOver(0, master)
	require.Same(t, replica, g.Announced(0))
}
