package resilience

//go:generate go run ./internal/gen fastpath_gen.go

import (
	"errors"
	"net/http"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/recorder"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The slow path has the steps of the fast path (fastpath_gen.go) as functions, in the same order. A request that leaves the fast path at a
// step enters the slow path at that step, and each step calls the next one: slowCircuitLocked, slowAcquire, slowDecide, slowForward. None
// returns a verdict to the step before it, and none starts the request again.

// slowRequest is a request on the slow path, and what its steps have found out.
type slowRequest struct {
	w   http.ResponseWriter
	r   *http.Request
	now int64 // when it arrived, or when its small body had been read: redis.timeout counts from here

	closed   bool  // the circuit was known to be closed
	closedAt int64 // when that was known
	upload   bool  // its body is still arriving
	ignored  bool  // its outcome never counts
	unasked  bool  // it passes without a permit, in a dry run of the breaker
	counted  countedRequest
	refused  bool                   // by the circuit, or because Redis is unavailable
	asked    *breaker.PermitRequest // sent with the request for a token; nil: none
}

// serveSlowLocked serves a request on the slow path from step 2 on. It releases the lock.
func serveSlowLocked(m *Middleware, s *slowRequest) {
	if m.policy != nil && s.now >= m.view.Healthy {
		until := m.view.Open
		m.mu.Unlock()
		slowCircuit(m, s, until)
		return
	}
	m.mu.Unlock()
	s.closed = m.policy != nil
	s.closedAt = s.now
	s.upload = hasBody(s.r)
	slowAcquire(m, s)
}

// slowCircuitLocked is step 2 of a request for which the circuit is not known to be closed. It refuses the request if the circuit is open,
// and lets it continue if the view only needs to be refreshed. Any other request needs a permit. It releases the lock.
func slowCircuitLocked(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	until := m.view.Open
	m.mu.Unlock()
	slowCircuit(m, &slowRequest{w: w, r: r, now: now}, until)
}

// slowCircuit is the rest of slowCircuitLocked. The circuit is known to be open until then.
func slowCircuit(m *Middleware, s *slowRequest, until int64) {
	now := s.now
	if now < until {
		slowOpen(m, s, until-now)
		return
	}
	if m.breaker.ExtendView(now, m.policy) {
		s.closed = true
		s.closedAt = now
		slowAcquire(m, s)
		return
	}
	if retryAfter, refused := m.breaker.MustRefuse(false, now); refused {
		slowOpen(m, s, retryAfter.Microseconds())
		return
	}
	if retryAfter, refused := m.breaker.RampRefuses(now, m.policy); refused {
		slowOpen(m, s, retryAfter.Microseconds())
		return
	}
	if retryAfter := ownRefusal(m, s); retryAfter > 0 {
		slowOpen(m, s, retryAfter.Microseconds())
		return
	}
	slowUpload(m, s)
}

// slowOpen is the end of step 2 for a request that the circuit refuses for another retryAfter microseconds. In a dry run it continues without
// a permit.
func slowOpen(m *Middleware, s *slowRequest, retryAfter int64) {
	if !m.breakerDryRun {
		refuseOpen(m, s, retryAfter)
		return
	}
	noteWouldRefuse(m, s)
	slowAcquire(m, s)
}

// noteWouldRefuse notes that a request passes although the circuit refuses it. Its outcome counts as little as if it had been refused.
func noteWouldRefuse(m *Middleware, s *slowRequest) {
	s.unasked = true
	s.wouldRefuse(decidedWouldOpen)
	m.breaker.RecheckOpen(s.now, m.policy)
	m.logOpen(s.r, s.now)
}

// slowUpload is the rest of step 2 for a request that may become a probe. It reads a small body before a place is asked for, so that no
// client holds a place while it sends a small body.
func slowUpload(m *Middleware, s *slowRequest) {
	s.upload = hasBody(s.r)
	if s.upload && m.breaker.Probing() {
		s.upload = !readAhead(s.r)
		s.now = m.now() // that was waiting for the client, not for Redis
		if retryAfter, refused := m.breaker.MustRefuse(s.upload, s.now); refused {
			slowOpen(m, s, retryAfter.Microseconds())
			return
		}
	}
	noteIgnored(m, s)
	slowAcquire(m, s)
}

// noteIgnored notes that the outcome of a request never counts. If it needs a permit it asks for that of an upload, which it may lose
// without a verdict.
func noteIgnored(m *Middleware, s *slowRequest) {
	if m.someIgnored && m.ignores(s.r) {
		s.ignored = true
		s.upload = true
	}
}

// slowAcquire is steps 3 and 4 of a request that has passed step 2 on the slow path: it takes a token. If Redis must be asked for the token,
// a permit that the request needs is asked for in the same round trip: two round trips to a slow Redis would take longer than a request may
// wait.
func slowAcquire(m *Middleware, s *slowRequest) {
	if m.limit == nil {
		slowForward(m, s)
		return
	}
	if m.rules != nil {
		slowPlan(m, s)
		return
	}
	if m.countsLeft {
		slowAcquireCounted(m, s)
		return
	}
	id := identityOf(m, s.r)
	if id == "" && m.derived {
		slowMissing(m, s)
		return
	}
	verdict := ratelimit.AllowCached(m.cache, id, s.now)
	if verdict != 0 {
		slowDecide(m, s, verdict)
		return
	}
	if m.policy != nil && !s.closed {
		s.asked = m.breaker.RequestPermit(m.policy, s.upload, s.now)
		if s.asked != nil {
			defer m.breaker.CancelUnclaimed(s.asked)
		}
	}
	s.closed = false // the verdict says whether it still is
	slowDecide(m, s, ratelimit.Allow(m.cache, id, s.now))
}

// identityOf returns the identity of a request: a header's value, the connection's address, what identity.Of derives, or, for any other key
// source, the key itself. From the first three a key is made only if one is needed.
func identityOf(m *Middleware, r *http.Request) string {
	if m.headerValue != nil {
		return m.headerValue(r)
	}
	if m.ofConnection {
		return r.RemoteAddr
	}
	return m.identify(r)
}

// identityOfLocked is identityOf for a caller that holds the lock. It releases the lock meanwhile, because making a key is slow and may
// panic.
func identityOfLocked(m *Middleware, r *http.Request) string {
	m.mu.Unlock()
	//lint:ignore S1021 R2
	var id string
	id = identityOf(m, r)
	m.mu.Lock()
	return id
}

// slowMissingLocked is the rest of step 3 for a request without the key source, where that means that no limit applies or that it is refused.
// It releases the lock. The circuit is known to be closed, if there is one.
func slowMissingLocked(m *Middleware, w http.ResponseWriter, r *http.Request, now int64) {
	m.mu.Unlock()
	slowMissing(m, &slowRequest{w: w, r: r, now: now, closed: true, closedAt: now, upload: hasBody(r)})
}

// slowMissing is slowMissingLocked for a request that has passed step 2 on the slow path.
func slowMissing(m *Middleware, s *slowRequest) {
	if m.keySource.Missing == identity.MissingDeny {
		refuseDenied(m, s)
		return
	}
	slowForward(m, s)
}

// slowRenewLocked is step 4 of a request whose grant has no token left, or must be renewed. It releases the lock.
func slowRenewLocked(m *Middleware, w http.ResponseWriter, r *http.Request, g *ratelimit.Grant, now int64) {
	m.renewed++
	verdict := ratelimit.AllowGrant(m.cache, g, identityOfLocked(m, r), now)
	slowVerdict(m, w, r, verdict, now)
}

// slowVerdict is the end of step 4 for a request that comes from the fast path with the limiter's verdict.
func slowVerdict(m *Middleware, w http.ResponseWriter, r *http.Request, verdict, now int64) {
	slowDecide(m, &slowRequest{w: w, r: r, now: now, upload: hasBody(r)}, verdict)
}

// slowDecide is the end of step 4. It refuses a request without a token, and decides without Redis if there is no verdict.
func slowDecide(m *Middleware, s *slowRequest, verdict int64) {
	switch {
	case verdict == ratelimit.Undecided:
		decideLocally(m, s)
	case verdict <= 0:
		refuseLimited(m, s, -verdict)
	default:
		if verdict > 1 && m.keyOfScope == nil { // it is of the middleware's own circuit
			s.closed = true
			s.closedAt = verdict
		}
		slowForward(m, s)
	}
}

// decideLocally decides without Redis: as onError says if asking Redis failed, and in this process if no Redis is configured.
func decideLocally(m *Middleware, s *slowRequest) {
	if m.store != nil {
		countFallback(m, s)
		m.logRedisError(ratelimit.LastErr(m.cache))
		if m.onError == onErrorAllow {
			slowForward(m, s)
			return
		}
		if m.onError == onErrorDeny {
			refuseUnavailable(m, s)
			return
		}
	}
	verdict := allowLocal(m, s)
	if verdict <= 0 {
		refuseLimited(m, s, -verdict)
		return
	}
	slowForward(m, s)
}

// slowForward is step 5 of a request that has its token. It passes if the circuit is known to be closed, and otherwise needs a permit.
func slowForward(m *Middleware, s *slowRequest) {
	if m.counting {
		forwardCounted(m, s)
		return
	}
	if m.policy == nil || s.unasked {
		m.next.ServeHTTP(s.w, s.r)
		return
	}
	if s.closed {
		forward(m, s.w, s.r, s.closedAt)
		return
	}
	slowPermit(m, s)
}

// slowPermit is step 5 of a request for which the circuit is not known to be closed.
func slowPermit(m *Middleware, s *slowRequest) {
	noteIgnored(m, s)
	own, wait := claimOwnPermit(m, s)
	if wait > 0 {
		refuseOrPass(m, s, wait)
		return
	}
	permit, retryAfter, err := claimPermit(m, s)
	if err != nil || retryAfter > 0 {
		releaseOwnPermit(m, own)
	}
	if retryAfter > 0 {
		refuseOrPass(m, s, retryAfter)
		return
	}
	if err != nil {
		if !m.breakerDryRun {
			refuseUnavailable(m, s)
			return
		}
		s.unasked = true
		slowForward(m, s)
		return
	}
	if m.counting {
		decide(m, s.counted.decision)
		if s.counted.sampled {
			s.counted.begun = m.now()
			defer measured(m, s)
		}
	}
	if !permit.Probe() && !own.Probe() {
		at, closed := closedNow(m)
		if closed {
			forward(m, s.w, s.r, at)
			return
		}
	}
	forwardPermitted(m, s, permit, own)
}

// refuseOrPass ends step 5 for a request that the circuit refuses: in a dry run it passes.
func refuseOrPass(m *Middleware, s *slowRequest, retryAfter time.Duration) {
	if !m.breakerDryRun {
		refuseOpen(m, s, retryAfter.Microseconds())
		return
	}
	noteWouldRefuse(m, s)
	slowForward(m, s)
}

// closedNow reports whether the circuit is known to be closed, and the time.
func closedNow(m *Middleware) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	return now, now < m.view.Healthy
}

