package resilience

import (
	"fmt"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/policy"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// settings is a configuration that has been read and checked.
type settings struct {
	name       string
	label      string         // the name for log lines: name may be a hash of it
	redis      store.Settings // used if its Address is not empty
	redisName  string         // which Redis, in words
	connection string         // a hash of everything that the connection to Redis depends on
	onError    string
	limit      *ratelimit.Limit // nil: no rate limiter
	keySource  identity.Source
	rules      *policy.Rules   // of requests under plans; nil: they are all under the limit
	rulesText  string          // to compare
	dryRun     bool            // refusals by the limiter only count
	maxDelay   time.Duration   // how long a request may wait for its tokens; 0: not at all
	maxDelayed int64           // requests that may wait at once
	policy     *breaker.Policy // nil: no circuit breaker
	faults     *faultRules     // nil: a status of 500 or more is a failure
	// hangTimeout is the time after which a request without response headers is a failure. 0: there is none.
	hangTimeout   time.Duration
	probeTimeout  time.Duration // of the breaker's probes
	breakerDryRun bool          // the circuit refuses nothing
	// circuitScope says what a circuit is for (circuits.go). nil: for all requests.
	circuitScope *identity.Source
	slowDuration time.Duration  // of an answer that is slow; 0: there is no slowRatio
	health       string         // path; empty: none
	admin        *adminSettings // nil: none
	answers      *refusalSet
	rates        *rateHeaders // nil: clients are told nothing of their buckets
	parts        []string     // what is enabled, in words
	warnings     []string
}

// compared returns all that decides about requests, as text, to compare it with that of another route or gateway.
func (s *settings) compared() string {
	return fmt.Sprintf("%s; %+v; %s; %s", strings.Join(s.parts, "; "), s.keySource, s.rulesText, scopeText(s.circuitScope))
}

// What applies while Redis is unavailable.
const (
	onErrorLocal = "local"
	onErrorAllow = "allow"
	onErrorDeny  = "deny"
)

const (
	maxCount    = 1000000000 // of whole numbers
	maxProbes   = 1000
	maxExact    = int64(1) << 53 // below it, Lua's numbers are exact
	maxDuration = 10000 * 24 * time.Hour
)

// readConfig checks the configuration. Its error says everything that is wrong with it.
func readConfig(config *Config, middleware string) (*settings, error) {
	s := &settings{onError: onErrorLocal, answers: defaultAnswers()}
	r := &problems{}
	r.unknown("", config.Unknown, "name", "redis", "rateLimit", "circuitBreaker", "answers", "health", "admin")
	s.label = labelOf(config.Name, middleware)
	s.name = readName(r, config.Name, s.label)
	if config.RateLimit != nil {
		readRateLimit(r, s, config.RateLimit)
	}
	if config.CircuitBreaker != nil {
		readCircuitBreaker(r, s, config.CircuitBreaker)
	}
	if config.Answers != nil {
		s.answers = readAnswers(r, s, config.Answers)
	}
	if config.Health != nil {
		readHealth(r, s, config.Health)
	}
	if config.Admin != nil {
		s.admin = readAdmin(r, s, config.Admin)
	}
	if config.Redis != nil {
		readRedis(r, s, config.Redis)
	}
	if s.redis.Address == "" && s.policy != nil && s.policy.Own() != nil {
		r.add("circuitBreaker.minGateways: gateways know nothing of each other without redis; write redis.address, or leave it out")
	}
	if s.redis.Address == "" && (s.limit != nil || s.policy != nil) {
		s.parts = append(s.parts, "state in this process")
	}
	return s, r.err()
}

// doesAnything reports whether any part is enabled.
func (s *settings) doesAnything() bool {
	return s.limit != nil || s.policy != nil || s.health != "" || s.admin != nil
}

// labelOf returns the configured name, or that of the middleware without its provider.
func labelOf(name, middleware string) string {
	if name != "" {
		return name
	}
	if at := strings.LastIndex(middleware, "@"); at > 0 {
		return middleware[:at]
	}
	return middleware
}

func readName(r *problems, name, label string) string {
	if name != "" && !isName(name) {
		r.invalid("name", name, nameRule)
	}
	if !isName(label) {
		// A provider may allow more characters than keys in Redis.
		return identity.Hash(label)
	}
	return label
}

const nameRule = "a name of letters, digits and . _ @ -, at most 64"

// standingByDefault is whether limits have standing leases where the configuration does not say so.
const standingByDefault = true

func readRateLimit(r *problems, s *settings, c *RateLimitConfig) {
	r.unknown("rateLimit.", c.Unknown, "capacity", "refillRate", "refillPeriod", "sourceCriterion",
		"limits", "tiers", "cost", "penalty", "maxDelay", "maxDelayed", "dryRun", "standingLease", "responseHeaders", "responseHeadersOn")
	own := readNumbers(r, "rateLimit", c.Capacity, c.RefillRate, c.RefillPeriod, limitNumbers{100, 10, time.Second})
	if c.SourceCriterion != nil {
		s.keySource = readSource(r, "rateLimit.sourceCriterion", c.SourceCriterion)
	}
	s.limit = newLimit(r, "rateLimit", own)
	if r.flagOr("rateLimit.standingLease", c.StandingLease, standingByDefault) {
		s.limit = ratelimit.WithStanding(s.limit)
	}
	s.dryRun = r.flag("rateLimit.dryRun", c.DryRun)
	if len(c.Limits) == 0 || isSet(c.Capacity+c.RefillRate) {
		s.parts = append(s.parts, "rate limit: "+own.text())
	}
	readDelay(r, s, c)
	readRules(r, s, c, own)
	s.rates = readRateHeaders(r, s, c)
	if s.rules != nil && s.rates != nil {
		s.rules.Shown = s.rates.always
	}
}

// newLimit returns the limit. If its numbers are too large to count exactly, it reduces the fraction of rate and period.
func newLimit(r *problems, path string, n limitNumbers) *ratelimit.Limit {
	capacity, rate, period := n.capacity, n.rate, n.period
	micros := period.Microseconds()
	if capacity > (maxExact-1)/micros {
		common := commonDivisor(rate, micros)
		if capacity > (maxExact-1)/(micros/common) {
			r.add(fmt.Sprintf(path+": capacity %d, refillRate %d and refillPeriod %s are more than can be counted exactly; "+
				"write the same rate as another fraction: capacity times refillPeriod must stay below 2^53 microseconds "+
				"when refillRate and refillPeriod are divided by what they have in common", capacity, rate, period))
			return ratelimit.NewLimit(1, 1, time.Second)
		}
		rate /= common
		period /= time.Duration(common)
	}
	return ratelimit.NewLimit(capacity, rate, period)
}

func commonDivisor(a, b int64) int64 {
	for b != 0 {
		rest := a % b
		a = b
		b = rest
	}
	return a
}

func readHealth(r *problems, s *settings, c *HealthConfig) {
	r.unknown("health.", c.Unknown, "path")
	s.health = c.Path
	if s.health == "" {
		s.health = "/health"
	}
	if !strings.HasPrefix(s.health, "/") || strings.ContainsAny(s.health, "?# ") {
		r.invalid("health.path", s.health, `a path that begins with / and holds no ?, # or space, such as "/health"`)
	}
	s.parts = append(s.parts, "health at "+s.health)
}
