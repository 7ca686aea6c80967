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
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/recorder"
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
	instance *instance
	check    func(on bool) // has the lean handler check requests, or not; mu is held
	checks   bool          // whether it does; guarded by mu

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
	return http.HandlerFunc(m.answer), nil
}

func newMiddleware(ctx context.Context, next http.Handler, config *Config, name string) (*Middleware, error) {
	if next == nil {
		return nil, errNil
	}
	settings, err := read(config, name)
	if err != nil {
		return nil, err
	}
	if !settings.does() {
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
		m.cache.Refresher = &breakerRefresher{m.breaker, m.policy}
	}
	m.ready()
	if m.limit != nil || m.policy != nil {
		processRegistry.enter(ctx, m, name)
	}
	return m, nil
}

// ready makes the handlers of a middleware that has all the rest.
func (m *Middleware) ready() {
	if m.policy != nil {
		m.report = m.newReporter(m.source)
	}
	m.handler = m.newHandler()
}

// leave is the breaker's, for requests that asked Redis for a token.
type breakerRefresher struct {
	breaker *breaker.Breaker
	policy  *breaker.Policy
}

// Rider returns a call that has the breaker's view refreshed, or nil.
func (l *breakerRefresher) PiggybackCall(now int64) *store.Call {
	return l.breaker.PiggybackCall(now, l.policy)
}

// Extend has the view used a little longer, while it is refreshed.
func (l *breakerRefresher) Extend(now int64) { l.breaker.ExtendView(now, l.policy) }

// answer answers a request that may ask for the health of this gateway itself.
func (m *Middleware) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == m.health && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		answerHealthy(w, r)
		return
	}
	m.handler.ServeHTTP(w, r)
}

// handler returns what answers all other requests. Most need nobody's leave: the circuit is known to be closed, and a lease is in
// hand, or it is known that there is no token. Those are answered in lean.go, those that an open circuit refuses in front.go, all
// others here.
func (m *Middleware) newHandler() http.Handler {
	switch {
	case m.limit != nil && m.policy != nil:
		return m.newSwitch(m.fastBoth())
	case m.limit != nil:
		return m.fastLimit()
	case m.policy != nil:
		return m.newSwitch(m.fastBreak())
	}
	return m.next
}

// serve answers a request that arrived at the time now, though the circuit is not known to be closed.
func serve(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	if retryAfter, refused := m.breaker.MustRefuse(false, now); refused {
		refuseOpen(m, w, r, now+retryAfter.Microseconds(), now)
		return
	}
	upload := hasBody(r)
	if upload && m.breaker.Probing() {
		upload = !readAhead(r)
		now = sinceStart(time.Now()) // the client was waited for, not Redis
		if retryAfter, refused := m.breaker.MustRefuse(upload, now); refused {
			refuseOpen(m, w, r, now+retryAfter.Microseconds(), now)
			return
		}
	}
	if m.limit == nil {
		m.try(w, r, upload, now, nil)
		return
	}
	raw := identityOf(m, r)
	verdict := ratelimit.AllowCached(m.cache, raw, now)
	if verdict != 0 {
		settle(m, w, r, upload, verdict, now)
		return
	}
	// Both are asked for at once: one after the other, they would take longer than a request may wait where Redis is slow.
	asked := m.breaker.RequestPermit(m.policy, upload, now)
	if asked == nil {
		settle(m, w, r, upload, ratelimit.Allow(m.cache, raw, now), now)
		return
	}
	defer m.breaker.CancelUnclaimed(asked)
	m.tryAsked(w, r, upload, ratelimit.Allow(m.cache, raw, now), now, asked)
}

// settle answers a request that has heard the limiter's verdict.
func settle(m *Middleware, w http.ResponseWriter, r *http.Request, upload bool, verdict, now int64) {
	if verdict > 1 {
		forward(m, w, r, verdict)
		return
	}
	if verdict <= 0 {
		m.breaker.RefreshIfStale(now, m.policy) // a refused request may have asked nobody, and so may all that follow
	}
	m.tryAsked(w, r, upload, verdict, now, nil)
}

