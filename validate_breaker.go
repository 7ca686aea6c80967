package resilience

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/policy"
)

func readCircuitBreaker(r *problems, s *settings, c *CircuitBreakerConfig) {
	r.unknown("circuitBreaker.", c.Unknown,
		"failureThreshold", "resetTimeout", "halfOpenSuccessThreshold", "halfOpenMaxProbes", "probeTimeout", "hangTimeout",
		"failureRatio", "slowRatio", "slowDuration", "window", "minimumRequests",
		"failureAge", "halfOpenFailureThreshold", "resetBackoff", "maxResetTimeout", "resetJitter", "recovery", "rampDuration", "minGateways", "scope", "dryRun", "failureStatus", "failureGrpcStatus", "ignore")
	ratios, ratioText := readRatios(r, s, c)
	lowest := int64(1)
	if ratios.Window > 0 {
		lowest = 0
	}
	failures := r.count("circuitBreaker.failureThreshold", c.FailureThreshold, lowest, maxCount, 5)
	reset := r.duration("circuitBreaker.resetTimeout", c.ResetTimeout, time.Microsecond, 30*time.Second)
	successes := r.count("circuitBreaker.halfOpenSuccessThreshold", c.HalfOpenSuccessThreshold, 1, maxCount, 2)
	probes := successes
	if probes > maxProbes {
		probes = maxProbes
	}
	probes = r.count("circuitBreaker.halfOpenMaxProbes", c.HalfOpenMaxProbes, 1, maxProbes, probes)
	s.probeTimeout = r.duration("circuitBreaker.probeTimeout", c.ProbeTimeout, time.Microsecond, 10*time.Second)
	rules, more := readBreakerRules(r, c, ratios, reset)
	more = ratioText + more
	s.policy = breaker.NewPolicy(failures, reset, successes, probes, s.probeTimeout).With(rules)
	s.hangTimeout = r.durationOrNever("circuitBreaker.hangTimeout", c.HangTimeout, time.Microsecond, 0)
	opens := "is open for"
	if failures > 0 {
		opens = fmt.Sprintf("opens after %d failures, for", failures)
	}
	part := fmt.Sprintf("circuit breaker: %s %s; closes after %d successes, of %d probes at once, each within %s",
		opens, reset, successes, probes, s.probeTimeout)
	if s.hangTimeout > 0 {
		part += fmt.Sprintf("; no response headers within %s is a failure", s.hangTimeout)
	}
	more += readScope(r, s, c.Scope)
	s.breakerDryRun = r.flag("circuitBreaker.dryRun", c.DryRun)
	if s.breakerDryRun {
		more += "; dry run, nothing is refused"
	}
	s.parts = append(s.parts, part+more+readFaults(r, s, c))
}

// readBreakerRules adds the further rules of the breaker to its ratios. It returns those that are not the default in words, too.
func readBreakerRules(r *problems, c *CircuitBreakerConfig, rules breaker.Rules, reset time.Duration) (_ breaker.Rules, text string) {
	rules.FailureAge = r.durationOrNever("circuitBreaker.failureAge", c.FailureAge, time.Second, 0)
	if rules.FailureAge > 0 {
		text += fmt.Sprintf("; failures count for %s", rules.FailureAge)
	}
	rules.HalfOpenFailures = r.count("circuitBreaker.halfOpenFailureThreshold", c.HalfOpenFailureThreshold, 1, maxCount, 1)
	if rules.HalfOpenFailures > 1 {
		text += fmt.Sprintf("; opens again after %d failed probes", rules.HalfOpenFailures)
	}
	rules.Backoff = r.thousandths("circuitBreaker.resetBackoff", c.ResetBackoff)
	rules.MaxReset = r.duration("circuitBreaker.maxResetTimeout", c.MaxResetTimeout, time.Microsecond, 10*time.Minute)
	if rules.Backoff > 1000 {
		text += fmt.Sprintf("; each time %g times longer, up to %s", float64(rules.Backoff)/1000, rules.MaxReset)
		if rules.MaxReset < reset {
			r.add(fmt.Sprintf("circuitBreaker.maxResetTimeout: %s is less than resetTimeout, %s; write a longer time", rules.MaxReset, reset))
		}
	} else if strings.TrimSpace(c.MaxResetTimeout) != "" {
		r.add("circuitBreaker.maxResetTimeout: it has no effect without resetBackoff; write that too, or leave it out")
	}
	rules.Jitter = r.count("circuitBreaker.resetJitter", c.ResetJitter, 0, 100, 0)
	if rules.Jitter > 0 {
		text += fmt.Sprintf("; up to %d%% longer at random", rules.Jitter)
	}
	ramp := r.duration("circuitBreaker.rampDuration", c.RampDuration, time.Second, 30*time.Second)
	switch c.Recovery {
	case "", "probes":
		if strings.TrimSpace(c.RampDuration) != "" {
			r.add("circuitBreaker.rampDuration: it has no effect without recovery: ramp; write that too, or leave it out")
		}
	case "ramp":
		rules.Ramp = ramp
		text += fmt.Sprintf("; then the share of requests that pass rises over %s", ramp)
	default:
		r.invalid("circuitBreaker.recovery", c.Recovery, "one of probes and ramp")
	}
	rules.MinGateways = r.count("circuitBreaker.minGateways", c.MinGateways, 1, 100, 1)
	if rules.MinGateways > 1 {
		text += fmt.Sprintf("; opens for all if %d gateways see failures", rules.MinGateways)
	}
	return rules, text
}

