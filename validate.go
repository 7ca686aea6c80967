package resilience

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
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
	// hangTimeout is the time after which a request without response headers is a failure. 0: there is none.
	hangTimeout time.Duration
	health      string // path; empty: none
	answers     *refusalSet
	rates       *rateHeaders // nil: clients are told nothing of their buckets
	parts       []string     // what is enabled, in words
	warnings    []string
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
	r.unknown("", config.Unknown, "name", "redis", "rateLimit", "circuitBreaker", "answers", "health")
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
	if config.Redis != nil {
		readRedis(r, s, config.Redis)
	}
	if s.redis.Address == "" && (s.limit != nil || s.policy != nil) {
		s.parts = append(s.parts, "state in this process")
	}
	return s, r.err()
}

// doesAnything reports whether any part is enabled.
func (s *settings) doesAnything() bool { return s.limit != nil || s.policy != nil || s.health != "" }

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

func readRateLimit(r *problems, s *settings, c *RateLimitConfig) {
	r.unknown("rateLimit.", c.Unknown, "capacity", "refillRate", "refillPeriod", "sourceCriterion",
		"limits", "tiers", "cost", "penalty", "maxDelay", "maxDelayed", "dryRun", "responseHeaders", "responseHeadersOn")
	own := readNumbers(r, "rateLimit", c.Capacity, c.RefillRate, c.RefillPeriod, limitNumbers{100, 10, time.Second})
	if c.SourceCriterion != nil {
		s.keySource = readSource(r, "rateLimit.sourceCriterion", c.SourceCriterion)
	}
	s.limit = newLimit(r, "rateLimit", own)
	s.dryRun = r.flag("rateLimit.dryRun", c.DryRun)
	if len(c.Limits) == 0 || c.Capacity != "" || c.RefillRate != "" {
		s.parts = append(s.parts, "rate limit: "+own.text())
	}
	readDelay(r, s, c)
	readRules(r, s, c, own)
	s.rates = readRateHeaders(r, s, c)
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

func readCircuitBreaker(r *problems, s *settings, c *CircuitBreakerConfig) {
	r.unknown("circuitBreaker.", c.Unknown,
		"failureThreshold", "resetTimeout", "halfOpenSuccessThreshold", "halfOpenMaxProbes", "probeTimeout", "hangTimeout")
	failures := r.count("circuitBreaker.failureThreshold", c.FailureThreshold, 1, maxCount, 5)
	reset := r.duration("circuitBreaker.resetTimeout", c.ResetTimeout, time.Microsecond, 30*time.Second)
	successes := r.count("circuitBreaker.halfOpenSuccessThreshold", c.HalfOpenSuccessThreshold, 1, maxCount, 2)
	probes := successes
	if probes > maxProbes {
		probes = maxProbes
	}
	probes = r.count("circuitBreaker.halfOpenMaxProbes", c.HalfOpenMaxProbes, 1, maxProbes, probes)
	probe := r.duration("circuitBreaker.probeTimeout", c.ProbeTimeout, time.Microsecond, 10*time.Second)
	s.policy = breaker.NewPolicy(failures, reset, successes, probes, probe)
	s.hangTimeout = r.durationOrNever("circuitBreaker.hangTimeout", c.HangTimeout, time.Microsecond, 0)
	part := fmt.Sprintf("circuit breaker: opens after %d failures, for %s; closes after %d successes, of %d probes at once, each within %s",
		failures, reset, successes, probes, probe)
	if s.hangTimeout > 0 {
		part += fmt.Sprintf("; no response headers within %s is a failure", s.hangTimeout)
	}
	s.parts = append(s.parts, part)
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

func readRedis(r *problems, s *settings, c *RedisConfig) {
	r.unknown("redis.", c.Unknown, "address", "username", "password", "passwordEnv", "passwordFile", "db", "tls",
		"timeout", "dialTimeout", "maxConnAge", "keyPrefix", "onError")
	s.redis = store.Settings{
		Address:     strings.TrimSpace(c.Address),
		Username:    c.Username,
		Password:    readPassword(r, s, c),
		DB:          int(r.count("redis.db", c.DB, 0, 1000000, 0)),
		Timeout:     r.duration("redis.timeout", c.Timeout, time.Microsecond, 100*time.Millisecond),
		DialTimeout: r.duration("redis.dialTimeout", c.DialTimeout, time.Microsecond, time.Second),
		MaxConnAge:  r.durationOrNever("redis.maxConnAge", c.MaxConnAge, time.Second, 5*time.Minute),
		KeyPrefix:   c.KeyPrefix,
	}
	if s.redis.Address != "" {
		r.address("redis.address", s.redis.Address)
	}
	if s.redis.KeyPrefix == "" {
		s.redis.KeyPrefix = "resilience"
	}
	if !isName(s.redis.KeyPrefix) {
		r.invalid("redis.keyPrefix", s.redis.KeyPrefix, nameRule)
	}
	if c.OnError != "" {
		s.onError = c.OnError
	}
	if s.onError != onErrorLocal && s.onError != onErrorAllow && s.onError != onErrorDeny {
		r.invalid("redis.onError", s.onError, "one of local, allow and deny")
	}
	all := fmt.Sprintf("%q %q %q %d %s %s %s %q", s.redis.Address, c.Username, s.redis.Password, s.redis.DB,
		s.redis.Timeout, s.redis.DialTimeout, s.redis.MaxConnAge, s.redis.KeyPrefix)
	if c.TLS != nil {
		s.redis.TLS = readTLS(r, s, c.TLS)
		all += tlsIdentity(c.TLS)
	}
	s.connection = identity.Hash(all)
	if s.redis.Address != "" {
		s.parts = append(s.parts, fmt.Sprintf("redis %s, db %d, on error: %s", s.redis.Address, s.redis.DB, s.onError))
	}
}

// tlsIdentity identifies certificates by the present content of their files, so that a reload uses renewed ones.
func tlsIdentity(c *TLSConfig) string {
	text := fmt.Sprintf(" %q %q %q", c.Enabled, c.ServerName, c.InsecureSkipVerify)
	for _, file := range []string{c.CA, c.Cert, c.Key} {
		if file != "" {
			content, _ := readFile(file)
			text += fmt.Sprintf(" %q", content)
		}
	}
	return text
}

func readPassword(r *problems, s *settings, c *RedisConfig) string {
	given := 0
	for _, text := range []string{c.Password, c.PasswordEnv, c.PasswordFile} {
		if text != "" {
			given++
		}
	}
	if given > 1 {
		r.add("redis: password, passwordEnv and passwordFile exclude each other; write one of them")
		return ""
	}
	if c.Password != "" {
		s.warnings = append(s.warnings, "redis.password can be read in Traefik's API; prefer redis.passwordEnv or redis.passwordFile")
	}
	password := c.Password
	if c.PasswordEnv != "" {
		password = r.variable("redis.passwordEnv", c.PasswordEnv)
	}
	if c.PasswordFile != "" {
		password = strings.TrimRight(string(r.content("redis.passwordFile", c.PasswordFile)), "\r\n")
	}
	if c.Username != "" && password == "" && given > 0 {
		s.warnings = append(s.warnings, "redis.username is set, but the password is empty")
	}
	if c.Username != "" && given == 0 {
		r.add("redis.username: a user needs a password; write passwordEnv or passwordFile too")
	}
	return password
}

func readTLS(r *problems, s *settings, c *TLSConfig) *tls.Config {
	const path = "redis.tls"
	r.unknown(path+".", c.Unknown, "enabled", "ca", "cert", "key", "serverName", "insecureSkipVerify")
	enabled := r.flag(path+".enabled", c.Enabled)
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.ServerName,
		InsecureSkipVerify: r.flag(path+".insecureSkipVerify", c.InsecureSkipVerify),
	}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(s.redis.Address)
	}
	if (c.Cert == "") != (c.Key == "") {
		r.add(path + ": cert and key go together; write both or neither")
	}
	if !enabled {
		if c.Enabled == "" && c.CA+c.Cert+c.Key+c.ServerName+c.InsecureSkipVerify != "" {
			s.warnings = append(s.warnings, "redis.tls has settings, but is not enabled: the connection is a plain one; write enabled: true, or false")
		}
		return nil
	}
	if c.CA != "" {
		config.RootCAs = x509.NewCertPool()
		content := r.content(path+".ca", c.CA)
		if content != nil && !config.RootCAs.AppendCertsFromPEM(content) {
			r.invalid(path+".ca", c.CA, "a file with certificates in PEM form")
		}
	}
	if c.Cert != "" && c.Key != "" {
		config.Certificates = []tls.Certificate{r.pair(path, c.Cert, c.Key)}
	}
	return config
}
