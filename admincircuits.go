package resilience

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/store"
)

// Admin opens and closes circuits by hand: POST <path>/circuits/<name>/open, close or auto, with ?scope= for that of a scope. What it does
// holds for the whole fleet, and ends by itself.

// What is done to a circuit by hand: the last part of the path.
const (
	doOpen  = "open"
	doClose = "close"
	doAuto  = "auto" // ends the other two
)

// defaultForce is how long a state that was made by hand holds if the request does not say.
const defaultForce = 10 * time.Minute

// circuitChange is what a request asks for.
type circuitChange struct {
	of      *shownEngines
	circuit *breaker.Breaker
	scope   string // whose circuit it is, as it may be shown; "": the middleware's own
	known   bool   // this gateway knew the circuit before
	policy  *breaker.Policy
	budget  time.Duration // redis.timeout
	do      string
	length  time.Duration
	reason  string
}

func (a *adminHandler) serveCircuit(w http.ResponseWriter, r *http.Request, rest string) {
	if r.Method != http.MethodPost {
		w.Header()["Allow"] = []string{"POST"}
		writeProblem(w, r, http.StatusMethodNotAllowed, "Method not allowed, please use POST.")
		return
	}
	if !mayChange(r) {
		adminCrossSite.write(w, r)
		return
	}
	change, status, problem := a.readChange(r.URL.Query(), rest)
	if change == nil {
		writeProblem(w, r, status, problem)
		return
	}
	if err := change.apply(); err != nil {
		if errors.Is(err, store.ErrUnavailable) {
			adminUnavailable.write(w, r)
			return
		}
		writeProblem(w, r, http.StatusConflict, "The key in Redis does not hold a circuit.")
		return
	}
	change.log(r.RemoteAddr)
	writeJSON(w, r, change.answer())
}

func (c *circuitChange) answer() map[string]interface{} {
	now := c.circuit.Snapshot(c.of.now())
	answer := map[string]interface{}{"middleware": c.of.name, "state": now.State, "forced": forcedStatus(c.of, now, c.reason)}
	if c.scope != "" {
		answer["scope"] = c.scope
		answer["known"] = c.known
	}
	return answer
}

// readChange returns what a request asks for, or a status and what is wrong.
func (a *adminHandler) readChange(query url.Values, rest string) (*circuitChange, int, string) {
	name := strings.TrimPrefix(rest, "/circuits/")
	slash := strings.LastIndexByte(name, '/') // the name may hold others
	if slash < 1 || len(name) > maxLookup {
		return nil, http.StatusNotFound, "A circuit is /circuits/<name>/open, close or auto, where <name> is a middleware's, of at most 256 bytes in all."
	}
	change := &circuitChange{do: name[slash+1:], length: defaultForce, reason: plainText(query.Get("reason"))}
	if change.do != doOpen && change.do != doClose && change.do != doAuto {
		return nil, http.StatusNotFound, "A circuit is opened by open, closed by close, and left to itself again by auto."
	}
	if text := query.Get("for"); text != "" {
		length, err := time.ParseDuration(text)
		if err != nil || length < breaker.ShortestForce || length > breaker.LongestForce {
			return nil, http.StatusBadRequest, "for must be a duration from 1s to 720h, such as 10m."
		}
		change.length = length
	}
	change.of = a.named(name[:slash])
	if change.of == nil {
		return nil, http.StatusNotFound, "There is no such middleware."
	}
	if status, problem := change.find(query.Get("scope")); status != 0 {
		return nil, status, problem
	}
	return change, 0, ""
}

// find finds the circuit. It returns a status and what is wrong, or 0.
func (c *circuitChange) find(scope string) (int, string) {
	if scope != "" {
		return c.findScope(scope)
	}
	for _, route := range c.of.routes {
		if route.policy != nil {
			c.circuit = c.of.breaker
			c.policy = route.policy
			c.budget = route.timeout
			return 0, ""
		}
	}
	return http.StatusNotFound, "This middleware has no circuit breaker."
}

func (c *circuitChange) apply() error {
	deadline := time.Now().Add(c.budget)
	switch c.do {
	case doOpen:
		return c.circuit.ForceOpen(c.length, c.reason, c.policy, deadline)
	case doClose:
		return c.circuit.ForceClosed(c.length, c.reason, c.policy, deadline)
	}
	return c.circuit.EndForce(c.policy, deadline)
}

func (c *circuitChange) log(source string) {
	fields := []string{"reason", c.reason, "source", source}
	if c.scope != "" {
		fields = append(fields, "scope", redact(c.scope))
	}
	if c.do == doAuto {
		c.of.log.Warn("circuit left to itself again", fields...)
		return
	}
	fields = append(fields, "for", c.length.String())
	if c.do == doOpen {
		c.of.log.Warn("circuit opened by hand", fields...)
	} else {
		c.of.log.Warn("circuit closed by hand", fields...)
	}
}

// forcedStatus returns what is shown of a state that was made by hand; nil: it was not.
func forcedStatus(one *shownEngines, s *breaker.Snapshot, reason string) map[string]interface{} {
	if s.Forced == "" {
		return nil
	}
	return map[string]interface{}{
		"state": s.Forced, "reason": reason, "secondsLeft": inSeconds(s.ForcedFor),
		"until": timeOf(one.now() + s.ForcedFor).UTC().Format(time.RFC3339),
	}
}

// hasOwnCircuit reports whether a route uses the circuit of this gateway alone.
func (one *shownEngines) hasOwnCircuit() bool {
	for _, route := range one.routes {
		if route.policy != nil && route.policy.Own() != nil {
			return true
		}
	}
	return false
}
