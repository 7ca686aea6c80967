package main

import (
	"fmt"
	"maps"
	"strings"
)

// contender is a route with its middlewares, which the others are compared with.
type contender string

const (
	none        contender = "none"             // no middleware
	noop        contender = "no-op"            // a plugin that only calls the next handler
	builtin     contender = "built-in"         // Traefik's own RateLimit on Redis and its CircuitBreaker
	builtinOpen contender = "built-in breaker" // its CircuitBreaker alone
	ours        contender = "ours"
)

// mayRefuse reports whether the contender has a limiter or a circuit breaker.
func (c contender) mayRefuse() bool { return c != none && c != noop }

// slug returns the contender's name for use in configuration.
func (c contender) slug() string { return strings.ReplaceAll(string(c), " ", "-") }

// routes returns the dynamic configuration: a route for each contender, each at a separate entry point. At a shared entry point Traefik
// would try the routes one after the other, and a request would pay for those that are tried first.
func (w workload) routes(redis, upstream string) block {
	routers, all := block{}, block{}
	for c, chain := range w.middlewares(redis) {
		var used []string
		for i, middleware := range chain {
			id := fmt.Sprint(c.slug(), "-", i)
			all[id] = middleware
			used = append(used, id)
		}
		routers[c.slug()] = block{
			"rule": "PathPrefix(`/`)", "entryPoints": []string{c.slug()}, "middlewares": used, "service": "upstream",
		}
	}
	return block{"http": block{
		"routers": routers, "middlewares": all,
		"services": block{"upstream": block{"loadBalancer": block{"servers": []block{{"url": upstream}}}}},
	}}
}

// middlewares returns the middlewares of each contender, with the limit of the workload.
func (w workload) middlewares(redis string) map[contender][]block {
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
	limiters := []block{limiter}
	if w.several {
		hour, everyone := maps.Clone(limiter["rateLimit"].(block)), maps.Clone(limiter["rateLimit"].(block))
		hour["average"], hour["period"], hour["burst"] = perHour, "1h", perHour
		everyone["sourceCriterion"] = block{"requestHost": true}
		limiters = append(limiters, block{"rateLimit": hour}, block{"rateLimit": everyone})
		resilience["rateLimit"].(block)["limits"] = block{
			"hour":     block{"capacity": perHour, "refillRate": perHour, "refillPeriod": "1h"},
			"everyone": block{"sourceCriterion": block{"all": true}},
		}
	}
	chains := map[contender][]block{
		none: nil,
		noop: {block{"plugin": block{"noop": block{"any": 1}}}},
		ours: {block{"plugin": block{"resilience": resilience}}},
	}
	if w.open {
		chains[builtinOpen] = []block{breaker}
	} else {
		chains[builtin] = append(limiters, breaker)
	}
	return chains
}
