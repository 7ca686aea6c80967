package compose

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// withSentinels returns what docs/deployment.md says to set.
func withSentinels(t *testing.T) []string {
	t.Helper()
	words := strings.Fields(blocks(t, "docs/deployment.md", "## Redis with Sentinel")[0].Command)
	require.Equal(t, "export", words[0])
	return words[1:]
}

// plenty is a limit that no client reaches.
var plenty = []string{"RATE_LIMIT_CAPACITY=1000000", "RATE_LIMIT_REFILL_RATE=1000"}

// cli runs redis-cli in the container of a service.
func (s *stack) cli(service, password string, args ...string) string {
	s.t.Helper()
	output, _ := s.compose(append([]string{"exec", "-T", "-e", "REDISCLI_AUTH=" + password, service, "redis-cli"}, args...)...)
	return strings.TrimSpace(output)
}

// master returns the service that a sentinel names as the master.
func (s *stack) master(password string) string {
	s.t.Helper()
	name, _, _ := strings.Cut(s.cli("sentinel-1", password, "-p", "26379", "sentinel", "get-master-addr-by-name", "mymaster"), "\n")
	return strings.TrimSpace(name)
}

// requireFailover makes the master fail while a client sends requests, and sees another one take over its buckets without a lost request.
func (s *stack) requireFailover(t *testing.T, sentinelPassword string, fail func(master string)) (former string) {
	t.Helper()
	former = s.master(sentinelPassword)
	require.Contains(t, []string{"redis", "redis-2", "redis-3"}, former)
	sending := s.startClients()
	time.Sleep(time.Second)
	begun := time.Now()
	fail(former)
	require.Eventually(t, func() bool { return s.master(sentinelPassword) != former }, 30*time.Second, 100*time.Millisecond)
	announced := time.Since(begun)
	s.awaitCalls(t, s.master(sentinelPassword))
	back := time.Since(begun)
	sending.requireNoneLost(t)
	t.Logf("%s failed: %s announced after %s, used after %s; %d requests, the slowest took %s", former, s.master(sentinelPassword),
		announced.Round(100*time.Millisecond), back.Round(100*time.Millisecond), sending.sent, sending.slowest.Round(time.Millisecond))
	return former
}

// awaitCalls waits until the gateway's scripts run at the server.
func (s *stack) awaitCalls(t *testing.T, service string) {
	t.Helper()
	calls := func() string {
		_, found, _ := strings.Cut(s.cli(service, s.password, "info", "commandstats"), "cmdstat_evalsha:calls=")
		number, _, _ := strings.Cut(found, ",")
		return number
	}
	before := calls()
	require.Eventually(t, func() bool { return calls() != before }, 20*time.Second, 100*time.Millisecond, service)
}

// requireReplicated sees that all replicas have their masters' data. A stack that is called healthy before they do would not survive that
// its master fails: without data a replica of a Cluster is not chosen, and one that sentinels choose has no buckets.
func (s *stack) requireReplicated() {
	s.t.Helper()
	for service := range strings.Lines(s.mustCompose("ps", "--services")) {
		if service = strings.TrimSpace(service); strings.HasPrefix(service, "redis") {
			require.NotContains(s.t, s.cli(service, s.password, "info", "replication"), "master_link_status:down", service)
		}
	}
}

// awaitReplica waits until the server is up and has the master's data.
func (s *stack) awaitReplica(t *testing.T, service string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return strings.Contains(s.cli(service, s.password, "info", "replication"), "master_link_status:up")
	}, 40*time.Second, 200*time.Millisecond, service)
}

// TestSentinel starts the profile sentinel of the development stack, and makes its master fail in two ways.
func TestSentinel(t *testing.T) {
	const password, ofSentinels = `de"v pass`, `of "sentinels"`
	env := append([]string{"REDIS_PASSWORD=" + password, "REDIS_SENTINEL_PASSWORD=" + ofSentinels}, withSentinels(t)...)
	s := newStack(t, "docker-compose.yml", append(env, plenty...)...)
	s.password = password
	s.mustCompose("up", "-d", "--build", "--wait")
	require.Equal(t, "redis", s.master(ofSentinels))
	s.requireReplicated()

	t.Run("every server asks for its password", func(t *testing.T) {
		require.Contains(t, s.cli("sentinel-2", password, "-p", "26379", "sentinel", "masters"), "NOAUTH")
		require.Contains(t, s.cli("redis-2", ofSentinels, "ping"), "NOAUTH")
	})
	t.Run("the master is killed, and comes back as a replica", func(t *testing.T) {
		former := s.requireFailover(t, ofSentinels, func(master string) { s.mustCompose("kill", master) })
		require.Contains(t, s.cli(s.master(ofSentinels), password, "--scan"), "resilience:{gateway}:bucket:ip:")
		s.mustCompose("start", former)
		s.awaitReplica(t, former)
	})
	t.Run("the master is cut off from the network", func(t *testing.T) {
		s.requireFailover(t, ofSentinels, func(master string) {
			s.must(t, "docker", "network", "disconnect", s.name+"_default", s.inspect(master).ID)
		})
	})
}
