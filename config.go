package resilience

// Config is the middleware's configuration. Values are strings because that is how files and labels deliver them; New reads and checks
// numbers and durations. A value that is left out or empty has its default. The maps named Unknown collect misspelt keys.
type Config struct {
	// Name says which middlewares share their state: those of one name on one Redis have the same buckets and the same circuit.
	// At most 64 letters, digits and . _ @ -. Default: the middleware's own name without its @provider.
	// Example: gateway
	Name string `json:"name,omitempty"`
	// Redis says where the state is kept. Left out: it is kept in this process.
	Redis *RedisConfig `json:"redis,omitempty"`
	// RateLimit enables the rate limiter.
	RateLimit *RateLimitConfig `json:"rateLimit,omitempty"`
	// CircuitBreaker enables the circuit breaker.
	CircuitBreaker *CircuitBreakerConfig `json:"circuitBreaker,omitempty"`
	// Answers replaces what the middleware's own refusals say. gRPC calls are refused in their own form whatever it says.
	Answers *AnswersConfig `json:"answers,omitempty"`
	// Health makes the middleware answer one path itself. It is meant for a separate router.
	Health *HealthConfig `json:"health,omitempty"`
	// Admin answers below a path with the metrics and the status of all middlewares of this process. It is meant for a router of the internal
	// entry point.
	Admin *AdminConfig `json:"admin,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// RedisConfig says which Redis, and what happens to requests while it is unavailable.
type RedisConfig struct {
	// Address is the host and port. Left out: the state is kept in this process. With Sentinel or Cluster it names several servers, with
	// commas. Example: redis:6379
	Address string `json:"address,omitempty"`
	// Sentinel says that Address names sentinels, which are asked for the master.
	Sentinel *SentinelConfig `json:"sentinel,omitempty"`
	// Cluster says that Address names nodes of a Redis Cluster: any of them. Default: false.
	Cluster string `json:"cluster,omitempty"`
	// Username is the name of an ACL user. Default: none. Example: gateway
	Username string `json:"username,omitempty"`
	// Password is visible in Traefik's API: prefer PasswordEnv or PasswordFile. Default: none.
	Password string `json:"password,omitempty"`
	// PasswordEnv names the variable of Traefik's environment that holds the password; unset means none.
	// Example: REDIS_PASSWORD
	PasswordEnv string `json:"passwordEnv,omitempty"`
	// PasswordFile names a regular file of at most 64 KB that holds the password; a newline at its end is ignored.
	// Example: /run/secrets/redis
	PasswordFile string `json:"passwordFile,omitempty"`
	// DB is the number of the database; a Cluster has only 0. Default: 0. Example: 2
	DB string `json:"db,omitempty"`
	// TLS secures the connection.
	TLS *TLSConfig `json:"tls,omitempty"`
	// Timeout is the most time that a request spends on Redis in total. Default: 100ms. Example: 50ms
	Timeout string `json:"timeout,omitempty"`
	// DialTimeout is the time to make a connection, in the background. Default: 1s. Example: 500ms
	DialTimeout string `json:"dialTimeout,omitempty"`
	// MaxConnAge is the age at which a connection is replaced, a fifth more or less, so that a host name that has moved is followed. 0s
	// means any age. Default: 5m. Example: 1m
	MaxConnAge string `json:"maxConnAge,omitempty"`
	// KeyPrefix is what all keys in Redis begin with. At most 64 letters, digits and . _ @ -.
	// Default: resilience. Example: shop
	KeyPrefix string `json:"keyPrefix,omitempty"`
	// OnError is what applies while Redis is unavailable: local (this gateway limits and breaks by itself), allow (all requests pass, except
	// that a circuit known to be open stays open until its ResetTimeout) or deny (no request passes: 503). Default: local.
	OnError string `json:"onError,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// SentinelConfig says how sentinels are asked. TLS is as for Redis itself. A block in which nothing is set is as one that is left out.
type SentinelConfig struct {
	// Master is the name that the sentinels know the master by. It is required. Example: mymaster
	Master string `json:"master,omitempty"`
	// Username is the name of an ACL user of the sentinels. Default: none. Example: gateway
	Username string `json:"username,omitempty"`
	// PasswordEnv names the variable of Traefik's environment that holds the sentinels' password; unset means none.
	// Example: SENTINEL_PASSWORD
	PasswordEnv string `json:"passwordEnv,omitempty"`
	// PasswordFile names a regular file of at most 64 KB that holds the sentinels' password; a newline at its end is ignored.
	// Example: /run/secrets/sentinel
	PasswordFile string `json:"passwordFile,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// TLSConfig secures the connection to Redis.
type TLSConfig struct {
	// Enabled enables TLS. Default: false.
	Enabled string `json:"enabled,omitempty"`
	// CA is the file with the certificates of the authorities to trust. Default: the system's.
	// Example: /run/secrets/redis/ca.pem
	CA string `json:"ca,omitempty"`
	// Cert is the file with this gateway's certificate; it needs Key. Default: none. Example: /run/secrets/redis/cert.pem
	Cert string `json:"cert,omitempty"`
	// Key is the file with the private key of Cert. Default: none. Example: /run/secrets/redis/key.pem
	Key string `json:"key,omitempty"`
	// ServerName is the name that Redis's certificate must have. With several servers it is that of each; left out, each has the host by which it is
	// dialled. Default: the host in Address. Example: redis.internal
	ServerName string `json:"serverName,omitempty"`
	// InsecureSkipVerify accepts any certificate, so any server can pose as that Redis. Default: false.
	InsecureSkipVerify string `json:"insecureSkipVerify,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// RateLimitConfig is the token bucket that each client has.
type RateLimitConfig struct {
	// Capacity is the number of tokens in a full bucket: the requests that may arrive at once. Default: 100. Example: 20
	Capacity string `json:"capacity,omitempty"`
	// RefillRate is the number of tokens that a RefillPeriod adds. Default: 10. Example: 5
	RefillRate string `json:"refillRate,omitempty"`
	// RefillPeriod is that time. Capacity times RefillPeriod stays below 2^53 microseconds. Default: 1s. Example: 1m
	RefillPeriod string `json:"refillPeriod,omitempty"`
	// SourceCriterion says which requests come from the same client. Default: the address of the connection.
	SourceCriterion *SourceCriterionConfig `json:"sourceCriterion,omitempty"`
	// Limits are further limits on the same requests, by name: a request takes a token of each that applies to it, or of none. If the block
	// itself has neither Capacity nor RefillRate, they are its only limits.
	Limits map[string]*LimitConfig `json:"limits,omitempty"`
	// Tiers replace the block's own limit for some clients, by name. The first that matches applies.
	Tiers map[string]*TierConfig `json:"tiers,omitempty"`
	// Cost says how many tokens a request takes. Left out: one.
	Cost *CostConfig `json:"cost,omitempty"`
	// Penalty refuses a client for a while if its requests are refused again and again. Left out: it is never refused for that.
	Penalty *PenaltyConfig `json:"penalty,omitempty"`
	// MaxDelay lets a request wait instead of refusing it, if its tokens are due within this time. 0s disables it. Default: 0s. Example: 500ms
	MaxDelay string `json:"maxDelay,omitempty"`
	// MaxDelayed is how many requests may wait at once. Default: 100. Example: 1000
	MaxDelayed string `json:"maxDelayed,omitempty"`
	// DryRun counts and logs refusals by the limiter, and lets the requests pass. Default: false.
	DryRun string `json:"dryRun,omitempty"`
	// StandingLease lets each gateway pass a request of any client without asking Redis, which keeps a token of each bucket back for that.
	// Capacities up to 100 have none. Default: true. Example: false
	StandingLease string `json:"standingLease,omitempty"`
	// ResponseHeaders says which headers tell clients what is left of their buckets: none, ratelimit (RateLimit and RateLimit-Policy of
	// draft-ietf-httpapi-ratelimit-headers, revision 10), x-ratelimit (X-RateLimit-Limit, -Remaining and -Reset) or both. Default: none.
	ResponseHeaders string `json:"responseHeaders,omitempty"`
	// ResponseHeadersOn says which answers have them: always (all of the limiter's clients) or refused (only refusals by the limiter).
	// Default: always.
	ResponseHeadersOn string `json:"responseHeadersOn,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// LimitConfig is a further limit. Numbers that it leaves out are the block's.
type LimitConfig struct {
	// Capacity is the number of tokens in a full bucket. Example: 1000
	Capacity string `json:"capacity,omitempty"`
	// RefillRate is the number of tokens that a RefillPeriod adds. Example: 1000
	RefillRate string `json:"refillRate,omitempty"`
	// RefillPeriod is that time. Example: 1h
	RefillPeriod string `json:"refillPeriod,omitempty"`
	// SourceCriterion says which requests share a bucket of this limit. Default: the block's.
	SourceCriterion *SourceCriterionConfig `json:"sourceCriterion,omitempty"`
	// Match says which requests the limit applies to. Default: all.
	Match *MatchConfig `json:"match,omitempty"`
	// ChargeStatus lists statuses of the service: a token is taken only if the answer has one of them. Example: 401, 403
	ChargeStatus string `json:"chargeStatus,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// TierConfig is another limit, or none, for the requests that it matches. Numbers that it leaves out are the block's.
type TierConfig struct {
	// Priority decides between tiers that match the same request: the highest applies, and of equal ones the first by name. Default: 0.
	// Example: 10
	Priority string `json:"priority,omitempty"`
	// Match says which requests the tier is for.
	Match *MatchConfig `json:"match,omitempty"`
	// Capacity is the number of tokens in a full bucket. Example: 10000
	Capacity string `json:"capacity,omitempty"`
	// RefillRate is the number of tokens that a RefillPeriod adds. Example: 1000
	RefillRate string `json:"refillRate,omitempty"`
	// RefillPeriod is that time. Example: 1s
	RefillPeriod string `json:"refillPeriod,omitempty"`
	// Unlimited lets all requests pass, whatever the other limits say. Default: false.
	Unlimited string `json:"unlimited,omitempty"`
	// Deny refuses all requests: 403. Default: false.
	Deny string `json:"deny,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// MatchConfig says which requests a rule is for: those for which everything that it names holds.
type MatchConfig struct {
	// Paths are patterns of the whole path; * matches any run of characters, / too. Example: /login, /api/*
	Paths []string `json:"paths,omitempty"`
	// Methods are request methods. Example: POST, PUT
	Methods []string `json:"methods,omitempty"`
	// Hosts are patterns of the requested host. Example: *.example.com
	Hosts []string `json:"hosts,omitempty"`
	// Headers are patterns of headers, by name.
	Headers map[string]string `json:"headers,omitempty"`
	// ClientIPs are addresses and networks of clients: the address by the block's ipStrategy, or that of the connection.
	// Example: 203.0.113.0/24
	ClientIPs []string `json:"clientIPs,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// CostConfig says how many tokens a request takes: as its header says, else its path, else its method, else one.
type CostConfig struct {
	// Header is the name of a request header with the cost, from 1 to Max; anything else costs 1. Something before the middleware must set or
	// remove it, as clients can send it. Example: X-Cost
	Header string `json:"header,omitempty"`
	// Max is the highest cost. Default: 100. Example: 20
	Max string `json:"max,omitempty"`
	// Methods are costs by request method.
	Methods map[string]string `json:"methods,omitempty"`
	// Paths are costs by pattern of the path, as in a match; of several that match, the longest pattern counts.
	Paths map[string]string `json:"paths,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// PenaltyConfig says when a client is refused altogether.
type PenaltyConfig struct {
	// Refusals is the number of refusals by the limits, within Time, after which all requests of the client are refused. Default: 20.
	// Example: 50
	Refusals string `json:"refusals,omitempty"`
	// Time is how long, at first; each further penalty lasts twice as long as the one before. At least 1s. Default: 1m. Example: 10s
	Time string `json:"time,omitempty"`
	// MaxTime is the length of the longest penalty. Default: 1h. Example: 10m
	MaxTime string `json:"maxTime,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// SourceCriterionConfig says what identifies a client. Several keys together make one composite key.
type SourceCriterionConfig struct {
	// IPStrategy selects the client's address.
	IPStrategy *IPStrategyConfig `json:"ipStrategy,omitempty"`
	// RequestHeaderName selects the value of a header, or those of several, with commas. Example: X-Api-Key
	RequestHeaderName string `json:"requestHeaderName,omitempty"`
	// RequestHost selects the requested host. Default: false. Example: true
	RequestHost string `json:"requestHost,omitempty"`
	// RequestMethod selects the method; all methods that are not HTTP's own are one. Default: false. Example: true
	RequestMethod string `json:"requestMethod,omitempty"`
	// RequestPath selects what the names in a pattern match: {name} is one segment of the path, * any run of characters.
	// Example: /api/{tenant}/*
	RequestPath string `json:"requestPath,omitempty"`
	// RequestCookieName selects the value of a cookie. Example: session
	RequestCookieName string `json:"requestCookieName,omitempty"`
	// RequestQueryName selects the value of a parameter in the query. Example: tenant
	RequestQueryName string `json:"requestQueryName,omitempty"`
	// RequestJWTClaim selects a claim of the bearer token. Nothing here verifies the token. Example: sub
	RequestJWTClaim string `json:"requestJWTClaim,omitempty"`
	// All gives all requests one bucket. It excludes the keys above. Default: false. Example: true
	All string `json:"all,omitempty"`
	// MissingSource is what a request without the source has: shared (one bucket with all others like it), address (the bucket of its
	// address), pass (no limit) or deny (it is refused: 403). Default: shared. Example: deny
	MissingSource string `json:"missingSource,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// IPStrategyConfig is Traefik's ipStrategy.
type IPStrategyConfig struct {
	// Depth takes the address at this place from the right in X-Forwarded-For. Default: 0, the address of the connection.
	// Example: 1
	Depth string `json:"depth,omitempty"`
	// ExcludedIPs takes the rightmost address in X-Forwarded-For that is none of these; used where Depth is 0.
	// Example: 10.0.0.0/8, 192.168.1.7
	ExcludedIPs []string `json:"excludedIPs,omitempty"`
	// IPv6Subnet is how many bits of an IPv6 address make one client. Default: all. Example: 64
	IPv6Subnet string `json:"ipv6Subnet,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// CircuitBreakerConfig is the circuit breaker of the service.
type CircuitBreakerConfig struct {
	// FailureThreshold is the number of consecutive failures that open the circuit. 0, with a ratio: only that opens it. Default: 5.
	// Example: 10
	FailureThreshold string `json:"failureThreshold,omitempty"`
	// ResetTimeout is how long it stays open before probes may pass. Default: 30s. Example: 10s
	ResetTimeout string `json:"resetTimeout,omitempty"`
	// HalfOpenSuccessThreshold is the number of successful probes that close it. Default: 2. Example: 3
	HalfOpenSuccessThreshold string `json:"halfOpenSuccessThreshold,omitempty"`
	// HalfOpenMaxProbes is the number of probes in flight at once in the whole fleet, at most 1000.
	// Default: HalfOpenSuccessThreshold. Example: 1
	HalfOpenMaxProbes string `json:"halfOpenMaxProbes,omitempty"`
	// ProbeTimeout is the time after which a probe without response headers is a failure. Default: 10s. Example: 5s
	ProbeTimeout string `json:"probeTimeout,omitempty"`
	// HangTimeout is the time, from the end of a request's body, after which missing response headers are a failure, even if the client
	// has left. It should be less than the clients' own timeout; any client of a path that takes longer can then cause failures. 0s
	// disables it. Default: 0s. Example: 5s
	HangTimeout string `json:"hangTimeout,omitempty"`
	// FailureRatio opens the circuit if that many per cent of the requests in the Window have failed. 0: it does not. Default: 0. Example: 50
	FailureRatio string `json:"failureRatio,omitempty"`
	// SlowRatio opens the circuit if that many per cent of the requests in the Window were slow. 0: it does not. Default: 0. Example: 80
	SlowRatio string `json:"slowRatio,omitempty"`
	// SlowDuration is the time from the end of a request's body to the response headers from which a request is slow. Default: 2s.
	// Example: 500ms
	SlowDuration string `json:"slowDuration,omitempty"`
	// Window is the time over which the ratios are computed. Default: 10s. Example: 1m
	Window string `json:"window,omitempty"`
	// MinimumRequests is the number of requests in the Window below which the ratios open nothing. Default: 20. Example: 100
	MinimumRequests string `json:"minimumRequests,omitempty"`
	// FailureAge is the age at which a failure in a row no longer counts, to a tenth of it. 0s: it counts whatever its age. Default: 0s.
	// Example: 1m
	FailureAge string `json:"failureAge,omitempty"`
	// HalfOpenFailureThreshold is the number of failed probes that open it again. Default: 1. Example: 2
	HalfOpenFailureThreshold string `json:"halfOpenFailureThreshold,omitempty"`
	// ResetBackoff is the factor by which ResetTimeout grows each time that the circuit opens again before it was closed, from 1.1 to 10; 1
	// is none. Default: 1. Example: 2
	ResetBackoff string `json:"resetBackoff,omitempty"`
	// MaxResetTimeout is how far ResetBackoff goes. Default: 10m. Example: 1h
	MaxResetTimeout string `json:"maxResetTimeout,omitempty"`
	// ResetJitter is by how many per cent the circuit may stay open longer than that, at random but for the same time in the whole fleet.
	// Default: 0. Example: 10
	ResetJitter string `json:"resetJitter,omitempty"`
	// Recovery is what follows the successful probes: probes (the circuit closes) or ramp (the share of requests that pass rises over
	// RampDuration). Default: probes.
	Recovery string `json:"recovery,omitempty"`
	// RampDuration is how long the share rises. Default: 30s. Example: 1m
	RampDuration string `json:"rampDuration,omitempty"`
	// MinGateways is the number of gateways that must have seen failures lately before the circuit opens for all of them, at most 100. A
	// gateway that alone sees enough failures opens a circuit for itself. Default: 1. Example: 3
	MinGateways string `json:"minGateways,omitempty"`
	// Scope says what a circuit is for: middleware (all requests have one circuit), host (each host has one) or path: and a pattern as in
	// RequestPath (each value of its names has one). There are at most 500 for each middleware. Default: middleware.
	// Example: path:/api/{tenant}/*
	Scope string `json:"scope,omitempty"`
	// DryRun lets the requests pass that the circuit refuses, and logs them. Default: false.
	DryRun string `json:"dryRun,omitempty"`
	// FailureStatus lists the statuses of the service's answers that are failures, with ranges. That the service cannot be reached is a
	// failure whatever it says. Default: 500-599. Example: 500, 502-504
	FailureStatus string `json:"failureStatus,omitempty"`
	// FailureGrpcStatus lists the codes of gRPC calls that are failures, as numbers, ranges or names. Default: none.
	// Example: UNAVAILABLE, INTERNAL
	FailureGrpcStatus string `json:"failureGrpcStatus,omitempty"`
	// Ignore names requests whose outcome never counts. While the circuit is open they are refused as all others.
	Ignore *IgnoreConfig `json:"ignore,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// IgnoreConfig says which requests never count for the circuit breaker: those for which everything that it names holds.
type IgnoreConfig struct {
	// Paths are patterns of the whole path; * matches any run of characters, / too. Example: /health, /internal/*
	Paths []string `json:"paths,omitempty"`
	// Methods are request methods. Example: OPTIONS
	Methods []string `json:"methods,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// AnswersConfig is what the middleware's own refusals say.
type AnswersConfig struct {
	// RateLimited refuses a request because the client's bucket is empty.
	RateLimited *AnswerConfig `json:"rateLimited,omitempty"`
	// CircuitOpen refuses a request because the circuit is open, or has no room for another probe.
	CircuitOpen *AnswerConfig `json:"circuitOpen,omitempty"`
	// Denied refuses a request because a rule denies it.
	Denied *AnswerConfig `json:"denied,omitempty"`
	// Unavailable refuses a request because Redis is unavailable and OnError is deny.
	Unavailable *AnswerConfig `json:"unavailable,omitempty"`
	// Format is that of bodies which are not written out here: json or problem (RFC 9457). Default: json.
	Format string `json:"format,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// AnswerConfig is one of these answers.
type AnswerConfig struct {
	// Status is from 400 to 599. Default: the answer's own. Example: 420
	Status string `json:"status,omitempty"`
	// ContentType is the type of the body. Default: that of Format. Example: text/plain; charset=utf-8
	ContentType string `json:"contentType,omitempty"`
	// Body may hold {retryAfter}, {limit} and {requestID}. Default: that of Format. Example: slow down, {retryAfter} s
	Body string `json:"body,omitempty"`
	// Headers are added to the answer. Default: none.
	Headers map[string]string `json:"headers,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// HealthConfig is the path that the middleware answers itself.
type HealthConfig struct {
	// Path is the whole path. Default: /health. Example: /healthz
	Path string `json:"path,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// AdminConfig is the path below which the middleware shows its state, and who may see it.
type AdminConfig struct {
	// Path is what the paths begin with. Default: /resilience. Example: /internal/resilience
	Path string `json:"path,omitempty"`
	// TokenEnv names the variable of Traefik's environment that holds the token which requests need. Example: RESILIENCE_ADMIN_TOKEN
	TokenEnv string `json:"tokenEnv,omitempty"`
	// TokenFile names a regular file of at most 64 KB that holds the token; a newline at its end is ignored.
	// Example: /run/secrets/admin
	TokenFile string `json:"tokenFile,omitempty"`
	// Public answers connections from other hosts too where there is no token. Default: false.
	Public string `json:"public,omitempty"`

	Unknown map[string]interface{} `json:"-" mapstructure:",remain"`
}

// CreateConfig returns the configuration that Traefik fills in: nothing is enabled.
func CreateConfig() *Config {
	return &Config{}
}
