package kubernetes

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
)

// group is the servers and sentinels of our StatefulSets, by their very commands, as processes. Each has another address on loopback, in
// the place of its name.
type group struct {
	t              *testing.T
	objects        []object
	network        string // the start of the addresses
	redis, watcher string // ports
	servers        [3]*gateway.Process
}

func startGroup(t *testing.T) *group {
	t.Helper()
	g := &group{t: t, objects: decode(t, render(t, withSentinels)), network: fmt.Sprintf("127.%d.%d.", 50+rand.IntN(200), rand.IntN(256))}
	for _, port := range []*string{&g.redis, &g.watcher} {
		var err error
		_, *port, err = net.SplitHostPort(freeAddress(t))
		require.NoError(t, err)
	}
	for i := range g.servers {
		g.servers[i] = g.start("redis", i)
		g.await(i, "ping", "PONG")
	}
	for i := range 3 {
		g.start("sentinel", i)
	}
	require.Eventually(t, func() bool {
		return strings.Contains(g.cli(g.network+"20", g.watcher, "info", "sentinel"), "slaves=2,sentinels=3")
	}, patience, tick, "the sentinels know each other and the replicas")
	return g
}

// start starts one pod of a StatefulSet, and returns its process.
func (g *group) start(name string, number int) *gateway.Process {
	t := g.t
	t.Helper()
	dir := t.TempDir()
	own := g.address(name, number)
	content, err := os.ReadFile(filepath.Join(root(t), "k8s", "base", "redis", "redis.conf"))
	require.NoError(t, err)
	here := strings.NewReplacer(
		"$HOSTNAME.redis", own, "$HOSTNAME.sentinel", own, "bind * -::*", "bind "+own,
		"redis-0.redis", g.address("redis", 0), "redis-[0-2].redis", g.network+"1[0-2]", "sentinel-$number.sentinel", g.network+"2$number",
		"26379", g.watcher, "6379", g.redis, "/etc/redis/", dir+"/", "/tmp/redis.conf", dir+"/started.conf", "/data", dir,
	)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "redis.conf"), []byte(here.Replace(string(content))), 0o644))
	container := at(find(t, g.objects, "StatefulSet", name), "spec", "template", "spec", "containers", 0)
	var args []string
	for _, arg := range at(container, "command").([]any) {
		args = append(args, here.Replace(arg.(string)))
	}
	command := exec.Command(args[0], args[1:]...)
	command.Env = append(os.Environ(), "REDIS_PASSWORD="+password, "REDISCLI_AUTH="+password)
	log := &gateway.Log{}
	process, err := gateway.Start(fmt.Sprint(name, "-", number), command, log)
	require.NoError(t, err)
	t.Cleanup(func() {
		process.Stop()
		if t.Failed() {
			t.Logf("%s-%d: %s", name, number, log)
		}
	})
	return process
}

func (g *group) address(name string, number int) string {
	return g.network + map[string]string{"redis": "1", "sentinel": "2"}[name] + fmt.Sprint(number)
}

func (g *group) cli(host, port string, args ...string) string {
	command := exec.Command("redis-cli", append([]string{"-h", host, "-p", port}, args...)...)
	command.Env = append(os.Environ(), "REDISCLI_AUTH="+password)
	out, _ := command.Output()
	return strings.TrimSpace(string(out))
}

// await waits until a server answers a command so.
func (g *group) await(server int, command, want string) {
	g.t.Helper()
	require.Eventually(g.t, func() bool {
		return strings.Contains(g.cli(g.address("redis", server), g.redis, strings.Fields(command)...), want)
	}, patience, tick, "redis-%d: %s", server, command)
}

// master returns the number of the server that a sentinel names as the master.
func (g *group) master() int {
	named, _, _ := strings.Cut(g.cli(g.address("sentinel", 1), g.watcher, "sentinel", "get-master-addr-by-name", "mymaster"), "\n")
	for i := range g.servers {
		if named == g.address("redis", i) {
			return i
		}
	}
	return -1
}

// The gateway of the overlay works with the servers and the sentinels of the overlay. One of the servers dies, and no request notices.
func TestServedWithSentinels(t *testing.T) {
	g := startGroup(t)
	require.Zero(t, g.master())
	s := newSite(t)
	s.redis = strings.NewReplacer("sentinel-", g.network+"2", ".sentinel", "", "26379", g.watcher).Replace(
		"sentinel-0.sentinel:26379,sentinel-1.sentinel:26379,sentinel-2.sentinel:26379")
	s.applySite(object{"resources": []string{withSentinels}})
	gate := s.startTraefik(t, baseStatic, "proxy-service", freeAddress(t))
	gate.eventually("/health", http.StatusOK)
	gate.eventually("/proxy/ok", http.StatusOK)
	require.Contains(t, g.cli(g.address("redis", 0), g.redis, "--scan"), "resilience:{gateway}:bucket:", "the state is at the master")
	require.NotContains(t, gate.log.String(), "redis unavailable")

	var ended atomic.Bool
	statuses := make(chan map[int]int, 1)
	go func() {
		seen := map[int]int{}
		for !ended.Load() {
			seen[gate.get("/proxy/ok").status]++
			time.Sleep(20 * time.Millisecond)
		}
		statuses <- seen
	}()
	g.servers[0].Signal(syscall.SIGKILL)
	begun := time.Now()
	require.Eventually(t, func() bool { return g.master() > 0 }, patience, tick, "a failover")
	t.Logf("redis-%d is the master after %s", g.master(), time.Since(begun).Round(100*time.Millisecond))
	require.Eventually(t, func() bool { return strings.Contains(gate.log.String(), "redis is back") }, patience, tick)
	ended.Store(true)
	seen := <-statuses
	require.Len(t, seen, 1, "%v", seen)
	require.Greater(t, seen[http.StatusOK], 20)
	t.Logf("back after %s, %d requests", time.Since(begun).Round(100*time.Millisecond), seen[http.StatusOK])

	g.start("redis", 0)
	g.await(0, "info replication", "role:slave")
}
