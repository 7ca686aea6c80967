package compose

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// state is the folder where deploy.sh keeps what it deployed.
func (s *stack) state() string {
	var folder string
	for _, line := range s.env {
		if value, found := strings.CutPrefix(line, "DEPLOY_STATE="); found {
			folder = value
		}
	}
	return filepath.Join(folder, s.name)
}

// clients send requests one after another, and count those that were not answered with 200.
type clients struct {
	stop chan struct{}
	done sync.WaitGroup
	sent int
	lost []string

	slowest time.Duration
}

func (s *stack) startClients() *clients {
	c := &clients{stop: make(chan struct{})}
	c.done.Go(func() {
		for {
			select {
			case <-c.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			c.sent++
			begun := time.Now()
			r := s.get("/proxy/ok")
			c.slowest = max(c.slowest, time.Since(begun))
			if r.status != http.StatusOK {
				c.lost = append(c.lost, fmt.Sprint(r.status, " ", r.body))
			}
		}
	})
	return c
}

// requireNoneLost ends the clients.
func (c *clients) requireNoneLost(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.done.Wait()
	require.Empty(t, c.lost, "of %d requests", c.sent)
	require.Greater(t, c.sent, 10)
}

// TestDeploy_refuses deploys what cannot work over a healthy stack, which answers every request meanwhile.
func TestDeploy_refuses(t *testing.T) {
	s := newProduction(t, "RATE_LIMIT_CAPACITY=1000000", "RATE_LIMIT_REFILL_RATE=1000")
	output, code := s.deploy("prod")
	require.Zero(t, code, output)
	taken, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer taken.Close()
	dollar := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(dollar, []byte("REDIS_PASSWORD=correct$horse-battery-staple\n"), 0o600))
	running := s.mustCompose("ps", "--quiet")
	redis := s.inspect("redis").ID

	for _, row := range []struct {
		name string
		env  []string
		want []string
	}{
		{"a number with a comma", []string{"RATE_LIMIT_CAPACITY=1,000"}, []string{`RATE_LIMIT_CAPACITY: "1,000" is not a whole number`}},
		{"seconds with a unit", []string{"CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=30s"}, []string{`"30s" is not a number of seconds; write 30`}},
		{"a URL without scheme", []string{"UPSTREAM_URL=upstream:8081"}, []string{`UPSTREAM_URL: "upstream:8081" has no scheme; write http://upstream:8081`}},
		{"a taken port", []string{fmt.Sprint("PORT=", taken.Addr().(*net.TCPAddr).Port)}, []string{"a port is taken", fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)}},
		{"no port", []string{"PORT=http"}, []string{`PORT: "http" is not a port`}},
		{"an unknown image", []string{"GATEWAY_IMAGE=127.0.0.1:1/nowhere:1"}, []string{"127.0.0.1:1", "an image could not be had"}},
		{"less space than is asked for", []string{"DEPLOY_SPACE=99999999"}, []string{"the disk of Docker has "}},
		{"a full disk", nil, []string{"the disk of Docker has ", "200"}},
		{"a secret that Compose would change", []string{"ENV_FILE=" + dollar}, []string{"REDIS_PASSWORD in ", "single quotes"}},
		{"an override that is missing", []string{"COMPOSE_OVERRIDE=none.yml"}, []string{"COMPOSE_OVERRIDE: none.yml cannot be read"}},
		{
			"all of it at once", []string{"RATE_LIMIT_CAPACITY=1,000", "UPSTREAM_URL=shop", "PORT=0", "REDIS_DB=x"},
			[]string{"RATE_LIMIT_CAPACITY: ", "UPSTREAM_URL: ", "PORT: ", "REDIS_DB: "},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.name == "a full disk" && disk != "" {
				fillDisk(t, 100<<20)
			} else if row.name == "a full disk" {
				return // not this test's disk; the row before shows the refusal
			}
			sending := s.startClients()
			begun := time.Now()
			output, code := s.with(row.env...).deploy("prod")
			took := time.Since(begun)
			require.Equal(t, 1, code, output)
			for _, text := range append(row.want, "nothing was changed") {
				if strings.HasPrefix(text, "nothing") && strings.HasPrefix(row.name, "an override") {
					continue
				}
				require.Contains(t, output, text)
			}
			require.NotContains(t, output, "30ss")
			require.Less(t, took, 10*time.Second, output)
			sending.requireNoneLost(t)
			require.Equal(t, running, s.mustCompose("ps", "--quiet"), "the containers are the same")
			t.Logf("refused after %s", took.Round(100*time.Millisecond))
		})
	}
	t.Run("nothing of the check stays", func(t *testing.T) {
		for _, kind := range []string{"container", "volume", "network"} {
			require.Empty(t, s.must(t, "docker", kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project="+s.name+"-check"), kind)
		}
	})
	t.Run("a setting that fails only when it runs returns to the former settings", func(t *testing.T) {
		begun := time.Now()
		output, code := s.with("UPSTREAM_URL=http://127.0.0.1:9").deploy("prod")
		took := time.Since(begun)
		require.Equal(t, 1, code, output)
		require.Contains(t, output, "/proxy/ok answers 502")
		require.Contains(t, output, "Going back to the images and settings that ran before")
		require.Less(t, took, time.Minute, output)
		require.Equal(t, redis, s.inspect("redis").ID, "what did not change is left alone")
		require.Contains(t, s.inspect("proxy-service").Config.Env, "UPSTREAM_URL=http://upstream:8081")
		require.Contains(t, s.inspect("proxy-service").Config.Env, "REDIS_PASSWORD="+password)
		s.requireHealthy()
		s.await("/proxy/ok", http.StatusOK, 10*time.Second)
		t.Logf("back after %s", took.Round(100*time.Millisecond))
	})
	t.Run("what Traefik has disabled is printed", func(t *testing.T) {
		routes := filepath.Join(t.TempDir(), "routers.yml")
		const broken = "http: {routers: {proxy: {rule: PathPrefix(`/proxy`), middlewares: [nobody], service: upstream}}}\n"
		require.NoError(t, os.WriteFile(routes, []byte(broken), 0o644))
		image := s.variant(s.images()["proxy-service"], "disabled", "LABEL disabled=yes", routes, "/etc/traefik/dynamic/routers.yml")
		output, code := s.with("GATEWAY_IMAGE="+image, "SMOKE_PATH=/proxy/ok").deploy("prod")
		require.Equal(t, 1, code, output)
		require.Contains(t, output, "router proxy@file is disabled")
		require.Contains(t, output, "nobody@file")
	})
	t.Run("a service of two seconds, from an override, without the dummy", func(t *testing.T) {
		override := filepath.Join(t.TempDir(), "override.yml")
		const shop = "services:\n  shop:\n    image: resilience-upstream:local\n    networks: [backend]\n"
		require.NoError(t, os.WriteFile(override, []byte(shop), 0o644))
		output, code := s.with("COMPOSE_OVERRIDE="+override, "UPSTREAM_URL=http://shop:8081", "SMOKE_PATH=/proxy/slow?seconds=2").deploy("prod")
		require.Zero(t, code, output)
		require.Contains(t, output, "a 429: passed")
		require.Empty(t, s.mustCompose("ps", "--all", "--quiet", "upstream"))
		require.Equal(t, http.StatusOK, s.get("/proxy/ok").status)
	})
	t.Run("rollback returns the settings too", func(t *testing.T) {
		output, code := s.with("RATE_LIMIT_CAPACITY=wrong", "PORT=wrong").deploy("rollback")
		require.Zero(t, code, output)
		require.Contains(t, s.inspect("proxy-service").Config.Env, "UPSTREAM_URL=http://upstream:8081")
		require.Equal(t, http.StatusOK, s.get("/proxy/ok").status)
	})
}