// tryAsked answers a request that has heard the limiter's verdict, and may have asked the breaker for a permit meanwhile.
func (m *Middleware) tryAsked(w http.ResponseWriter, r *http.Request, upload bool, verdict, now int64, asked *breaker.PermitRequest) {
	if verdict == ratelimit.Undecided {
		verdict = decideLocally(m, m.bucketKeyOf(r), now, ratelimit.LastErr(m.cache))
	}
	if verdict > 0 {
		m.try(w, r, upload, now, asked)
		return
	}
	if asked != nil {
		m.breaker.Cancel(asked)
	}
	m.refuse(w, r, verdict, now)
}

// proceed answers a request that arrived at the time now and has heard the limiter's verdict.
func proceed(m *Middleware, w http.ResponseWriter, r *http.Request, verdict, now int64) {
	if verdict > 1 && m.policy != nil {
		forward(m, w, r, verdict)
	} else {
		goOn(m, w, r, verdict, now)
	}
}

// refuse refuses a request for which there is no token.
func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, verdict, now int64) {
	if verdict == denied {
		answerUnavailable(w, r)
		return
	}
	m.refuseLimited(w, r, -verdict, now)
}

// try has the next handler answer a request that arrived at the time now, if the breaker gives a permit: the one that was asked for,
// or another where that is nil. upload says that its body is still coming.
func (m *Middleware) try(w http.ResponseWriter, r *http.Request, upload bool, now int64, asked *breaker.PermitRequest) {
	permit, retryAfter, err := m.ask(upload, now, asked)
	if err != nil {
		answerUnavailable(w, r)
		return
	}
	if retryAfter > 0 {
		refuseOpen(m, w, r, now+retryAfter.Microseconds(), now)
		return
	}
	if permit.Probe() {
		m.forward(w, r, permit, time.Until(m.deadline(now)))
		return
	}
	at, healthy := m.healthy()
	if healthy {
		forward(m, w, r, at)
		return
	}
	m.forward(w, r, permit, time.Until(m.deadline(now)))
}

// healthy tells whether requests may pass by the view of the breaker, and the time.
func (m *Middleware) healthy() (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := sinceStart(time.Now())
	return now, now < m.view.Healthy
}

// denied is the verdict of onError: deny.
const denied = math.MinInt64

// deadline returns until when a request that arrived at the time now may wait for Redis.
func (m *Middleware) deadline(now int64) time.Time {
	return start.Add(time.Duration(now)*time.Microsecond + m.redis.Timeout)
}

// takeAlone takes a token without Redis, which could not be asked for this reason, or which there is none of. The verdict is positive
// where there was one, denied, or less the microseconds until there is one.
func decideLocally(m *Middleware, key string, now int64, reason error) int64 {
	if m.store != nil {
		m.logTrouble(reason)
		if m.onError == onErrorAllow {
			return 1
		}
		if m.onError == onErrorDeny {
			return denied
		}
	}
	return ratelimit.AllowLocal(m.limiter, key, m.limit, now)
}

// ask asks the breaker for a permit: Redis's, as Redis last said where it is too slow, or while it is away as onError says. Where
// retryAfter is not 0 there is none. An error says that the request is to be denied.
func (m *Middleware) ask(upload bool, now int64, asked *breaker.PermitRequest) (permit breaker.Permit, retryAfter time.Duration, err error) {
	if asked != nil {
		permit, retryAfter, err = m.breaker.Await(asked, m.deadline(now))
	} else {
		permit, retryAfter, err = m.breaker.Allow(m.policy, upload, now, m.deadline(now))
	}
	if err == nil {
		return permit, retryAfter, nil
	}
	m.logTrouble(err)
	if errors.Is(err, store.ErrUnavailable) {
		last, wait, known := m.breaker.LastKnown(now)
		if known && (wait > 0 || m.onError != onErrorDeny) {
			return last, wait, nil
		}
	}
	switch m.onError {
	case onErrorAllow:
		return m.breaker.UnaskedPermit(), 0, nil
	case onErrorDeny:
		return breaker.Permit{}, 0, err
	}
	permit, retryAfter = m.breaker.AllowLocal(m.policy, upload, now)
	return permit, retryAfter, nil
}

// forward has the next handler answer a request that has a permit. Telling the breaker costs it what is left of patience
// at the most.
func (m *Middleware) forward(w http.ResponseWriter, r *http.Request, permit breaker.Permit, patience time.Duration) {
	f := &permitted{m: m, permit: permit, budget: patience, recorder: &recorder.Recorder{ResponseWriter: w}}
	f.x = &exchange{r: r, header: w.Header(), came: time.Now()}
	defer f.report()
	f.forward(w)
}