// claimPermit returns the permit that was asked for, or asks for one. If Redis is too slow, its last known state decides; if Redis is
// unavailable, onError does. If retryAfter is not 0, there is no permit. An error means that onError is deny.
func claimPermit(m *Middleware, s *slowRequest) (permit breaker.Permit, retryAfter time.Duration, err error) {
	deadline := time.Now().Add(budget(m, s))
	if s.asked != nil {
		permit, retryAfter, err = m.breaker.Await(s.asked, deadline)
	} else {
		permit, retryAfter, err = m.breaker.Allow(m.policy, s.upload, s.now, deadline)
	}
	if err == nil {
		return permit, retryAfter, nil
	}
	countFallback(m, s)
	m.logRedisError(err)
	if errors.Is(err, store.ErrUnavailable) {
		last, wait, known := m.breaker.LastKnown(s.now)
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
	permit, retryAfter = m.breaker.AllowLocal(m.policy, s.upload, s.now)
	return permit, retryAfter, nil
}

// budget returns how long a request may still wait for Redis.
func budget(m *Middleware, s *slowRequest) time.Duration {
	return m.redis.Timeout - time.Duration(m.now()-s.now)*time.Microsecond
}

// forwardPermitted forwards a request that has a permit. Its report waits for Redis no longer than what is left of the request's budget.
func forwardPermitted(m *Middleware, s *slowRequest, permit, own breaker.Permit) {
	p := &permitted{m: m, recorder: &recorder.Recorder{ResponseWriter: s.w}}
	p.x = &exchange{r: s.r, header: s.w.Header(), arrived: timeOf(m.now()), permit: permit, own: own, budget: budget(m, s), ignored: s.ignored}
	defer p.report()
	p.forward()
}
