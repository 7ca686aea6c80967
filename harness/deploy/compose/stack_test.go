package compose

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stack is a Compose project of a test's own.
type stack struct {
	command
	t    *testing.T
	file string
	name string
	web  string // host and port
	api  string

	password string // of Redis
}

// newStack makes a project of the file with the given environment, and takes it down when the test ends.
func newStack(t *testing.T, file string, env ...string) *stack {
	t.Helper()
	web, api := freePort(t), freePort(t)
	s := &stack{
		t: t, file: file, name: fmt.Sprintf("resilience-test-%d-%s", os.Getpid(), web),
		web: "127.0.0.1:" + web, api: "127.0.0.1:" + api,
	}
	s.env = append(standIns(), "COMPOSE_PROJECT_NAME="+s.name, "PORT="+web, "DASHBOARD_PORT="+api, "DOCKER_SOCKET="+socket,
		"DEPLOY_STATE="+t.TempDir())
	s.env = append(s.env, env...)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := s.compose("logs", "--no-color", "--tail", "60")
			t.Log(logs)
		}
		s.compose("--profile", "*", "down", "--volumes", "--timeout", "5", "--remove-orphans")
	})
	return s
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// with returns the same project with more in its environment.
func (s *stack) with(env ...string) *stack {
	changed := *s
	changed.env = append(slices.Clone(s.env), env...)
	return &changed
}

func (s *stack) compose(args ...string) (output string, code int) {
	s.t.Helper()
	return s.run(s.t, "docker", append([]string{"compose", "--file", s.file}, args...)...)
}

func (s *stack) mustCompose(args ...string) string {
	s.t.Helper()
	output, code := s.compose(args...)
	require.Zero(s.t, code, "docker compose %s:\n%s", strings.Join(args, " "), output)
	return output
}

// redis runs redis-cli where Redis is.
func (s *stack) redis(args ...string) string {
	s.t.Helper()
	exec := []string{"exec", "-T"}
	if s.password != "" {
		exec = append(exec, "-e", "REDISCLI_AUTH="+s.password)
	}
	return strings.TrimSpace(s.mustCompose(append(append(exec, "redis", "redis-cli"), args...)...))
}

// requireBucket sees the client's bucket in Redis. A gateway that found Redis slow, as on a busy machine, limits by itself
// until it has tried again.
func (s *stack) requireBucket(redis ...string) {
	s.t.Helper()
	var keys string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		s.burst(50, "/proxy/ok")
		keys = s.redis(append(redis, "--scan", "--pattern", "resilience:{gateway}:bucket:*")...)
		if strings.Contains(keys, "bucket:ip:") {
			return
		}
	}
	require.Fail(s.t, "no bucket in Redis", keys)
}

// container is what docker inspect says of a container.
type container struct {
	ID    string `json:"Id"`
	Image string
	State struct {
		Status string
		Health struct{ Status string }
	}
	Config struct {
		User, WorkingDir string
		Env              []string
		Labels           map[string]string
	}
	HostConfig struct {
		Memory, MemoryReservation, NanoCpus, PidsLimit int64
		ReadonlyRootfs                                 bool
		CapDrop, SecurityOpt, Binds, GroupAdd          []string
		Tmpfs                                          map[string]string
		RestartPolicy                                  struct{ Name string }
		LogConfig                                      struct {
			Type   string
			Config map[string]string
		}
		PortBindings map[string]any
	}
	Mounts          []struct{ Type, Name, Destination string }
	NetworkSettings struct{ Networks map[string]any }
}

func (s *stack) inspect(service string) container {
	s.t.Helper()
	id := strings.TrimSpace(s.mustCompose("ps", "--all", "--quiet", service))
	require.NotEmpty(s.t, id, "%s has no container", service)
	var found []container
	require.NoError(s.t, json.Unmarshal([]byte(s.must(s.t, "docker", "inspect", id)), &found))
	require.Len(s.t, found, 1)
	return found[0]
}

func (s *stack) images() map[string]string {
	images := map[string]string{}
	for _, service := range []string{"proxy-service", "upstream", "redis"} {
		images[service] = s.inspect(service).Image
	}
	return images
}

func (s *stack) requireHealthy() {
	s.t.Helper()
	for _, service := range []string{"proxy-service", "upstream", "redis"} {
		require.Eventually(s.t, func() bool { return s.inspect(service).State.Health.Status == "healthy" },
			time.Minute, 500*time.Millisecond, service)
	}
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 100}}

func (s *stack) get(path string) reply { return get("http://" + s.web + path) }

func get(url string) reply {
	response, err := client.Get(url)
	if err != nil {
		return reply{body: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{body: err.Error()}
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

// await waits until the path answers with the status.
func (s *stack) await(path string, status int, patience time.Duration) {
	s.t.Helper()
	var last reply
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if last = s.get(path); last.status == status {
			return
		}
	}
	require.Equal(s.t, status, last.status, "%s after %s: %s", path, patience, last.body)
}

// burst sends n requests, twenty at once, and counts the answers by their status.
func (s *stack) burst(n int, path string) map[int]int {
	counts := map[int]int{}
	var mu sync.Mutex // guards counts
	var done sync.WaitGroup
	for worker := range 20 {
		done.Go(func() {
			for i := worker; i < n; i += 20 {
				status := s.get(path).status
				mu.Lock()
				counts[status]++
				mu.Unlock()
			}
		})
	}
	done.Wait()
	return counts
}

func statuses(counts map[int]int) []int { return slices.Sorted(maps.Keys(counts)) }
