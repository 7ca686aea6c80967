package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"gopkg.in/yaml.v3"
)

type block = map[string]any

// lab is what is measured: gateways before one upstream, with one Redis.
type lab struct {
	gateways []*gateway.Process
	webs     []string
	redis    *gateway.Redis
	upstream *gateway.Process
	dir      string
}

// conditions of a lab.
type conditions struct {
	root  string
	count int // of gateways
	gogc  string
	bare  bool // without metrics and access log
}

func newLab(c conditions) (l *lab, err error) {
	l = &lab{}
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
	upstream, err := gateway.FreeAddress()
	if err != nil {
		return l, err
	}
	if l.upstream, err = gateway.StartUpstream(c.root, upstream, io.Discard); err != nil {
		return l, err
	}
	if err := l.writePlugins(c.root); err != nil {
		return l, err
	}
	for i := range c.count {
		if err := l.startGateway(c, i, "http://"+upstream); err != nil {
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

func (l *lab) startGateway(c conditions, i int, upstream string) error {
	web, err := gateway.FreeAddress()
	if err != nil {
		return err
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
	content, err := yaml.Marshal(routes(l.redis.Address, upstream))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dynamic, "bench.yml"), content, 0o644); err != nil {
		return err
	}
	starter := &gateway.Traefik{
		Root: c.root, Dir: dir, WorkDir: l.dir, Web: web, API: api, Dynamic: dynamic, Log: io.Discard,
		Env: []string{"GOGC=" + c.gogc, "GOMEMLIMIT=512MiB"},
		Change: func(static map[string]any) {
			gateway.Set(static, "github.com/resilient-gateway/noop", "experimental", "localPlugins", "noop", "moduleName")
			if c.bare {
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
	l.webs = append(l.webs, web)
	return nil
}

func (l *lab) close() {
	for _, g := range l.gateways {
		g.Stop()
	}
	if l.upstream != nil {
		l.upstream.Stop()
	}
	if l.redis != nil {
		l.redis.Stop()
	}
	os.RemoveAll(l.dir)
}

// contender is one way to guard a route.
type contender string

const (
	none        contender = "none"     // no middleware
	noop        contender = "no-op"    // a plugin that does nothing
	builtin     contender = "built-in" // Traefik's own RateLimit on Redis and its CircuitBreaker
	builtinOpen contender = "built-in breaker"
	ours        contender = "ours"
)

// routes returns the dynamic configuration: for each workload and contender a route /<workload>/<contender>.
func routes(redis, upstream string) block {
	routers, middlewares := block{}, block{}
	var prefixes []string
	for _, w := range workloads {
		guards := w.guards(redis)
		for c, chain := range guards {
			name := w.name + "-" + string(c)
			name = slug(name)
			prefix := "/" + w.name + "/" + slug(string(c))
			prefixes = append(prefixes, prefix)
			var used []string
			for i, middleware := range chain {
				id := fmt.Sprint(name, "-", i)
				middlewares[id] = middleware
				used = append(used, id)
			}
			routers[name] = block{
				"rule": "PathPrefix(`" + prefix + "`)", "entryPoints": []string{"web"},
				"middlewares": append(used, "strip"), "service": "upstream",
			}
		}
	}
	middlewares["strip"] = block{"stripPrefix": block{"prefixes": prefixes}}
	return block{"http": block{
		"routers": routers, "middlewares": middlewares,
		"services": block{"upstream": block{"loadBalancer": block{"servers": []block{{"url": upstream}}}}},
	}}
}

// guards returns the middlewares of each contender under the workload's limit.
func (w workload) guards(redis string) map[contender][]block {
	source := block{"requestHeaderName": "X-Client"}
	builtinBreaker := block{"circuitBreaker": block{
		"expression": "ResponseCodeRatio(500, 600, 0, 600) > 0.5", "fallbackDuration": "1h", "checkPeriod": "100ms",
	}}
	resilience := block{
		"redis":          block{"address": redis},
		"rateLimit":      block{"capacity": w.capacity, "refillRate": w.rate, "sourceCriterion": source},
		"circuitBreaker": block{"failureThreshold": 5, "resetTimeout": "1h"},
	}
	guards := map[contender][]block{
		none: nil,
		noop: {block{"plugin": block{"noop": block{"any": 1}}}},
		builtin: {
			block{"rateLimit": block{
				"average": w.rate, "burst": w.capacity, "sourceCriterion": maps.Clone(source),
				"redis": block{"endpoints": []string{redis}},
			}},
			builtinBreaker,
		},
		ours: {block{"plugin": block{"resilience": resilience}}},
	}
	if w.open {
		guards[builtinOpen] = []block{builtinBreaker}
		delete(guards, builtin)
	}
	return guards
}
