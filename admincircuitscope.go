package resilience

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/resilient-gateway/resilience/identity"
)

// Admin finds the circuit of the scope that a request names: as the status shows it, or as the host or the part of the path that clients
// send. A scope that this gateway does not know gets a circuit, within the same bound as one of a client: otherwise an operator could not
// act on a gateway that has just started.

// findScope finds the circuit of a scope. It returns a status and what is wrong, or 0.
func (c *circuitChange) findScope(text string) (int, string) {
	if len(text) > maxLookup {
		return http.StatusBadRequest, fmt.Sprintf("scope has at most %d bytes.", maxLookup)
	}
	route := c.of.scopedRoute(text)
	if route == nil || route.policy == nil {
		return http.StatusNotFound, "The circuit of this middleware has no scopes."
	}
	key, problem := keyOfScope(route.scope, text)
	if problem != "" {
		return http.StatusBadRequest, problem
	}
	found, known := c.of.circuitOf(key)
	if found == nil {
		return http.StatusConflict, fmt.Sprintf("This gateway does not know the scope, and has as many circuits as it may: %d.", maxCircuits)
	}
	c.circuit = found.breaker
	c.scope = shownKey(found.key)
	c.known = known
	c.policy = route.policy
	c.budget = route.timeout
	return 0, ""
}

// scopedRoute returns the first route with scopes of the kind that a text begins with, else the first one with scopes; nil: there is none.
func (one *shownEngines) scopedRoute(text string) *route {
	var first *route
	for _, route := range one.routes {
		if route.scope == nil {
			continue
		}
		if strings.HasPrefix(text, kindOfScope(route.scope)) {
			return route
		}
		if first == nil {
			first = route
		}
	}
	return first
}

func kindOfScope(scope *identity.Source) string {
	if scope.Host {
		return "host:"
	}
	return "path:"
}

// keyOfScope returns the key of the scope that a text names, as that of a request has it, or what is wrong. The text may begin with the kind.
func keyOfScope(scope *identity.Source, text string) (key, problem string) {
	kind := kindOfScope(scope)
	value := strings.TrimPrefix(text, kind)
	if value != text && isHashed(text) {
		return text, ""
	}
	if scope.Host {
		value = identity.HostName(value)
		if value == "" {
			return "", "scope is a host, such as api.example.com."
		}
		return identity.BucketKey(*scope)(value), ""
	}
	parts := strings.Split(value, "/")
	names := strings.Count(scope.Path, "{")
	if len(parts) != names || contains(parts, "") || strings.ContainsRune(value, ';') {
		return "", fmt.Sprintf("scope is what the %d names in %s match, with a slash between two of them, or the hash that the status shows.", names, scope.Path)
	}
	if len(value) > identity.MaxLength {
		value = identity.Hash(value)
	}
	return identity.BucketKey(*scope)(value), ""
}

// circuitOf returns the circuit of a scope, and whether this gateway knew it before. It makes one if there is room; otherwise it returns nil.
func (one *shownEngines) circuitOf(key string) (found *scopeCircuit, known bool) {
	if isHashed(key) {
		for _, other := range one.circuits.all(one.tally.lock) {
			if scopeInKeys(other.key) == key {
				return other, true
			}
		}
	}
	one.tally.lock.Lock()
	defer one.tally.lock.Unlock()
	if found = one.circuits.byKey[key]; found != nil {
		return found, true
	}
	found = one.circuits.findLocked(key, one.now())
	if found == one.circuits.main {
		return nil, false
	}
	return found, false
}
