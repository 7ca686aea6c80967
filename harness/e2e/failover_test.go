package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/failover"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// The whole matrix is in make soak.
func TestFailover_sentinel(t *testing.T) {
	t.Parallel()
	failover.RunSentinel(t, root(t), "killed", "demoted by hand")
}

func TestFailover_cluster(t *testing.T) {
	t.Parallel()
	failover.RunCluster(t, root(t), "killed", "slots moved to another node")
}

// A replica that no longer had the master's data becomes the master. A client gets one fresh bucket at most, and a circuit that was opened meanwhile
// stays open.
func TestFailover_aReplicaThatLagged(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+master.Port(), "--repl-diskless-sync-delay", "0")
	monitor := func(server *redistest.Server) string {
		return fmt.Sprintf("monitor %s 127.0.0.1 %s 1", redistest.MasterName, server.Port())
	}
	sentinel := redistest.StartSentinel(t, "sentinel "+monitor(master)+"\n")
	const capacity = 50
	redis := block{"address": sentinel.Addr(), "sentinel": block{"master": redistest.MasterName}, "timeout": "1s"}
	folder := writeRows(t, map[string]block{
		"limit":   {"redis": redis, "rateLimit": block{"capacity": capacity, "refillRate": 1, "refillPeriod": "1h"}},
		"circuit": {"redis": redis, "circuitBreaker": block{"failureThreshold": 2, "resetTimeout": "1h"}},
	})
	up := startUpstream(t)
	one, two := startTraefik(t, options{upstream: up, dynamic: folder}), startTraefik(t, options{upstream: up, dynamic: folder})
	require.Equal(t, map[int]int{200: 10}, burst(10, "/limit", one, two))
	require.Equal(t, 500, one.get("/circuit/fail").status)
	const key = "resilience:{circuit}:breaker"
	require.Eventually(t, func() bool { return replica.Hash(key)["failures"] == "1" }, soon, 10*time.Millisecond, one.log)
	replica.Do("REPLICAOF", "NO", "ONE")

	require.Equal(t, map[int]int{200: capacity - 10, 429: 10}, burst(capacity, "/limit", one, two))
	require.Equal(t, 500, two.get("/circuit/fail").status)
	require.Eventually(t, func() bool { return one.get("/circuit").status == 503 }, soon, 10*time.Millisecond)
	require.Equal(t, "closed", replica.Hash(key)["state"])

	sentinel.Do("SENTINEL", "REMOVE", redistest.MasterName)
	words := strings.Fields(monitor(replica))
	sentinel.Do("SENTINEL", words[0], words[1], words[2], words[3], words[4])
	master.Kill()
	admitted := 0
	isOpen := func() bool { return replica.Hash(key)["state"] == "open" }
	for begun := time.Now(); time.Since(begun) < 3*time.Second || !isOpen(); time.Sleep(20 * time.Millisecond) {
		require.Less(t, time.Since(begun), soon)
		require.Equal(t, map[int]int{503: 2}, burst(2, "/circuit", one, two))
		answers := burst(4, "/limit", one, two)
		require.Equal(t, 4, answers[200]+answers[429], "%v", answers)
		admitted += answers[200]
	}
	t.Logf("%d requests passed after the failover", admitted)
	require.Positive(t, admitted, "the replica had not heard of the last requests")
	require.LessOrEqual(t, admitted, capacity, "one fresh bucket")
	require.Regexp(t, "^3[45]..$", one.get("/circuit").header.Get("Retry-After"), "the rest of its time")
}

// A password that is changed in Redis and in its file is used without a reload, and no request notices.
func TestFailover_aChangedPasswordNeedsNoReload(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "one")
	server.Login("", "one")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("one\n"), 0o600))
	redis := redisBlock(server)
	redis["passwordFile"] = file
	g := startTraefik(t, options{upstream: startUpstream(t), plugin: block{
		"redis": redis, "rateLimit": block{"capacity": 50, "refillRate": 1, "refillPeriod": "1h"},
	}})
	require.Equal(t, map[int]int{200: 20}, burst(20, "/proxy/ok", g))
	server.Do("CONFIG", "SET", "requirepass", "two")
	server.Login("", "two")
	require.NoError(t, os.WriteFile(file, []byte("two\n"), 0o600))
	server.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	require.Equal(t, map[int]int{200: 30, 429: 10}, burst(40, "/proxy/ok", g), "one bucket before and after")
	require.Empty(t, g.events("redis unavailable"))
}
