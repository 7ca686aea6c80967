package resilience

import (
	"net/http"
	"strconv"
	"strings"
)

// The bodies of our own answers.
const (
	healthyBody     = `{"status":"healthy"}`
	limitedBody     = `{"error":"Too many requests, please try again later."}`
	openBody        = `{"error":"Service temporarily unavailable due to circuit open."}`
	deniedBody      = `{"error":"Forbidden."}`
	unavailableBody = `{"error":"Service temporarily unavailable, please try again later."}`
	methodBody      = `{"error":"Method not allowed, please use GET or HEAD."}`
)

// The statuses of refusals.
const (
	limitedStatus     = http.StatusTooManyRequests
	openStatus        = http.StatusServiceUnavailable
	deniedStatus      = http.StatusForbidden
	unavailableStatus = http.StatusServiceUnavailable
)

// preparedAnswer is an answer of the middleware itself, prepared because a refusal must cost little.
type preparedAnswer struct {
	status  int
	kind    []string       // the value of Content-Type
	length  []string       // the value of Content-Length; nil: the body has placeholders
	body    []byte         // as configured
	pieces  []string       // of a body with placeholders (answerbody.go); nil: it has none
	headers []answerHeader // what the configuration adds
	call    *callStatus    // what a gRPC client gets instead
}

// refusalSet is all refusals of a route.
type refusalSet struct {
	rateLimited, circuitOpen, denied, unavailable *preparedAnswer
}

// The interpreter initializes variables in their order: what functions use comes before the variables that call them (R45).
var (
	contentType = []string{"application/json"}
	oneSecond   = []string{"1"}
	closing     = []string{"close"}
	readMethods = []string{"GET, HEAD"}

	healthy     = newAnswer(http.StatusOK, healthyBody, nil)
	rateLimited = newRefusal(limitedStatus, limitedBody, resourceExhausted)
	circuitOpen = newRefusal(openStatus, openBody, callUnavailable)
	denied      = newRefusal(deniedStatus, deniedBody, permissionDenied)
	unavailable = newRefusal(unavailableStatus, unavailableBody, callUnavailable)
	wrongMethod = newAnswer(http.StatusMethodNotAllowed, methodBody, nil)

	// The parts of the two most frequent answers: a field would be a local (R7).
	limitedText, limitedLength = rateLimited.body, rateLimited.length
	openText, openLength       = circuitOpen.body, circuitOpen.length
)

func newAnswer(status int, body string, call *callStatus) *preparedAnswer {
	return &preparedAnswer{status: status, kind: contentType, length: []string{strconv.Itoa(len(body))}, body: []byte(body), call: call}
}

// prepareAnswer returns an answer whose body may have placeholders.
func prepareAnswer(status int, kind, body string, call *callStatus) *preparedAnswer {
	a := newAnswer(status, body, call)
	a.kind = []string{kind}
	if pieces := splitBody(body); len(pieces) > 1 {
		a.pieces = pieces
		a.length = nil
	}
	return a
}

// defaultAnswers returns the refusals of a route whose configuration changes none.
func defaultAnswers() *refusalSet {
	return &refusalSet{rateLimited: rateLimited, circuitOpen: circuitOpen, denied: denied, unavailable: unavailable}
}

// newRefusal returns a refusal with its default body. code is the gRPC status.
func newRefusal(status int, body, code string) *preparedAnswer {
	return newAnswer(status, body, newCallStatus(code, messageOf(body)))
}

// messageOf returns the message in a default body.
func messageOf(body string) string {
	return strings.TrimSuffix(strings.TrimPrefix(body, `{"error":"`), `"}`)
}

// write answers the request. It sets Content-Length, because the server would take longer to compute it.
func (a *preparedAnswer) write(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Content-Type"] = a.kind
	header["Content-Length"] = a.length
	if r.ContentLength != 0 {
		closeAfter(header, r)
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// refuse answers the request with a refusal. retryAfter is the value of Retry-After; nil: none. limit is the name of the limit that refuses;
// "": none.
func refuse(a *preparedAnswer, w http.ResponseWriter, r *http.Request, retryAfter []string, limit string) {
	header := w.Header()
	if retryAfter != nil {
		header["Retry-After"] = retryAfter
	}
	if r.ContentLength != 0 && isCall(r) {
		refuseCall(a.call, w, r)
		return
	}
	for _, one := range a.headers {
		header[one.name] = one.values
	}
	if a.pieces != nil {
		a = fillIn(a, r, retryAfter, limit)
	}
	a.write(w, r)
}

// closeAfter closes the connection after the answer to a request with a body. To keep the connection, net/http would first read up to 256 KB
// of the body, and a client that does not send its body would get no answer. Over HTTP/2 and HTTP/3 no answer waits for a body, and closing
// the connection would end the other requests on it.
func closeAfter(header http.Header, r *http.Request) {
	if r.ProtoMajor == 1 {
		header["Connection"] = closing
	}
}

// serveHealth answers requests for the health path itself, whatever their method, and passes all others to the handler.
func (m *Middleware) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != m.health {
		m.handler.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		healthy.write(w, r)
		return
	}
	w.Header()["Allow"] = readMethods
	wrongMethod.write(w, r)
}

// The functions below refuse a request on the slow path. None forwards it, and none returns to a step.

// refuseLimited refuses a request because the client's bucket is empty. It has a token again in retryAfter microseconds.
func refuseLimited(m *Middleware, s *slowRequest, retryAfter int64) {
	if m.counting {
		decideLimited(m, defaultLimit)
	}
	beforeRefusal(m, s)
	writeLimited(m, s.w, s.r, retryAfter)
	m.logLimited(s.r, m.bucketKeyOf(s.r), 0, s.now)
}

// refuseUnavailable refuses a request because onError is deny.
func refuseUnavailable(m *Middleware, s *slowRequest) {
	if m.counting {
		decide(m, decidedUnavailable)
	}
	s.refused = true
	beforeRefusal(m, s)
	refuse(m.answers.unavailable, s.w, s.r, oneSecond, "")
}

// writeLimited writes the refusal of a request whose client's bucket is empty for another retryAfter microseconds.
func writeLimited(m *Middleware, w http.ResponseWriter, r *http.Request, retryAfter int64) {
	wait := seconds(retryAfter)
	if m.rates != nil {
		setRatesOfRefusal(m.rates, w.Header(), retryAfter, wait)
	}
	refuse(m.answers.rateLimited, w, r, wait, defaultLimit)
}

// refuseDenied refuses a request because it lacks the key source. refuseByRule does so because a rule with a name denies it.
func refuseDenied(m *Middleware, s *slowRequest) {
	if m.counting {
		decide(m, decidedDenied)
	}
	beforeRefusal(m, s)
	refuse(m.answers.denied, s.w, s.r, nil, "")
	logRefusal(m, s.r, "denied", m.bucketKeyOf(s.r), 0, s.now)
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
	if m.counting {
		decide(m, decidedOpen)
	}
	s.refused = true
	m.breaker.RecheckOpen(s.now, m.policy)
	refuse(m.answers.circuitOpen, s.w, s.r, seconds(retryAfter), "")
	m.logOpen(s.r, s.now)
	if !m.debug {
		m.switchToOpen(s.now)
	}
}

// refuseOpenBody is how the handler of an open circuit refuses a request with a body, by the default answer.
func refuseOpenBody(w http.ResponseWriter, r *http.Request, retryAfter []string) {
	refuse(circuitOpen, w, r, retryAfter, "")
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