// readRatios reads the ratios that open the circuit, also in words.
func readRatios(r *problems, s *settings, c *CircuitBreakerConfig) (rules breaker.Rules, text string) {
	rules.FailureRatio = r.count("circuitBreaker.failureRatio", c.FailureRatio, 0, 100, 0)
	rules.SlowRatio = r.count("circuitBreaker.slowRatio", c.SlowRatio, 0, 100, 0)
	slow := r.duration("circuitBreaker.slowDuration", c.SlowDuration, time.Millisecond, 2*time.Second)
	window := r.duration("circuitBreaker.window", c.Window, time.Second, 10*time.Second)
	minimum := r.count("circuitBreaker.minimumRequests", c.MinimumRequests, 1, maxCount, 20)
	if rules.SlowRatio > 0 {
		s.slowDuration = slow
	} else if strings.TrimSpace(c.SlowDuration) != "" {
		r.add("circuitBreaker.slowDuration: it has no effect without slowRatio; write that too, or leave it out")
	}
	if rules.FailureRatio+rules.SlowRatio == 0 {
		for _, one := range [][]string{{"window", c.Window}, {"minimumRequests", c.MinimumRequests}} {
			if strings.TrimSpace(one[1]) != "" {
				r.add("circuitBreaker." + one[0] + ": it has no effect without failureRatio or slowRatio; write one of them, or leave it out")
			}
		}
		return rules, ""
	}
	rules.Window = window
	rules.MinimumRequests = minimum
	if rules.FailureRatio > 0 {
		text += fmt.Sprintf("; opens at %d%% failures", rules.FailureRatio)
	}
	if rules.SlowRatio > 0 {
		text += fmt.Sprintf("; opens at %d%% slower than %s", rules.SlowRatio, slow)
	}
	return rules, text + fmt.Sprintf(" of at least %d requests in %s", minimum, window)
}

// thousandths reads a factor with up to three decimals, and returns 1000 times of it.
func (r *problems) thousandths(path, text string) int64 {
	text = strings.TrimSpace(text)
	if text == "" {
		return 1000
	}
	factor, err := strconv.ParseFloat(text, 64)
	whole := int64(factor*1000 + 0.5)
	exact := factor*1000-float64(whole) < 1e-6 && float64(whole)-factor*1000 < 1e-6
	if err != nil || !exact || whole != 1000 && (whole < 1100 || whole > 10000) {
		r.invalid(path, text, `1, or a factor from 1.1 to 10 with at most three decimals, such as "1.5"`)
		return 1000
	}
	return whole
}

// readFaults reads which answers are failures and which requests never count. It returns what differs from the default in words.
func readFaults(r *problems, s *settings, c *CircuitBreakerConfig) (text string) {
	statuses := readStatuses(r, "circuitBreaker.failureStatus", c.FailureStatus)
	byDefault := policy.Statuses{Ranges: []policy.StatusRange{{First: 500, Last: 599}}}
	own := !statuses.Empty() && statusesText(statuses) != statusesText(byDefault)
	if !own {
		statuses = byDefault
	}
	rules := &faultRules{statuses: make([]bool, 600), calls: readCallCodes(r, "circuitBreaker.failureGrpcStatus", c.FailureGrpcStatus)}
	for status := range rules.statuses {
		rules.statuses[status] = statuses.Contain(status)
	}
	if own {
		text += "; failures are " + statusesText(statuses)
	}
	if rules.calls != nil {
		text += "; failures of gRPC calls are " + strings.TrimSpace(c.FailureGrpcStatus)
	}
	if c.Ignore != nil {
		rules.ignored = readIgnore(r, c.Ignore)
		text += fmt.Sprintf("; ignores %q %q", c.Ignore.Paths, c.Ignore.Methods)
	}
	if text != "" {
		s.faults = rules
	}
	return text
}

func statusesText(s policy.Statuses) string {
	var all []string
	for _, one := range s.Ranges {
		text := strconv.Itoa(one.First)
		if one.Last != one.First {
			text += "-" + strconv.Itoa(one.Last)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func readIgnore(r *problems, c *IgnoreConfig) *policy.Matcher {
	const path = "circuitBreaker.ignore"
	r.unknown(path+".", c.Unknown, "paths", "methods")
	if len(c.Paths) == 0 && len(c.Methods) == 0 {
		r.add(path + ": it names nothing; write paths or methods, or leave it out")
		return nil
	}
	match := readMatch(r, path, &MatchConfig{Paths: c.Paths, Methods: c.Methods})
	return policy.NewMatcher(match, nil)
}

// callCodes are the names of gRPC's codes, by number.
var callCodes = []string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED"}

// readCallCodes reads a list of gRPC codes and ranges of codes. It returns nil if the list is empty.
func readCallCodes(r *problems, path, text string) []bool {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	codes := make([]bool, len(callCodes))
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from := callCodeOf(first)
		to := callCodeOf(last)
		if from < 1 || to < from {
			r.invalid(path, part, `a gRPC code from 1 to 16 or its name, or a range of codes, such as "UNAVAILABLE" or "13-14"`)
			continue
		}
		for code := from; code <= to; code++ {
			codes[code] = true
		}
	}
	return codes
}

// callCodeOf returns the number of a gRPC code, given as number or name; -1: there is no such code.
func callCodeOf(text string) int {
	text = strings.TrimSpace(text)
	for code, name := range callCodes {
		if strings.EqualFold(text, name) || text == strconv.Itoa(code) {
			return code
		}
	}
	return -1
}
