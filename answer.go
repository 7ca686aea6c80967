package resilience

import (
	"net/http"
	"strconv"
	"time"
)

// The bodies of our own answers.
const (
	healthyBody     = `{"status":"healthy"}`
	limitedBody     = `{"error":"Too many requests, please try again later."}`
	openBody        = `{"error":"Service temporarily unavailable due to circuit open."}`
	unavailableBody = `{"error":"Service temporarily unavailable, please try again later."}`
)

func answer(w http.ResponseWriter, status int, body string) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write([]byte(body))
}

func answerHealthy(w http.ResponseWriter) {
	answer(w, http.StatusOK, healthyBody)
}

// answerUnavailable is the answer of onError: deny.
func answerUnavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	answer(w, http.StatusServiceUnavailable, unavailableBody)
}

func (m *Middleware) refuseLimited(w http.ResponseWriter, key string, retryAfter time.Duration, now int64) {
	w.Header().Set("Retry-After", seconds(retryAfter))
	answer(w, http.StatusTooManyRequests, limitedBody)
	m.logRefusal("rate limit exceeded", key, now)
}

func (m *Middleware) refuseOpen(w http.ResponseWriter, retryAfter time.Duration, now int64) {
	w.Header().Set("Retry-After", seconds(retryAfter))
	answer(w, http.StatusServiceUnavailable, openBody)
	m.logRefusal("circuit open", "", now)
}

// seconds returns whole seconds, rounded up, at least 1.
func seconds(d time.Duration) string {
	whole := int64((d + time.Second - 1) / time.Second)
	if whole < 1 {
		whole = 1
	}
	return strconv.FormatInt(whole, 10)
}

// logRefusal logs the first refusal of a client in a minute, or where debug is on all of them.
func (m *Middleware) logRefusal(reason, key string, now int64) {
	before, due := m.refusals.due(reason+key, now)
	if due {
		m.log.Info("refused: "+reason, "client", logged(key), "refusedBefore", strconv.Itoa(before))
	} else if m.debug {
		m.log.Debug("refused: "+reason, "client", logged(key))
	}
}

// logFailure logs the first failure of the upstream in a second.
func (m *Middleware) logFailure(status int) {
	if before, due := m.failures.due("", sinceStart(time.Now())); due {
		m.log.Warn("upstream failed", "status", strconv.Itoa(status), "failedBefore", strconv.Itoa(before))
	}
}
