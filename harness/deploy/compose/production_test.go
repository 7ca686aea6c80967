package compose

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A password with what shells, YAML and Redis each take for their own.
const password = `correct "horse" $battery # it's`

func newProduction(t *testing.T, env ...string) *stack {
	t.Helper()
	return newStack(t, "docker-compose.prod.yml", append([]string{
		"REDIS_PASSWORD=" + password,
		"RATE_LIMIT_CAPACITY=200", "RATE_LIMIT_REFILL_RATE=50",
		"CIRCUIT_BREAKER_FAILURE_THRESHOLD=6", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=3",
		"CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD=2",
		"DEPLOY_TIMEOUT=90",
	}, env...)...)
}

func (s *stack) deploy(args ...string) (output string, code int) {
	s.t.Helper()
	return s.run(s.t, "./deploy.sh", args...)
}

// TestProduction goes through the life of a production stack, step by step.
func TestProduction(t *testing.T) {
	s := newProduction(t)

	t.Run("placeholders are refused, and nothing is started", func(t *testing.T) {
		for name, row := range map[string]struct{ password, said string }{
			"as shipped": {"", "still a placeholder: REDIS_PASSWORD"},
			"short":      {"secret", "shorter than 16"},
			"elsewhere":  {"please-change-me-now", "still a placeholder: REDIS_PASSWORD"},
		} {
			refused := newStack(t, s.file)
			if row.password != "" {
				refused = refused.with("REDIS_PASSWORD=" + row.password)
			}
			output, code := refused.deploy("prod")
			require.Equal(t, 1, code, "%s: %s", name, output)
			require.Contains(t, output, row.said, name)
			started := refused.with("REDIS_PASSWORD="+password).mustCompose("ps", "--all", "--quiet")
			require.Empty(t, started, name)
		}
	})
	t.Run("an image that may change under its name is refused", func(t *testing.T) {
		for _, image := range []string{"somebody/gateway", "somebody/gateway:latest", "host:5000/gateway"} {
			output, code := s.with("GATEWAY_IMAGE=" + image).deploy("prod")
			require.Equal(t, 1, code, output)
			require.Contains(t, output, "GATEWAY_IMAGE="+image)
		}
	})
	t.Run("a builder that cannot read the Dockerfile is refused", func(t *testing.T) {
		for _, off := range []string{"0", "false"} {
			output, code := s.with("DOCKER_BUILDKIT=" + off).deploy("prod")
			require.Equal(t, 1, code, output)
			require.Contains(t, output, "DOCKER_BUILDKIT forbids")
		}
	})
	t.Run("rollback knows nothing yet", func(t *testing.T) {
		output, code := s.deploy("rollback")
		require.Equal(t, 1, code, output)
		require.Contains(t, output, "no images and settings from before")
	})
	t.Run("deploy.sh prod", func(t *testing.T) {
		output, code := s.deploy("prod")
		require.Zero(t, code, output)
		for _, passed := range []string{"health: passed", "a proxied request: passed", "a 429: passed"} {
			require.Contains(t, output, passed)
		}
		s.requireHealthy()
	})
	t.Run("limits, confinement, restarts and logs, as docker inspect tells", func(t *testing.T) { s.requireConfined(t) })
	t.Run("the limiter and the breaker, from the environment", func(t *testing.T) {
		time.Sleep(2 * time.Second) // for tokens
		require.Equal(t, http.StatusOK, s.get("/proxy/ok").status)
		require.Equal(t, []int{200, 429}, statuses(s.burst(500, "/proxy/ok")))
		// Without Redis each gateway would limit and break by itself, which looks the same from outside.
		s.requireBucket()
		time.Sleep(time.Second)
		for range 6 {
			require.Equal(t, http.StatusInternalServerError, s.get("/proxy/fail").status)
		}
		r := s.get("/proxy/ok")
		require.Equal(t, http.StatusServiceUnavailable, r.status)
		require.Equal(t, openBody, r.body)
		s.await("/proxy/ok", http.StatusOK, 10*time.Second)
		require.Equal(t, "1", s.redis("EXISTS", "resilience:{gateway}:breaker"))
	})
	t.Run("Redis asks for the password, and lets nobody administer it", func(t *testing.T) {
		output, _ := s.compose("exec", "-T", "-e", "REDISCLI_AUTH=", "redis", "redis-cli", "GET", "x")
		require.Contains(t, output, "NOAUTH")
		require.Contains(t, s.redis("CONFIG", "SET", "dir", "/tmp"), "NOPERM")
		require.Contains(t, s.redis("FLUSHALL"), "NOPERM")
		memory := s.redis("INFO", "memory")
		require.Contains(t, memory, "maxmemory_policy:volatile-ttl")
		require.Contains(t, memory, "maxmemory:201326592")
		require.Contains(t, s.redis("INFO", "persistence"), "aof_enabled:1")
	})
	t.Run("Redis's data survives down and up", func(t *testing.T) {
		require.Equal(t, "OK", s.redis("SET", "kept", "yes"))
		s.mustCompose("down")
		output, code := s.deploy("prod")
		require.Zero(t, code, output)
		require.Equal(t, "yes", s.redis("GET", "kept"))
	})

	built := s.images()
	t.Run("a first deployment that does not work says that there is nothing to go back to", func(t *testing.T) {
		first := newProduction(t, "DEPLOY_TIMEOUT=30")
		output, code := first.with("GATEWAY_IMAGE=" + s.variant(built["proxy-service"], "first", "WORKDIR /tmp")).deploy("prod")
		require.Equal(t, 2, code, output)
		require.Contains(t, output, "nothing to go back to")
	})
	t.Run("an image that is no gateway is refused", func(t *testing.T) {
		output, code := s.with("GATEWAY_IMAGE=" + redisStandIn).deploy("prod")
		require.Equal(t, 1, code, output)
		require.Contains(t, output, "no gateway of this project")
		require.Contains(t, output, "nothing was changed")
	})
	t.Run("an image that does not start returns to the one before", func(t *testing.T) {
		// In another working directory Traefik does not find the plugin, and ends.
		broken := s.variant(built["proxy-service"], "broken", "WORKDIR /tmp")
		s.requireReturn(t, s.with("GATEWAY_IMAGE="+broken, "DEPLOY_TIMEOUT=60"), built)
	})
	t.Run("an image that is healthy and does not serve returns to the one before", func(t *testing.T) {
		routes := filepath.Join(t.TempDir(), "routers.yml")
		const none = "http: {routers: {none: {rule: Path(`/none`), service: noop@internal}}}\n"
		require.NoError(t, os.WriteFile(routes, []byte(none), 0o644))
		deaf := s.variant(built["proxy-service"], "deaf", "LABEL deaf=yes", routes, "/etc/traefik/dynamic/routers.yml")
		s.requireReturn(t, s.with("GATEWAY_IMAGE="+deaf), built)
	})
	t.Run("an image that cannot be had changes nothing", func(t *testing.T) {
		containers := s.mustCompose("ps", "--quiet")
		output, code := s.with("GATEWAY_IMAGE=127.0.0.1:1/nowhere:1").deploy("prod")
		require.Equal(t, 1, code, output)
		require.Contains(t, output, "nothing was changed")
		require.Equal(t, containers, s.mustCompose("ps", "--quiet"))
	})
	t.Run("rollback, and back again", func(t *testing.T) {
		next := s.variant(built["proxy-service"], "next", "LABEL next=yes")
		output, code := s.with("GATEWAY_IMAGE=" + next).deploy("prod")
		require.Zero(t, code, output)
		require.Equal(t, "yes", s.inspect("proxy-service").Config.Labels["next"])
		output, code = s.deploy("rollback")
		require.Zero(t, code, output)
		require.Contains(t, output, "runs the images and settings from before")
		require.Equal(t, built, s.images())
		require.Equal(t, http.StatusOK, s.get("/health").status)
		output, code = s.deploy("rollback")
		require.Zero(t, code, output)
		require.Equal(t, "yes", s.inspect("proxy-service").Config.Labels["next"])
	})
	t.Run("only the images of this deployment and of the one before keep their names", func(t *testing.T) {
		tags := strings.Fields(s.must(t, "docker", "image", "ls", "--format", "{{.Tag}}", s.name+"-proxy-service"))
		require.Len(t, tags, 2)
	})
	t.Run("what is kept is readable by its owner only", func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(s.state(), "*", "compose.yml"))
		require.NoError(t, err)
		require.Len(t, files, 2)
		for _, file := range files {
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), file)
		}
	})
	t.Run("one at a time", func(t *testing.T) {
		holder := exec.Command("flock", "--no-fork", filepath.Join(project, "deploy.sh"), "sleep", "60")
		require.NoError(t, holder.Start())
		defer func() { holder.Process.Kill(); holder.Wait() }()
		require.Eventually(t, func() bool {
			return exec.Command("flock", "--nonblock", filepath.Join(project, "deploy.sh"), "true").Run() != nil
		}, 5*time.Second, 20*time.Millisecond)
		output, code := s.deploy("prod")
		require.Equal(t, 1, code, output)
		require.Contains(t, output, "another deployment is under way")
	})
	t.Run("what it is called with", func(t *testing.T) {
		for _, args := range [][]string{{}, {"nothing"}, {"prod", "more"}, {"rollback", "nothing"}} {
			output, code := s.deploy(args...)
			require.Equal(t, 1, code, output)
			require.Contains(t, output, "./deploy.sh rollback")
		}
	})
}

