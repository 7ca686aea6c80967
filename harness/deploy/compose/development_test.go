package compose

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	healthyBody = `{"status":"healthy"}`
	limitedBody = `{"error":"Too many requests, please try again later."}`
	openBody    = `{"error":"Service temporarily unavailable due to circuit open."}`
)

// TestDevelopment sets every variable to something unusual, so that each is seen to arrive.
func TestDevelopment(t *testing.T) {
	const password = `de"v pass`
	s := newStack(t, "docker-compose.yml",
		"REDIS_PORT=6390", "REDIS_DB=3", "REDIS_PASSWORD="+password,
		"RATE_LIMIT_CAPACITY=60", "RATE_LIMIT_REFILL_RATE=20", "RATE_LIMIT_REFILL_PERIOD=2s",
		"CIRCUIT_BREAKER_FAILURE_THRESHOLD=4", "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=3",
		"CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD=3")
	s.password = password
	s.mustCompose("up", "-d", "--build", "--wait")

	t.Run("one command makes it healthy", func(t *testing.T) {
		s.requireHealthy()
		s.await("/health", http.StatusOK, 30*time.Second)
		require.Equal(t, healthyBody, s.get("/health").body)
		s.await("/proxy/ok", http.StatusOK, 30*time.Second)
	})
	t.Run("the API, on this host only, shows what the labels say", func(t *testing.T) { s.requireShown(t) })
	t.Run("labels of another container configure answers", func(t *testing.T) { s.requireAnswers(t) })
	t.Run("the image", func(t *testing.T) { s.requireImage(t) })
	t.Run("a burst is limited", func(t *testing.T) {
		counts := s.burst(150, "/proxy/ok")
		require.Equal(t, []int{200, 429}, statuses(counts))
		require.GreaterOrEqual(t, counts[200], 50)
		r := s.get("/proxy/ok")
		for range 100 { // a token may have come back by now
			if r.status == http.StatusTooManyRequests {
				break
			}
			r = s.get("/proxy/ok")
		}
		require.Equal(t, http.StatusTooManyRequests, r.status)
		require.Equal(t, limitedBody, r.body)
		require.NotEmpty(t, r.header.Get("Retry-After"))
	})
	t.Run("its state is in Redis, behind the password, in the database that was named", func(t *testing.T) {
		s.requireBucket("-p", "6390", "-n", "3")
		require.Equal(t, "0", s.redis("-p", "6390", "-n", "0", "DBSIZE"))
		output, _ := s.compose("exec", "-T", "redis", "redis-cli", "-p", "6390", "PING")
		require.Contains(t, output, "NOAUTH")
	})
	t.Run("the circuit opens and recovers", func(t *testing.T) {
		s.await("/proxy/ok", http.StatusOK, 10*time.Second)
		time.Sleep(2 * time.Second) // for tokens
		for range 4 {
			require.Equal(t, http.StatusInternalServerError, s.get("/proxy/fail").status)
		}
		r := s.get("/proxy/ok")
		require.Equal(t, http.StatusServiceUnavailable, r.status)
		require.Equal(t, openBody, r.body)
		s.await("/proxy/ok", http.StatusOK, 10*time.Second)
		for range 3 {
			s.await("/proxy/ok", http.StatusOK, 10*time.Second)
		}
		require.Equal(t, "closed", s.redis("-p", "6390", "-n", "3", "HGET", "resilience:{gateway}:breaker", "state"))
	})
	t.Run("the tests of the stack's own pass", func(t *testing.T) {
		output := s.mustCompose("run", "--build", "--rm", "tests")
		require.Contains(t, output, "5 passed, 0 failed")
		require.NotContains(t, output, "FAIL")
		t.Log(output)
	})
	t.Run("a stopped upstream is a failure, not an unknown path", func(t *testing.T) {
		s.await("/proxy/ok", http.StatusOK, 30*time.Second)
		s.mustCompose("stop", "upstream")
		s.await("/proxy/ok", http.StatusServiceUnavailable, 30*time.Second)
		require.Equal(t, http.StatusOK, s.get("/health").status)
		s.mustCompose("start", "upstream")
		s.await("/proxy/ok", http.StatusOK, 30*time.Second)
	})
	t.Run("the tests of its own see a stack that does not work", func(t *testing.T) {
		s.mustCompose("stop", "upstream")
		output, code := s.compose("run", "--no-deps", "--rm", "tests")
		require.NotZero(t, code, output)
		require.Contains(t, output, "FAIL")
		s.mustCompose("start", "upstream")
	})
	t.Run("deploy.sh runs it as nobody, with the socket's group", func(t *testing.T) {
		output := s.must(t, "./deploy.sh", "dev")
		for _, passed := range []string{"health: passed", "a proxied request: passed", "a 429: passed"} {
			require.Contains(t, output, passed)
		}
		page := "http://" + s.api + "/resilience/"
		require.Contains(t, output, "the status page: "+page+"\n")
		require.Equal(t, http.StatusOK, get(page).status)
		gid := socketGroup(t)
		gateway := s.inspect("proxy-service")
		require.Equal(t, "65532:"+gid, gateway.Config.User)
		require.Equal(t, []string{gid}, gateway.HostConfig.GroupAdd)
		s.requireShown(t)
	})
}

