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
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

var errNil = errors.New("resilience: there is no next handler")

// Middleware is one use of the middleware in a router. It is safe for concurrent use.
type Middleware struct {
	*settings
	*scope
	next http.Handler
}

// New returns the middleware for one router. It checks the configuration, and tells all that is wrong with it in one
// error; it dials nothing. Shared state outlives ctx, which Traefik cancels at each reload, by half a minute.
func New(ctx context.Context, next http.Handler, config *Config, name string) (http.Handler, error) {
	if next == nil {
		return nil, errNil
	}
	settings, err := read(config, name)
	if err != nil {
		return nil, err
	}
	return &Middleware{settings: settings, scope: join(ctx, settings), next: next}, nil
}

// ServeHTTP answers the request, or lets the next handler do so.
func (m *Middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.health != "" && r.URL.Path == m.health && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		answerHealthy(w)
		return
	}
	arrival := time.Now()
	now := sinceStart(arrival)
	deadline := arrival.Add(m.redis.Timeout)
	if m.policy != nil {
		if retryAfter, refused := m.breaker.Refuses(now); refused {
			m.refuseOpen(w, retryAfter, now)
			return
		}
	}
	if m.limit != nil {
		key := m.client.Of(r)
		decision, err := m.take(key, now, deadline)
		if err != nil {
			answerUnavailable(w)
			return
		}
		if !decision.Allowed {
			m.refuseLimited(w, key, decision.RetryAfter, now)
			return
		}
	}
	if m.policy == nil {
		m.next.ServeHTTP(w, r)
		return
	}
	permit, retryAfter, err := m.ask(now, deadline)
	if err != nil {
		answerUnavailable(w)
		return
	}
	if retryAfter > 0 {
		m.refuseOpen(w, retryAfter, now)
		return
	}
	m.forward(w, r, permit, m.redis.Timeout-time.Since(arrival))
}

// take takes a token: from Redis, or while it is away as onError says. An error says that the request is to be denied.
func (m *Middleware) take(key string, now int64, deadline time.Time) (ratelimit.Decision, error) {
	if m.store == nil {
		return m.limiter.AllowLocal(key, m.limit, now), nil
	}
	var rider *store.Call
	if m.policy != nil {
		rider = m.breaker.Rider(now, m.policy)
	}
	decision, err := m.limiter.Allow(key, m.limit, now, deadline, rider)
	if err == nil {
		return decision, nil
	}
	switch m.onError {
	case onErrorAllow:
		return ratelimit.Decision{Allowed: true}, nil
	case onErrorDeny:
		return ratelimit.Decision{}, err
	}
	return m.limiter.AllowLocal(key, m.limit, now), nil
}

// ask asks the breaker for a permit: Redis's, or while it is away as onError says. Where retryAfter is not 0 there is
// none. An error says that the request is to be denied.
func (m *Middleware) ask(now int64, deadline time.Time) (permit breaker.Permit, retryAfter time.Duration, err error) {
	permit, retryAfter, err = m.breaker.Allow(m.policy, now, deadline)
	if err == nil {
		return permit, retryAfter, nil
	}
	switch m.onError {
	case onErrorAllow:
		return breaker.Permit{}, 0, nil
	case onErrorDeny:
		return breaker.Permit{}, 0, err
	}
	permit, retryAfter = m.breaker.AllowLocal(m.policy, now)
	return permit, retryAfter, nil
}

// forward has the next handler answer, and tells the breaker what became of it: of a probe with the response headers, of
// another when the answer is complete. Telling costs the request what is left of patience at the most. A panic goes on.
func (m *Middleware) forward(w http.ResponseWriter, r *http.Request, permit breaker.Permit, patience time.Duration) {
	watched := &recorder.Recorder{ResponseWriter: w}
	told := false
	if permit.Probe() {
		watched.OnHeader = func(status int) {
			told = true
			m.tell(permit, outcome(r, status, true), status, patience)
		}
	}
	finished := false
	defer func() {
		if !told {
			m.tell(permit, outcome(r, watched.Status(), finished), watched.Status(), patience)
		}
	}()
	m.next.ServeHTTP(watched, r)
	finished = true
}

func (m *Middleware) tell(permit breaker.Permit, outcome breaker.Outcome, status int, patience time.Duration) {
	if outcome == breaker.Failure {
		m.logFailure(status)
	}
	m.breaker.Done(permit, outcome, m.policy, patience)
}

// outcome tells what an answer says about the upstream. finished is false where the next handler panicked.
func outcome(r *http.Request, status int, finished bool) breaker.Outcome {
	if status == http.StatusSwitchingProtocols {
		return breaker.Success
	}
	if r.Context().Err() != nil {
		return breaker.Unknown
	}
	if !finished || status >= http.StatusInternalServerError {
		return breaker.Failure
	}
	return breaker.Success
}
