package main

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience"
)

// parameter is a variable that the dynamic files pass to a key of the middleware.
type parameter struct {
	name, byDefault string
	key             string
	set             func(c *resilience.Config, value string)
}

// parameters are those of the dynamic files, with their defaults.
var parameters = []parameter{
	{"RATE_LIMIT_CAPACITY", "100", "rateLimit.capacity", func(c *resilience.Config, v string) { c.RateLimit.Capacity = v }},
	{"RATE_LIMIT_REFILL_RATE", "10", "rateLimit.refillRate", func(c *resilience.Config, v string) { c.RateLimit.RefillRate = v }},
	{"RATE_LIMIT_REFILL_PERIOD", "1s", "rateLimit.refillPeriod", func(c *resilience.Config, v string) { c.RateLimit.RefillPeriod = v }},
	{"CIRCUIT_BREAKER_FAILURE_THRESHOLD", "5", "circuitBreaker.failureThreshold",
		func(c *resilience.Config, v string) { c.CircuitBreaker.FailureThreshold = v }},
	{resetSeconds, "30", "circuitBreaker.resetTimeout", func(c *resilience.Config, v string) { c.CircuitBreaker.ResetTimeout = v + "s" }},
	{"CIRCUIT_BREAKER_HALF_OPEN_SUCCESS_THRESHOLD", "2", "circuitBreaker.halfOpenSuccessThreshold",
		func(c *resilience.Config, v string) { c.CircuitBreaker.HalfOpenSuccessThreshold = v }},
}

const resetSeconds = "CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS"

var isNumber = regexp.MustCompile(`^[0-9]+([.][0-9]+)?$`)

// checkVariables has the plugin's own reader check the values of the parameters, one by one and then together, and returns what is wrong
// with them, by the names of the variables.
func checkVariables(values []variable) (problems []string) {
	whole := &resilience.Config{RateLimit: &resilience.RateLimitConfig{}, CircuitBreaker: &resilience.CircuitBreakerConfig{}}
	for i, p := range parameters {
		value := values[i].value
		p.set(whole, value)
		if p.name == resetSeconds && !isNumber.MatchString(value) {
			problems = append(problems, fmt.Sprintf("%s: %q is not a number of seconds, without a unit; write %s", p.name, value, inSeconds(value, p.byDefault)))
			continue
		}
		single := &resilience.Config{RateLimit: &resilience.RateLimitConfig{}, CircuitBreaker: &resilience.CircuitBreakerConfig{}}
		p.set(single, value)
		if problem := check(single); problem != "" {
			problem = strings.Replace(problem, p.key+":", p.name+":", 1)
			problem = strings.Replace(problem, "make refillPeriod longer", "make RATE_LIMIT_REFILL_PERIOD longer", 1)
			if p.name == resetSeconds {
				problem = strings.Replace(problem, fmt.Sprintf("%q", value+"s"), fmt.Sprintf("%q seconds", value), 1)
			}
			problems = append(problems, problem)
		}
	}
	if problems != nil {
		return problems
	}
	if problem := check(whole); problem != "" {
		problems = append(problems, strings.Replace(problem, "rateLimit:", "RATE_LIMIT_CAPACITY, RATE_LIMIT_REFILL_RATE, RATE_LIMIT_REFILL_PERIOD:", 1))
	}
	return problems
}

// inSeconds returns a duration as a number of seconds, or the default.
func inSeconds(text, byDefault string) string {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return byDefault
	}
	return fmt.Sprint(d.Seconds())
}

// check returns what is wrong with a configuration, or "".
func check(config *resilience.Config) string {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := resilience.New(ctx, http.NotFoundHandler(), config, "gateway"); err != nil {
		return err.Error()
	}
	return ""
}
