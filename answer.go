package resilience

import (
	"net/http"
	"strconv"
)

// The bodies of our own answers.
const (
	healthyBody     = `{"status":"healthy"}`
	limitedBody     = `{"error":"Too many requests, please try again later."}`
	openBody        = `{"error":"Service temporarily unavailable due to circuit open."}`
	deniedBody      = `{"error":"Forbidden."}`
	unavailableBody = `{"error":"Service temporarily unavailable, please try again later."}`
)

// The statuses of refusals.
const (
	limitedStatus = http.StatusTooManyRequests
	openStatus    = http.StatusServiceUnavailable
	deniedStatus  = http.StatusForbidden
)

// preparedAnswer is an answer of the middleware itself, prepared because a refusal must cost little.
type preparedAnswer struct {
	status int
	length []string // the header's value
	body   []byte
}

var (
	healthy     = newAnswer(http.StatusOK, healthyBody)
	rateLimited = newAnswer(limitedStatus, limitedBody)
	circuitOpen = newAnswer(openStatus, openBody)
	denied      = newAnswer(deniedStatus, deniedBody)
	unavailable = newAnswer(http.StatusServiceUnavailable, unavailableBody)

	// The parts of the two most frequent answers: a field would be a local (R7).
	limitedText, limitedLength = rateLimited.body, rateLimited.length
	openText, openLength       = circuitOpen.body, circuitOpen.length

	contentType = []string{"application/json"}
	oneSecond   = []string{"1"}
	closing     = []string{"close"}
)

func newAnswer(status int, body string) *preparedAnswer {
	return &preparedAnswer{status: status, length: []string{strconv.Itoa(len(body))}, body: []byte(body)}
}

// write answers the request. retryAfter is the value of Retry-After; nil: none. It sets Content-Length, because the server would take longer
// to compute it.
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

// closeAfter closes the connection after the answer to a request with a body. To keep the connection, net/http would first read up to 256 KB
// of the body, and a client that does not send its body would get no answer. Over HTTP/2 and HTTP/3 no answer waits for a body, and closing
// the connection would end the other requests on it.
func closeAfter(header http.Header, r *http.Request) {
	if r.ProtoMajor == 1 {
		header["Connection"] = closing
	}
}

// serveHealth answers requests for the health path itself, and passes all others to the handler.
func (m *Middleware) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == m.health && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		healthy.write(w, r, nil)
		return
	}
	m.handler.ServeHTTP(w, r)
}

// The functions below refuse a request on the slow path. None forwards it, and none returns to a step.

// refuseLimited refuses a request because the client's bucket is empty. It has a token again in retryAfter microseconds.
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

// refuseDenied refuses a request because a rule denies it. rule is the rule's name; "": it has none.
func refuseDenied(m *Middleware, s *slowRequest, rule string) {
	beforeRefusal(m, s)
	denied.write(s.w, s.r, nil)
	m.logRefusal("denied", "", 0, s.now)
}

// beforeRefusal gives back a place that was asked for, and refreshes the view if it is stale: neither this request nor the ones that follow
// may otherwise ask Redis.
func beforeRefusal(m *Middleware, s *slowRequest) {
	if m.policy == nil {
		return
	}
	if s.asked != nil {
		m.breaker.CancelUnclaimed(s.asked)
	}
	m.breaker.RefreshIfStale(s.now, m.policy)
}

// refuseOpen refuses a request because the circuit is open for another retryAfter microseconds. A handler that only refuses answers the
// requests that follow.
func refuseOpen(m *Middleware, s *slowRequest, retryAfter int64) {
	m.breaker.RecheckOpen(s.now, m.policy)
	circuitOpen.write(s.w, s.r, seconds(retryAfter))
	m.logOpen(s.now)
	if !m.debug {
		m.switchToOpen(s.now)
	}
}

// retryAfterTexts are prepared values of Retry-After, one for each number of seconds.
var (
	retryAfterTexts = makeRetryAfterTexts(3600) // an hour
	preparedSeconds = int64(len(retryAfterTexts))
)

func makeRetryAfterTexts(most int64) [][]string {
	made := [][]string{oneSecond} // 0 is written as 1
	for n := int64(1); n <= most; n++ {
		made = append(made, []string{strconv.FormatInt(n, 10)})
	}
	return made
}

// seconds returns microseconds as whole seconds, rounded up, at least 1, in the form of a header's value.
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