// TestDevelopment_asItIs sets nothing: no password, and no group of the socket.
func TestDevelopment_asItIs(t *testing.T) {
	s := newStack(t, "docker-compose.yml")
	s.mustCompose("up", "-d", "--build", "--wait")
	s.requireHealthy()
	s.await("/proxy/ok", http.StatusOK, 30*time.Second)
	require.Equal(t, "0", s.inspect("proxy-service").Config.User)
	counts := s.burst(200, "/proxy/ok")
	require.Equal(t, []int{200, 429}, statuses(counts))
	require.GreaterOrEqual(t, counts[200], 99)
	s.requireBucket()

	t.Run("the path of UPSTREAM_URL comes before that of the request", func(t *testing.T) {
		s.with("UPSTREAM_URL=http://upstream:8081/status").mustCompose("up", "-d", "--wait")
		s.await("/proxy/202", http.StatusAccepted, 30*time.Second)
	})
	t.Run("a mistyped setting ends the container with its name", func(t *testing.T) {
		wrong := s.with("RATE_LIMIT_CAPACITY=1,000")
		output, code := wrong.compose("up", "-d", "--wait")
		require.NotZero(t, code, output)
		logs := wrong.mustCompose("logs", "--no-color", "proxy-service")
		require.Contains(t, logs, `check: RATE_LIMIT_CAPACITY: "1,000" is not a whole number`)
	})
	t.Run("no volume stays behind without a name", func(t *testing.T) {
		for _, service := range []string{"proxy-service", "redis"} {
			for _, mount := range s.inspect(service).Mounts {
				require.NotEqual(t, "volume", mount.Type, service)
			}
		}
	})
}

func socketGroup(t *testing.T) string {
	t.Helper()
	info, err := os.Stat(socket)
	require.NoError(t, err)
	return fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid)
}

func (s *stack) requireShown(t *testing.T) {
	t.Helper()
	var middleware struct {
		Status, Provider string
		Plugin           struct {
			Resilience struct {
				Redis                     map[string]any
				RateLimit, CircuitBreaker map[string]string
			}
		}
	}
	r := get("http://" + s.api + "/api/http/middlewares/gateway@docker")
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NoError(t, json.Unmarshal([]byte(r.body), &middleware))
	require.Equal(t, "enabled", middleware.Status)
	require.Equal(t, "docker", middleware.Provider)
	shown := middleware.Plugin.Resilience
	require.Equal(t, map[string]any{
		"address": "redis:6390", "passwordEnv": "REDIS_PASSWORD", "db": "3", "sentinel": map[string]any{"master": "", "passwordEnv": ""},
	}, shown.Redis)
	require.Equal(t, map[string]string{"capacity": "60", "refillRate": "20", "refillPeriod": "2s"}, shown.RateLimit)
	require.Equal(t, map[string]string{"failureThreshold": "4", "resetTimeout": "3s", "halfOpenSuccessThreshold": "3"},
		shown.CircuitBreaker)
	for _, router := range []string{"proxy", "health", "api"} {
		r := get("http://" + s.api + "/api/http/routers/" + router + "@docker")
		require.Equal(t, http.StatusOK, r.status, router)
		require.Contains(t, r.body, `"status":"enabled"`, router)
	}
	bindings, err := json.Marshal(s.inspect("proxy-service").HostConfig.PortBindings["8080/tcp"])
	require.NoError(t, err)
	require.Contains(t, string(bindings), `"HostIp":"127.0.0.1"`)
}

// requireImage looks at the image that was built, without what Compose adds.
func (s *stack) requireImage(t *testing.T) {
	t.Helper()
	var found []struct {
		Config struct {
			User, WorkingDir string
			Labels           map[string]string
			Healthcheck      struct{ Test []string }
			ExposedPorts     map[string]any
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.must(t, "docker", "image", "inspect", "resilience-gateway:local")), &found))
	config := found[0].Config
	require.Equal(t, "65532:65532", config.User)
	require.Equal(t, "/", config.WorkingDir)
	require.Equal(t, []string{"CMD", "traefik", "healthcheck"}, config.Healthcheck.Test)
	require.Contains(t, config.ExposedPorts, "5000/tcp")
	for _, label := range []string{"title", "description", "source", "version", "revision"} {
		require.NotEmpty(t, config.Labels["org.opencontainers.image."+label], label)
	}
	for _, service := range []string{"proxy-service", "upstream", "redis"} {
		c := s.inspect(service)
		require.True(t, c.HostConfig.ReadonlyRootfs, service)
		require.Equal(t, []string{"ALL"}, c.HostConfig.CapDrop, service)
		require.Contains(t, strings.Join(c.HostConfig.SecurityOpt, " "), "no-new-privileges", service)
	}
}
