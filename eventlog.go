package resilience

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// logRefusal logs the first refusal of a client in a minute, or all of them with debug. skipped is the number of refusals before this one
// that were counted elsewhere.
func logRefusal(m *Middleware, r *http.Request, reason, key string, skipped int, now int64) {
	before, due := m.refusals.dueAfter(reason+key, skipped, now)
	if due || m.debug {
		m.writeRefusal(r, reason, key, before, due)
	}
}

// logLimited logs a refusal by the block's own limit, where it has no others, and counts it for the list of clients refused most.
func (m *Middleware) logLimited(r *http.Request, key string, skipped int, now int64) {
	logRefusal(m, r, ownLimitExceeded, key, skipped, now)
	if m.counting {
		m.countRefused(defaultLimit, key, skipped+1, now)
	}
}

// logNamed logs what a rule with a name does to the requests of a client, like logRefusal. field says what the name is of.
func (m *Middleware) logNamed(r *http.Request, message, field, name, key string, skipped int, now int64) {
	before, due := m.refusals.dueAfter(message+" "+name+" "+key, skipped, now)
	if due || m.debug {
		m.writeEvent(r, message, []string{"client", redact(key), field, name}, before, due)
	}
}

// logByLimit is logNamed for what a limit does. remaining is what the bucket still holds; below 0: it is not known.
func logByLimit(m *Middleware, r *http.Request, message, limit string, remaining int64, key string, skipped int, now int64) {
	before, due := m.refusals.dueAfter(message+" "+limit+" "+key, skipped, now)
	if !due && !m.debug {
		return
	}
	fields := []string{"client", redact(key), "limit", limit}
	if remaining >= 0 {
		fields = append(fields, "remaining", strconv.FormatInt(remaining, 10))
	}
	m.writeEvent(r, message, fields, before, due)
}

// logOpen logs a refusal by an open circuit: the first in a minute, or all of them with debug.
func (m *Middleware) logOpen(r *http.Request, now int64) {
	if m.scope != "" {
		m.logOpenScope(r, now)
		return
	}
	if now >= m.openLogDue.Load() || m.debug {
		m.openLogDue.Store(now + refusalLogInterval)
		reason := "circuit open"
		if m.breakerDryRun {
			reason = "circuit open (dry run)"
		}
		logRefusal(m, r, reason, "", 0, now)
	}
}

// logEmptyLocked logs a refusal from memory whose log line is due. It releases the lock meanwhile.
func logEmptyLocked(m *Middleware, r *http.Request, g *ratelimit.Grant, now int64) {
	before := int(g.Refused - 1)
	g.Refused = 0
	if !m.debug {
		g.NoteAt = now + m.noteInterval()
	}
	m.mu.Unlock()
	m.logLimited(r, m.bucketKeyOf(r), before, now)
	m.mu.Lock()
}

func (m *Middleware) writeRefusal(r *http.Request, reason, key string, before int, due bool) {
	fields := []string{}
	if key != "" {
		fields = append(fields, "client", redact(key))
	}
	if reason == ownLimitExceeded {
		fields = append(fields, "limit", defaultLimit, "remaining", "0") // a request costs one token
	}
	m.writeEvent(r, "refused: "+reason, fields, before, due)
}

// writeEvent writes what was decided about a request, at the level info if the line is due, and else at debug.
func (m *Middleware) writeEvent(r *http.Request, message string, fields []string, before int, due bool) {
	decision := loggedDecisions[message]
	fields = append(fields, "decision", decisionNames[decision])
	if decision == decidedOpen || decision == decidedWouldOpen {
		fields = append(fields, "circuit", m.breaker.Snapshot(m.now()).State)
	}
	if id := requestID(r); id != "" {
		fields = append(fields, "requestId", id)
	}
	if id := traceID(r); id != "" {
		fields = append(fields, "traceId", id)
	}
	if due {
		m.log.Info(message, append(fields, "refusedBefore", strconv.Itoa(before))...)
	} else {
		m.log.Debug(message, fields...)
	}
}

// loggedDecisions are the decisions that messages tell of.
var loggedDecisions = map[string]int{
	"refused: rate limit exceeded": decidedLimited, "refused: circuit open": decidedOpen, "refused: denied": decidedDenied,
	"would refuse: rate limit exceeded (dry run)": decidedWouldLimit, "would refuse: denied (dry run)": decidedWouldLimit,
	"refused: circuit open (dry run)": decidedWouldOpen,
}

// traceID returns the id of the request's trace by W3C's Trace Context: 32 digits of a version that is not ff, or "".
func traceID(r *http.Request) string {
	text := headerOnce(r, "Traceparent")
	if len(text) < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-' || text[:2] == "ff" || len(text) > 55 && (text[:2] == "00" || text[55] != '-') {
		return ""
	}
	id := text[3:35]
	if !isLowerHex(text[:2]) || !isLowerHex(id) || !isLowerHex(text[36:52]) || !isLowerHex(text[53:55]) || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

func isLowerHex(text string) bool { return strings.Trim(text, "0123456789abcdef") == "" }

// headerOnce returns the value of a header that a request has once, else "".
func headerOnce(r *http.Request, name string) string {
	if lines := r.Header[name]; len(lines) == 1 {
		return lines[0]
	}
	return ""
}

// logFailure logs the first failure of the service in a second.
func (m *Middleware) logFailure(status int) {
	if before, due := m.failures.due("", m.now()); due {
		m.log.Warn("upstream failed", "status", strconv.Itoa(status), "failedBefore", strconv.Itoa(before))
	}
}

// logRedisError logs an unexpected reply of Redis, once a second. The store itself logs that Redis is unavailable.
func (m *Middleware) logRedisError(err error) {
	if errors.Is(err, store.ErrUnavailable) {
		return
	}
	if before, due := m.redisErrors.due(err.Error(), m.now()); due {
		m.log.Warn("unexpected redis reply", "reason", err.Error(), "before", strconv.Itoa(before))
	}
}