// variant makes an image like another but for one instruction and, if they are named, a file from here and its place there.
func (s *stack) variant(image, tag, change string, file ...string) string {
	s.t.Helper()
	name := s.name + "-variant:" + tag
	id := strings.TrimSpace(s.must(s.t, "docker", "create", image))
	defer s.must(s.t, "docker", "rm", id)
	if len(file) == 2 {
		s.must(s.t, "docker", "cp", file[0], id+":"+file[1])
	}
	s.must(s.t, "docker", "commit", "--change", change, id, name)
	s.t.Cleanup(func() { s.run(s.t, "docker", "image", "rm", "--force", name) })
	return name
}

// requireReturn deploys what does not work, and sees the stack return to the images.
func (s *stack) requireReturn(t *testing.T, broken *stack, images map[string]string) {
	t.Helper()
	output, code := broken.deploy("prod")
	require.Equal(t, 1, code, output)
	require.Contains(t, output, "Going back to the images and settings that ran before")
	require.Contains(t, output, "what ran before runs again")
	t.Log(output)
	require.Equal(t, images, s.images())
	s.requireHealthy()
	s.await("/proxy/ok", http.StatusOK, 10*time.Second)
}

func (s *stack) requireConfined(t *testing.T) {
	t.Helper()
	const mebibyte = 1 << 20
	rows := map[string]struct {
		cpus, memory, reserved, pids int64
		user                         string
		networks                     []string
	}{
		"proxy-service": {1_000_000_000, 512 * mebibyte, 256 * mebibyte, 256, "65532:65532", []string{"backend", "data", "edge"}},
		"upstream":      {500_000_000, 128 * mebibyte, 32 * mebibyte, 128, "65532:65532", []string{"backend"}},
		"redis":         {500_000_000, 384 * mebibyte, 256 * mebibyte, 64, "999:1000", []string{"data"}},
	}
	for service, row := range rows {
		c := s.inspect(service)
		h := c.HostConfig
		require.Equal(t, row.cpus, h.NanoCpus, service)
		require.Equal(t, row.memory, h.Memory, service)
		require.Equal(t, row.reserved, h.MemoryReservation, service)
		require.Equal(t, row.pids, h.PidsLimit, service)
		require.Equal(t, row.user, c.Config.User, service)
		require.True(t, h.ReadonlyRootfs, service)
		require.Equal(t, []string{"ALL"}, h.CapDrop, service)
		require.Contains(t, strings.Join(h.SecurityOpt, " "), "no-new-privileges", service)
		require.Contains(t, h.Tmpfs, "/tmp", service)
		require.Equal(t, "unless-stopped", h.RestartPolicy.Name, service)
		require.Equal(t, "json-file", h.LogConfig.Type, service)
		require.Equal(t, map[string]string{"max-size": "10m", "max-file": "3"}, h.LogConfig.Config, service)
		require.Equal(t, "healthy", c.State.Health.Status, service)
		require.Len(t, c.NetworkSettings.Networks, len(row.networks), service)
		for _, network := range row.networks {
			require.Contains(t, c.NetworkSettings.Networks, s.name+"_"+network, service)
		}
		for _, mount := range c.Mounts {
			require.Equal(t, "volume", mount.Type, "%s mounts nothing of the host, Docker's socket least of all", service)
		}
		if service != "proxy-service" {
			require.Empty(t, h.PortBindings, "%s is published", service)
		}
	}
	volumes := s.inspect("redis").Mounts
	require.Len(t, volumes, 1)
	require.Equal(t, s.name+"_redis_data", volumes[0].Name)
	require.Equal(t, "/data", volumes[0].Destination)
	for _, network := range []string{"backend", "data"} {
		inspected := s.must(t, "docker", "network", "inspect", "--format", "{{.Internal}}", s.name+"_"+network)
		require.Equal(t, "true", strings.TrimSpace(inspected), network)
	}
	output, code := s.compose("exec", "-T", "proxy-service", "touch", "/written")
	require.NotZero(t, code)
	require.Contains(t, output, "Read-only file system")
}
