package standing

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const (
	patience = "5s" // redis.timeout: the gateways never decide without Redis
	soon     = 30 * time.Second
)

// member is a gateway.
type member struct {
	web     string
	process *gateway.Process
	log     *gateway.Log
	client  *http.Client
}

func startFleet(t testing.TB, o Options) *fleet {
	t.Helper()
	f := &fleet{t: t, options: o, redis: redistest.Start(t)}
	f.history.begun = time.Now()
	f.service = serve(t, &f.history)
	f.folder = t.TempDir()
	content, err := yaml.Marshal(f.dynamic())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(f.folder, "standing.yml"), content, 0o644))
	t.Cleanup(func() {
		for _, g := range f.live() {
			f.kill(g)
		}
	})
	var started sync.WaitGroup
	for range o.Gateways {
		started.Go(f.start)
	}
	started.Wait()
	require.Len(t, f.live(), o.Gateways)
	require.Eventually(t, func() bool { return f.redis.Int("ZCARD", "resilience:{c1000}:gateways") == int64(o.Gateways) }, soon, 20*time.Millisecond)
	time.Sleep(time.Second) // they wait until their tokens are refilled
	return f
}

// dynamic returns the dynamic configuration. Two middlewares share the buckets of each limit: one takes a token and may use standing ones, and
// one takes what its request says.
func (f *fleet) dynamic() map[string]any {
	type block = map[string]any
	routers, middlewares := block{}, block{}
	for _, l := range limits {
		for _, suffix := range []string{"", "/spend"} {
			limit := block{"capacity": l.capacity, "refillRate": l.rate, "sourceCriterion": block{"requestHeaderName": "X-Key"}}
			name := l.name()
			if suffix != "" {
				name += "-spend"
				limit["cost"] = block{"header": "X-Cost", "max": l.capacity}
			}
			middlewares[name] = block{"plugin": block{"resilience": block{
				"name":      l.name(),
				"redis":     block{"address": f.redis.Addr(), "timeout": patience, "dialTimeout": patience, "onError": "deny"},
				"rateLimit": limit,
			}}}
			routers[name] = block{"rule": "Path(`/" + l.name() + suffix + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "service"}
		}
	}
	return block{"http": block{
		"middlewares": middlewares, "routers": routers,
		"services": block{"service": block{"loadBalancer": block{"servers": []block{{"url": f.service}}}}},
	}}
}

// start starts a gateway, and has it register for each limit.
func (f *fleet) start() {
	g := &member{log: &gateway.Log{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: soon}}
	web, err := gateway.FreeAddress()
	assert.NoError(f.t, err)
	api, err := gateway.FreeAddress()
	assert.NoError(f.t, err)
	dir, err := os.MkdirTemp("", "standing")
	assert.NoError(f.t, err)
	defer os.RemoveAll(dir)
	g.web = web
	starter := &gateway.Traefik{
		Root: f.options.Root, Dir: dir, Web: web, API: api, Dynamic: f.folder, Log: g.log,
		Change: func(static map[string]any) {
			delete(static, "accessLog")
			delete(static, "metrics")
		},
	}
	g.process, err = starter.Start()
	if !assert.NoError(f.t, err, g.log.String()) {
		return
	}
	for _, l := range limits {
		for latest := time.Now().Add(soon); f.send(g, l, "start", 1) != http.StatusOK; time.Sleep(20 * time.Millisecond) {
			if !assert.True(f.t, time.Now().Before(latest), "a started gateway does not answer: %s", g.log.String()) {
				g.process.Kill()
				return
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gateways = append(f.gateways, g)
}

// kill ends a gateway at once.
func (f *fleet) kill(g *member) {
	f.mu.Lock()
	f.gateways = slices.DeleteFunc(f.gateways, func(other *member) bool { return other == g })
	f.mu.Unlock()
	g.process.Kill()
	g.client.CloseIdleConnections()
	f.kills++
	assert.NotContains(f.t, g.log.String(), "panic:")
}

// serve starts a service that records when each request arrived.
func serve(t testing.TB, h *history) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: h}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}
