package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"gopkg.in/yaml.v3"
)

type block = map[string]any

// lab is what a workload is measured in: gateways before one upstream, with one Redis.
type lab struct {
	gateways []*gateway.Process
	webs     []map[contender]string // their public addresses
	apis     []string               // and their internal ones
	redis    *gateway.Redis
	delay    *gateway.Delay // before the Redis, or nil
	upstream *gateway.Process
	address  string // of the upstream
	dir      string
	bare     bool
	made     map[contender]int // keys in Redis, since it was empty
}

// setting is what a lab is set up with.
type setting struct {
	GOGC       int    `json:"gogc"`
	GOMEMLIMIT string `json:"gomemlimit"`
	Bare       bool   `json:"bare"`       // without metrics and access log
	RedisDelay string `json:"redisDelay"` // added to each round trip
}

func (s setting) String() string {
	static := "shipped static configuration"
	if s.Bare {
		static = "without metrics and access log"
	}
	text := fmt.Sprintf("%s, GOGC=%d", static, s.GOGC)
	if s.RedisDelay != "0s" {
		text += ", Redis " + s.RedisDelay + " away"
	}
	return text
}

func newLab(root string, s setting, w workload) (l *lab, err error) {
	l = &lab{bare: s.Bare, made: map[contender]int{}}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return l, err
	}
	address, err := gateway.FreeAddress()
	if err != nil {
		return l, err
	}
	if l.redis, err = gateway.StartRedis(address, l.dir, io.Discard); err != nil {
		return l, err
	}
	added, err := time.ParseDuration(s.RedisDelay)
	if err != nil {
		return l, err
	}
	if added > 0 {
		if l.delay, err = gateway.StartDelay(address, added); err != nil {
			return l, err
		}
		address = l.delay.Address
	}
	if l.address, err = gateway.FreeAddress(); err != nil {
		return l, err
	}
	if l.upstream, err = gateway.StartUpstream(root, l.address, io.Discard); err != nil {
		return l, err
	}
	if err := l.writePlugins(root); err != nil {
		return l, err
	}
	for i := range w.Gateways {
		if err := l.startGateway(root, s, w, i, address); err != nil {
			return l, err
		}
	}
	return l, nil
}

// writePlugins makes a working directory with our bundle, and the plugin that does nothing beside it.
func (l *lab) writePlugins(root string) error {
	source := filepath.Join(l.dir, "plugins-local", "src", "github.com", "resilient-gateway")
	bundle := filepath.Join(root, "dist", "plugins-local", "src", "github.com", "resilient-gateway", "resilience")
	if err := os.CopyFS(filepath.Join(source, "resilience"), os.DirFS(bundle)); err != nil {
		return fmt.Errorf("%w; run: make bundle", err)
	}
	return os.CopyFS(filepath.Join(source, "noop"), os.DirFS(filepath.Join(root, "harness", "bench", "noop")))
}

func (l *lab) startGateway(root string, s setting, w workload, i int, redis string) error {
	webs := map[contender]string{}
	for c := range w.guards(redis) {
		var err error
		if webs[c], err = gateway.FreeAddress(); err != nil {
			return err
		}
	}
	api, err := gateway.FreeAddress()
	if err != nil {
		return err
	}
	dir := filepath.Join(l.dir, fmt.Sprint("gateway", i))
	dynamic := filepath.Join(dir, "dynamic")
	if err := os.MkdirAll(dynamic, 0o755); err != nil {
		return err
	}
	content, err := yaml.Marshal(w.routes(redis, "http://"+l.address))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dynamic, "bench.yml"), content, 0o644); err != nil {
		return err
	}
	starter := &gateway.Traefik{
		Root: root, Dir: dir, WorkDir: l.dir, API: api, Dynamic: dynamic, Log: io.Discard,
		Env: []string{fmt.Sprint("GOGC=", s.GOGC), "GOMEMLIMIT=" + s.GOMEMLIMIT},
		Change: func(static map[string]any) {
			gateway.Set(static, "github.com/resilient-gateway/noop", "experimental", "localPlugins", "noop", "moduleName")
			addEntryPoints(static, webs)
			if s.Bare {
				delete(static, "metrics")
				delete(static, "accessLog")
			}
		},
	}
	process, err := starter.Start()
	if err != nil {
		return err
	}
	l.gateways = append(l.gateways, process)
	l.webs = append(l.webs, webs)
	l.apis = append(l.apis, api)
	return nil
}

// addEntryPoints puts a public entry point for each contender in the place of the one that there is.
func addEntryPoints(static block, webs map[contender]string) {
	points := static["entryPoints"].(block)
	for c, address := range webs {
		point := maps.Clone(points["web"].(block))
		point["address"] = address
		points[c.slug()] = point
	}
	delete(points, "web")
}

func (l *lab) close() {
	for _, g := range l.gateways {
		g.Stop()
	}
	if l.upstream != nil {
		l.upstream.Stop()
	}
	if l.delay != nil {
		l.delay.Stop()
	}
	if l.redis != nil {
		l.redis.Stop()
	}
	os.RemoveAll(l.dir)
}
