package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"gopkg.in/yaml.v3"
)

type block = map[string]any

// testbed is the set of processes that a workload is measured with: gateways in front of one upstream, and one Redis.
type testbed struct {
	configuration   configuration
	gateways        []*gateway.Process
	webAddresses    []map[contender]string // public, by gateway
	apiAddresses    []string               // internal, by gateway
	redis           *gateway.Redis
	delay           *gateway.Delay // in front of Redis, or nil
	upstream        *gateway.Process
	upstreamAddress string
	dir             string
	keysCreated     map[contender]int // in Redis, since it was last emptied
}

func newTestbed(root string, c configuration, w workload) (t *testbed, err error) {
	t = &testbed{configuration: c, keysCreated: map[contender]int{}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return t, err
	}
	address, err := gateway.FreeAddress()
	if err != nil {
		return t, err
	}
	if t.redis, err = gateway.StartRedis(address, t.dir, io.Discard); err != nil {
		return t, err
	}
	added, err := time.ParseDuration(c.RedisDelay)
	if err != nil {
		return t, err
	}
	if added > 0 {
		if t.delay, err = gateway.StartDelay(address, added); err != nil {
			return t, err
		}
		address = t.delay.Address
	}
	if t.upstreamAddress, err = gateway.FreeAddress(); err != nil {
		return t, err
	}
	if t.upstream, err = gateway.StartUpstream(root, t.upstreamAddress, io.Discard); err != nil {
		return t, err
	}
	if err := t.writePlugins(root); err != nil {
		return t, err
	}
	for i := range w.Gateways {
		if err := t.startGateway(root, w, i, address); err != nil {
			return t, err
		}
	}
	return t, nil
}

// writePlugins makes a working directory with the bundle of the plugin, and with the no-op plugin.
func (t *testbed) writePlugins(root string) error {
	source := filepath.Join(t.dir, "plugins-local", "src", "github.com", "resilient-gateway")
	bundle := filepath.Join(root, "dist", "plugins-local", "src", "github.com", "resilient-gateway", "resilience")
	if err := os.CopyFS(filepath.Join(source, "resilience"), os.DirFS(bundle)); err != nil {
		return fmt.Errorf("%w; run: make bundle", err)
	}
	return os.CopyFS(filepath.Join(source, "noop"), os.DirFS(filepath.Join(root, "harness", "bench", "noop")))
}

func (t *testbed) startGateway(root string, w workload, i int, redis string) error {
	web := map[contender]string{}
	for c := range w.middlewares(redis) {
		var err error
		if web[c], err = gateway.FreeAddress(); err != nil {
			return err
		}
	}
	api, err := gateway.FreeAddress()
	if err != nil {
		return err
	}
	dir := filepath.Join(t.dir, fmt.Sprint("gateway", i))
	dynamic := filepath.Join(dir, "dynamic")
	if err := os.MkdirAll(dynamic, 0o755); err != nil {
		return err
	}
	content, err := yaml.Marshal(w.routes(redis, "http://"+t.upstreamAddress))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dynamic, "bench.yml"), content, 0o644); err != nil {
		return err
	}
	traefik := newTraefik(t.configuration, web)
	traefik.Root, traefik.Dir, traefik.WorkDir, traefik.API, traefik.Dynamic = root, dir, t.dir, api, dynamic
	process, err := traefik.Start()
	if err != nil {
		return err
	}
	t.gateways = append(t.gateways, process)
	t.webAddresses = append(t.webAddresses, web)
	t.apiAddresses = append(t.apiAddresses, api)
	return t.verifyMetrics(api)
}

// newTraefik returns a Traefik of the configuration, with an entry point for each contender.
func newTraefik(c configuration, web map[contender]string) *gateway.Traefik {
	return &gateway.Traefik{
		Log: io.Discard,
		Env: c.environment(),
		Change: func(static map[string]any) {
			gateway.Set(static, "github.com/resilient-gateway/noop", "experimental", "localPlugins", "noop", "moduleName")
			addEntryPoints(static, web)
			c.apply(static)
		},
	}
}

// verifyMetrics checks that the running Traefik has metrics if, and only if, its configuration says so.
func (t *testbed) verifyMetrics(api string) error {
	response, err := http.Get("http://" + api + "/metrics")
	if err != nil {
		return err
	}
	response.Body.Close()
	if has := response.StatusCode == http.StatusOK; has != t.configuration.Metrics {
		return fmt.Errorf("traefik's /metrics answers %s, but the case has %s", response.Status, t.configuration.observability())
	}
	return nil
}

// addEntryPoints replaces the public entry point by one for each contender.
func addEntryPoints(static block, web map[contender]string) {
	points := static["entryPoints"].(block)
	for c, address := range web {
		point := maps.Clone(points["web"].(block))
		point["address"] = address
		points[c.slug()] = point
	}
	delete(points, "web")
}

func (t *testbed) close() {
	for _, g := range t.gateways {
		g.Stop()
	}
	if t.upstream != nil {
		t.upstream.Stop()
	}
	if t.delay != nil {
		t.delay.Stop()
	}
	if t.redis != nil {
		t.redis.Stop()
	}
	os.RemoveAll(t.dir)
}
