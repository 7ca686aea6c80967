package main

import "fmt"

// contender is one way to guard a route.
type contender string

const (
	none        contender = "none"             // no middleware
	noop        contender = "no-op"            // a plugin that does nothing
	builtin     contender = "built-in"         // Traefik's own RateLimit on Redis and its CircuitBreaker
	builtinOpen contender = "built-in breaker" // its CircuitBreaker alone
	ours        contender = "ours"
)

func (c contender) guards() bool { return c != none && c != noop }

func (w workload) path(c contender) string { return "/" + w.Name + "/" + slug(string(c)) }

// routes returns the dynamic configuration: for each workload and contender a route /<workload>/<contender>.
func routes(redis, upstream string) block {
	routers, middlewares := block{}, block{}
	var prefixes []string
	for _, w := range workloads {
		for c, chain := range w.guards(redis) {
			name := w.Name + "-" + slug(string(c))
			prefixes = append(prefixes, w.path(c))
			var used []string
			for i, middleware := range chain {
				id := fmt.Sprint(name, "-", i)
				middlewares[id] = middleware
				used = append(used, id)
			}
			routers[name] = block{
				"rule": "PathPrefix(`" + w.path(c) + "/`)", "entryPoints": []string{"web"},
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
	limiter := block{"rateLimit": block{
		"average": w.Rate, "period": w.Period, "burst": w.Capacity, "sourceCriterion": source,
		"redis": block{"endpoints": []string{redis}},
	}}
	breaker := block{"circuitBreaker": block{
		"expression": "ResponseCodeRatio(500, 600, 0, 600) > 0.5", "fallbackDuration": "1h", "checkPeriod": "100ms",
	}}
	resilience := block{
		"redis": block{"address": redis},
		"rateLimit": block{
			"capacity": w.Capacity, "refillRate": w.Rate, "refillPeriod": w.Period, "sourceCriterion": source,
		},
		"circuitBreaker": block{"failureThreshold": 5, "resetTimeout": "1h"},
	}
	guards := map[contender][]block{
		none: nil,
		noop: {block{"plugin": block{"noop": block{"any": 1}}}},
		ours: {block{"plugin": block{"resilience": resilience}}},
	}
	if w.open {
		guards[builtinOpen] = []block{breaker}
	} else {
		guards[builtin] = []block{limiter, breaker}
	}
	return guards
}
