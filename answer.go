package resilience

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// The bodies of our own answers.
const (
	healthyBody     = `{"status":"healthy"}`
	limitedBody     = `{"error":"Too many requests, please try again later."}`
	openBody        = `{"error":"Service temporarily unavailable due to circuit open."}`
	unavailableBody = `{"error":"Service temporarily unavailable, please try again later."}`
)

// The statuses of refusals.
const (
	limitedStatus = http.StatusTooManyRequests
	openStatus    = http.StatusServiceUnavailable
)

// ownAnswer is one of our own, made ready: a refusal must cost little.
type preparedAnswer struct {
	status int
	length []string // the header's value
	body   []byte
}

var (
	healthy     = newAnswer(http.StatusOK, healthyBody)
	rateLimited = newAnswer(limitedStatus, limitedBody)
	circuitOpen = newAnswer(openStatus, openBody)
	unavailable = newAnswer(http.StatusServiceUnavailable, unavailableBody)

	// Of the two that many requests get, side by side: interpreted, a field costs.
	limitedText, limitedLength = rateLimited.body, rateLimited.length
	openText, openLength       = circuitOpen.body, circuitOpen.length

	contentType = []string{"application/json"}
	oneSecond   = []string{"1"}
	closing     = []string{"close"}
)

func newAnswer(status int, body string) *preparedAnswer {
	return &preparedAnswer{status: status, length: []string{strconv.Itoa(len(body))}, body: []byte(body)}
}

// write answers the request. retryAfter is the header's value; nil: none. To find the length costs the server
// more than it costs to tell.
func (a *preparedAnswer) write(w http.ResponseWriter, r *http.Request, retryAfter []string) {
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = a.length
	if retryAfter != nil {
		header["Retry-After"] = retryAfter
	}
	if r.ContentLength != 0 {
		closeAfter(header, r)
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// closeAfter has the connection closed after the answer to a request with a body. To keep it, net/http would first read that body, up
// to 256 KB, and a client that does not send it would have no answer. Over HTTP/2 and 3 no answer waits for a body, and to close the
// connection would end the other requests on it.
func closeAfter(header http.Header, r *http.Request) {
	if r.ProtoMajor == 1 {
		header["Connection"] = closing
	}
}

func answerHealthy(w http.ResponseWriter, r *http.Request) { healthy.write(w, r, nil) }

// The ways to refuse a request on the slow path. None of them forwards it, and none returns to a step.

// refuseLimited refuses a request of a client whose bucket holds a token again in retryAfter microseconds.
func refuseLimited(m *Middleware, s *slowRequest, retryAfter int64) {
	beforeRefusal(m, s)
	rateLimited.write(s.w, s.r, seconds(retryAfter))
	m.logRefusal("rate limit exceeded", m.bucketKeyOf(s.r), 0, s.now)
}

// refuseUnavailable refuses a request because onError is deny.
func refuseUnavailable(m *Middleware, s *slowRequest) {
	beforeRefusal(m, s)
	unavailable.write(s.w, s.r, oneSecond)
}

// beforeRefusal gives the place back that was asked for, and has the view refreshed: a refused request may have asked Redis nothing, and
// so may all that follow.
func beforeRefusal(m *Middleware, s *slowRequest) {
	if m.policy == nil {
		return
	}
	if s.asked != nil {
		m.breaker.CancelUnclaimed(s.asked)
	}
	m.breaker.RefreshIfStale(s.now, m.policy)
}

// refuseOpen refuses a request because the circuit is open for another retryAfter microseconds. The next ones are refused with the same
// words, by a handler that does nothing else.
func refuseOpen(m *Middleware, s *slowRequest, retryAfter int64) {
	m.breaker.RecheckOpen(s.now, m.policy)
	circuitOpen.write(s.w, s.r, seconds(retryAfter))
	m.logOpen(s.now)
	if !m.debug {
		m.switchToOpen(s.now)
	}
}

// waits are values of Retry-After made ready, by the seconds.
var (
	retryAfterTexts = makeRetryAfterTexts(3600) // an hour
	preparedSeconds = int64(len(retryAfterTexts))
)

func makeRetryAfterTexts(most int64) [][]string {
	made := [][]string{oneSecond} // 0 is told as 1
	for n := int64(1); n <= most; n++ {
		made = append(made, []string{strconv.FormatInt(n, 10)})
	}
	return made
}

// seconds returns whole seconds for microseconds, rounded up, at least 1, as a header's value.
func seconds(microseconds int64) []string {
	if microseconds <= 1000000 {
		return oneSecond
	}
	whole := (microseconds + 999999) / 1000000
	if whole < preparedSeconds {
		return retryAfterTexts[whole]
	}
	return []string{strconv.FormatInt(whole, 10)}
}

// logRefusal logs the first refusal of a client in a minute, or where debug is on all of them. So many before it never came here.
func (m *Middleware) logRefusal(reason, key string, skipped int, now int64) {
	before, due := m.refusals.due(reason+key, now)
	if due || m.debug {
		m.writeRefusal(reason, key, before+skipped, due)
	}
}

// noteOpen logs a refusal by an open circuit, the first in a minute, or where debug is on all of them.
func (m *Middleware) logOpen(now int64) {
	if now >= m.openLogDue.Load() || m.debug {
		m.openLogDue.Store(now + refusalLogInterval)
		m.logRefusal("circuit open", "", 0, now)
	}
}

// noteEmptyLocked logs a refusal from memory when that is due. It releases the lock meanwhile.
func logEmptyLocked(m *Middleware, r *http.Request, e *ratelimit.Grant, now int64) {
	before := int(e.Refused - 1)
	e.Refused = 0
	if !m.debug {
		e.NoteAt = now + refusalLogInterval
	}
	m.mu.Unlock()
	m.logRefusal("rate limit exceeded", m.bucketKeyOf(r), before, now)
	m.mu.Lock()
}

func (m *Middleware) writeRefusal(reason, key string, before int, due bool) {
	fields := []string{}
	if key != "" {
		fields = append(fields, "client", redact(key))
	}
	if due {
		m.log.Info("refused: "+reason, append(fields, "refusedBefore", strconv.Itoa(before))...)
	} else {
		m.log.Debug("refused: "+reason, fields...)
	}
}

// logFailure logs the first failure of the upstream in a second.
func (m *Middleware) logFailure(status int) {
	if before, due := m.failures.due("", m.now()); due {
		m.log.Warn("upstream failed", "status", strconv.Itoa(status), "failedBefore", strconv.Itoa(before))
	}
}

// logTrouble logs what Redis answered instead of an answer, once a second. That it is away, the store tells itself.
func (m *Middleware) logRedisError(err error) {
	if errors.Is(err, store.ErrUnavailable) {
		return
	}
	if before, due := m.redisErrors.due(err.Error(), m.now()); due {
		m.log.Warn("unexpected redis reply", "reason", err.Error(), "before", strconv.Itoa(before))
	}
}
