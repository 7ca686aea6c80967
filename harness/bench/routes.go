package main

import (
	"fmt"
	"strings"
)

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

func (c contender) slug() string { return strings.ReplaceAll(string(c), " ", "-") }

// routes returns the dynamic configuration: a route for each contender, at an entry point of its own. At one entry point Traefik tries
// one route after the other, those with long rules first, and whose name is short would pay for all before it.
func (w workload) routes(redis, upstream string) block {
	routers, middlewares := block{}, block{}
	for c, chain := range w.guards(redis) {
		var used []string
		for i, middleware := range chain {
			id := fmt.Sprint(c.slug(), "-", i)
			middlewares[id] = middleware
			used = append(used, id)
		}
		routers[c.slug()] = block{
			"rule": "PathPrefix(`/`)", "entryPoints": []string{c.slug()}, "middlewares": used, "service": "upstream",
		}
	}
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
