package resilience

import (
	"net/http"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/ratelimit"
)

// shownClients is how many of the clients that were refused most are shown.
const shownClients = 20

// serveStatus answers with all that admin knows, as JSON.
func (a *adminHandler) serveStatus(w http.ResponseWriter, r *http.Request) {
	shown := a.registry.shown()
	local := []*breaker.Snapshot{}
	for _, one := range shown {
		local = append(local, one.breaker.Snapshot(one.now()))
	}
	shared := refreshAll(shown)
	all := []interface{}{}
	for i, one := range shown {
		all = append(all, statusOf(one, local[i], shared[i]))
	}
	writeJSON(w, r, map[string]interface{}{
		"time":          time.Now().UTC().Format(time.RFC3339Nano),
		"version":       version,
		"uptimeSeconds": time.Since(start).Seconds(),
		"middlewares":   all,
	})
}

// statusOf returns what the status shows of a middleware. It holds no secret: settings are shown in the words of the log, and what clients
// sent as hashes.
func statusOf(one *shownEngines, local, shared *breaker.Snapshot) map[string]interface{} {
	settings := []string{}
	limits := []string{}
	differ := false
	hasCircuit := false
	for _, route := range one.routes {
		differ = differ || route.compared != one.routes[0].compared
		for _, part := range route.parts {
			if !contains(settings, part) {
				settings = append(settings, part)
			}
		}
		for _, limit := range route.limits {
			if !contains(limits, limit) {
				limits = append(limits, limit)
			}
		}
		hasCircuit = hasCircuit || route.policy != nil
	}
	s := sampleOf(one)
	decisions := map[string]int64{}
	for decision, n := range s.decisions {
		decisions[decisionNames[decision]] = n
	}
	status := map[string]interface{}{
		"name": one.name, "scope": one.scope, "routers": len(one.routes), "settings": settings, "settingsDiffer": differ,
		"limits": limits, "requests": decisions, "limited": s.limited, "fallbackDecisions": s.fallbacks, "grants": s.grants, "leases": ratelimit.CountLeases(one.limiter),
		"waiting":     s.waiting,
		"mostRefused": one.mostRefused(),
	}
	if hasCircuit {
		status["circuit"] = circuitStatus(one, s, local, shared)
	}
	status["fleet"] = one.fleetStatus()
	if one.store != nil {
		status["redis"] = storeStatus(one)
	}
	return status
}

// circuitStatus returns what the status shows of a circuit: as this gateway sees it, and as Redis does where it answers.
func circuitStatus(one *shownEngines, s *sampled, local, shared *breaker.Snapshot) map[string]interface{} {
	recent := []interface{}{}
	for i := len(s.recent) - 1; i >= 0; i-- {
		change := s.recent[i]
		entry := map[string]interface{}{
			"from": change.from, "to": change.to, "time": timeOf(change.at).UTC().Format(time.RFC3339Nano),
			"secondsAgo": inSeconds(one.now() - change.at),
		}
		if change.scope != "" {
			entry["scope"] = change.scope
		}
		recent = append(recent, entry)
	}
	status := map[string]interface{}{
		"state": one.breaker.Snapshot(one.now()).State, "gateway": snapshotStatus(local), "recent": recent, "upstreamFailures": s.failures,
	}
	if one.hasOwnCircuit() {
		status["own"] = snapshotStatus(one.ownCircuit.Snapshot(one.now()))
	}
	known := local
	if shared != nil {
		status["redis"] = snapshotStatus(shared)
		known = shared
	}
	status["forced"] = nil
	if known.Forced != "" {
		status["forced"] = forcedStatus(one, known, plainText(one.breaker.Reason(time.Now().Add(one.routes[0].timeout))))
	}
	if one.hasScopes() {
		status["scopes"] = one.scopesStatus()
	}
	return status
}

func snapshotStatus(s *breaker.Snapshot) map[string]interface{} {
	untilProbe, untilClosed := s.Remaining, int64(0)
	if s.State == "ramp" {
		untilProbe, untilClosed = 0, s.Remaining
	} else if s.State == "closed" {
		untilProbe = 0 // it is closed by hand
	}
	return map[string]interface{}{
		"state": s.State, "failures": s.Failures, "successes": s.Successes, "secondsUntilProbe": inSeconds(untilProbe),
		"secondsUntilClosed": inSeconds(untilClosed), "local": s.Local,
	}
}

func storeStatus(one *shownEngines) map[string]interface{} {
	kind, server := one.store.Topology()
	status := map[string]interface{}{"address": one.store.Address(), "topology": kind, "server": server, "up": !one.store.IsUnavailable()}
	if stats := one.store.Stats(); stats != nil {
		status["calls"] = map[string]int64{"ok": stats.OK, "error": stats.Errors, "unavailable": stats.Unanswered}
		status["latencySeconds"] = stats.Last
	}
	return status
}

// mostRefused returns the clients refused most in the last minutes. countTooHighBy bounds the error of a count.
func (one *shownEngines) mostRefused() []interface{} {
	t := one.tally
	t.mu.Lock()
	copies := t.refused.copies(one.now())
	t.mu.Unlock()
	shown := []interface{}{}
	for _, client := range mostOf(copies, shownClients) {
		shown = append(shown, map[string]interface{}{
			"key": shownKey(client.key), "limit": client.limit, "refused": client.count, "countTooHighBy": client.error,
		})
	}
	return shown
}

// shownKey returns the key of a client as it may be shown, and as a bucket may be looked up: what may be a secret is its SHA-256.
func shownKey(key string) string {
	if shown := identity.Shown(key); shown == identity.Name(key) {
		return shown
	}
	if isHashed(key) {
		return key
	}
	return identity.Hashed(key)
}

func contains(texts []string, text string) bool {
	for _, one := range texts {
		if one == text {
			return true
		}
	}
	return false
}
