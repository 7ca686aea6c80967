package resilience

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// logRefusal logs the first refusal of a client in a minute, or all of them with debug. skipped is the number of refusals before this one
// that were counted elsewhere.
func (m *Middleware) logRefusal(reason, key string, skipped int, now int64) {
	before, due := m.refusals.due(reason+key, now)
	if due || m.debug {
		m.writeRefusal(reason, key, before+skipped, due)
	}
}

// logNamed logs what a rule with a name does to the requests of a client, like logRefusal. field says what the name is of.
func (m *Middleware) logNamed(message, field, name, key string, skipped int, now int64) {
	before, due := m.refusals.due(message+" "+name+" "+key, now)
	before += skipped
	fields := []string{"client", redact(key), field, name}
	if due {
		m.log.Info(message, append(fields, "refusedBefore", strconv.Itoa(before))...)
	} else if m.debug {
		m.log.Debug(message, fields...)
	}
}

// logOpen logs a refusal by an open circuit: the first in a minute, or all of them with debug.
func (m *Middleware) logOpen(now int64) {
	if now >= m.openLogDue.Load() || m.debug {
		m.openLogDue.Store(now + refusalLogInterval)
		m.logRefusal("circuit open", "", 0, now)
	}
}

// logEmptyLocked logs a refusal from memory whose log line is due. It releases the lock meanwhile.
func logEmptyLocked(m *Middleware, r *http.Request, g *ratelimit.Grant, now int64) {
	before := int(g.Refused - 1)
	g.Refused = 0
	if !m.debug {
		g.NoteAt = now + refusalLogInterval
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
