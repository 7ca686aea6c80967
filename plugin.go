// Package resilience is a Traefik middleware that puts a distributed rate limiter and a distributed circuit breaker in
// front of any service. Both keep their state in Redis, so that all gateways act as one: a client has one bucket, and a
// service that fails for one gateway is spared by all.
//
// A request first meets the breaker (503 while the circuit is open), then the limiter (429 without a token), then the
// upstream, whose answer the breaker hears of. While Redis is away, onError says what rules; requests do not wait.
package resilience

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

var errNil = errors.New("resilience: there is no next handler")

// Middleware is one use of the middleware in a router. It is safe for concurrent use.
type Middleware struct {
	*settings
	*engines
	next         http.Handler
	handler      http.Handler // answers all requests but those for the health
	bucketKeyOf  func(*http.Request) string
	headerValue  func(*http.Request) string // the value of the header that the key is made of; nil: it is made of something else
	ofConnection bool                       // the key is made of the connection's address
	cache        *ratelimit.Cache

	// Of other instances on the way of a request (nesting.go).
	instance      *instance
	setFastChecks func(on bool) // has the fast path check requests, or not; mu is held
	checks        bool          // whether it does; guarded by mu

	// Where there is a breaker (front.go).
	current *http.HandlerFunc // the front
	fast    http.HandlerFunc  // which it is turned to as long as the circuit is not known to be open

	// Of the limiter and the breaker, side by side: interpreted, each dot on the way to a field costs.
	mu     sync.Locker // a method of an interface is the cheaper one
	view   *breaker.View
	header string         // that the key is made of, as it was configured; "": none
	source *statusSource  // of this route's writers; guarded by mu
	report func(*tracked) // ends the tracked requests of those writers

	// setReport has the fast path end them in another way. It is called before the source has a writer, and once; mu is held.
	setReport func(report func(*tracked))

	// closely is until when answers are watched closely (outcome.go). Guarded by mu.
	watchUntil int64
	// switches is set where the service has switched protocols. Guarded by mu.
	switchesProtocol bool
}

// New returns the middleware for one router. It checks the configuration, and tells all that is wrong with it in one
// error; it dials nothing. Shared state outlives ctx, which Traefik cancels at each reload, by half a minute.
func New(ctx context.Context, next http.Handler, config *Config, name string) (http.Handler, error) {
	m, err := newMiddleware(ctx, next, config, name)
	if err != nil {
		return nil, err
	}
	if m.health == "" {
		return m.handler, nil
	}
	return http.HandlerFunc(m.serveHealth), nil
}

func newMiddleware(ctx context.Context, next http.Handler, config *Config, name string) (*Middleware, error) {
	if next == nil {
		return nil, errNil
	}
	settings, err := readConfig(config, name)
	if err != nil {
		return nil, err
	}
	if !settings.doesAnything() {
		settings.warnings = append(settings.warnings, "this middleware does nothing: it has neither rateLimit nor circuitBreaker nor health")
	}
	scope := acquireEngines(ctx, settings)
	m := &Middleware{
		ofConnection: settings.keySource.OfConnection(),

		settings: settings, engines: scope, next: next, bucketKeyOf: identity.KeyOf(settings.keySource),
		cache: ratelimit.NewCache(scope.limiter, settings.limit, settings.redis.Timeout, keyMaker(settings.keySource)), header: settings.keySource.Header,
		mu: scope.limiter.Mu, view: &scope.breaker.View, source: &statusSource{},
	}
	if m.header != "" {
		m.headerValue = identity.HeaderValue(m.header)
	}
	if m.policy != nil {
		m.cache.Refresher = &viewRefresher{m.breaker, m.policy}
	}
	m.assemble()
	if m.limit != nil || m.policy != nil {
		processRegistry.addInstance(ctx, m, name)
	}
	return m, nil
}

// ready makes the handlers of a middleware that has all the rest.
func (m *Middleware) assemble() {
	if m.policy != nil {
		m.report = m.newReporter(m.source)
	}
	m.handler = m.newHandler()
}

// leave is the breaker's, for requests that asked Redis for a token.
type viewRefresher struct {
	breaker *breaker.Breaker
	policy  *breaker.Policy
}

// Rider returns a call that has the breaker's view refreshed, or nil.
func (l *viewRefresher) PiggybackCall(now int64) *store.Call {
	return l.breaker.PiggybackCall(now, l.policy)
}

// Extend has the view used a little longer, while it is refreshed.
func (l *viewRefresher) Extend(now int64) { l.breaker.ExtendView(now, l.policy) }

// answer answers a request that may ask for the health of this gateway itself.
func (m *Middleware) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == m.health && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		answerHealthy(w, r)
		return
	}
	m.handler.ServeHTTP(w, r)
}

// newHandler returns what answers all other requests: the fast path that is generated for what is configured.
func (m *Middleware) newHandler() http.Handler {
	switch {
	case m.limit != nil && m.policy != nil:
		return m.newSwitch(fastBoth(m))
	case m.limit != nil:
		return fastLimit(m)
	case m.policy != nil:
		return m.newSwitch(fastBreak(m))
	}
	return m.next
}

func fastBoth(m *Middleware) http.HandlerFunc {
	switch {
	case m.keySource.OfConnection():
		return fastBothConnection(m)
	case m.keySource.Header != "":
		return fastBothHeader(m)
	}
	return fastBothOther(m)
}

func fastLimit(m *Middleware) http.HandlerFunc {
	switch {
	case m.keySource.OfConnection():
		return fastLimitConnection(m)
	case m.keySource.Header != "":
		return fastLimitHeader(m)
	}
	return fastLimitOther(m)
}

// keyMaker returns how an identity becomes the key of a bucket.
func keyMaker(source identity.Source) ratelimit.KeyMaker {
	switch {
	case source.Header != "":
		return ratelimit.KeyMaker{Kind: identity.KindHeader, MaxJoin: identity.MaxLength, Key: identity.OfHeader}
	case source.OfConnection():
		return ratelimit.KeyMaker{MaxJoin: -1, Key: source.OfAddress, ManyToOne: true} // each connection has an address
	}
	return ratelimit.KeyMaker{}
}
