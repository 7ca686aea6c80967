// Package policy decides what a request must pay: which limits and which tier apply to it, and what it costs. It is compiled from the
// configuration once for each route (Route), and asked only when the limiter's cache does not know the identity of a request.
package policy

import (
	"fmt"
	"net/http"
	"net/netip"
	"sort"
)

// Match says which requests a rule is for: those for which everything that it names holds. The zero Match is for all requests.
type Match struct {
	Paths     []string          // patterns of the whole path; * matches any run of characters, / too
	Methods   []string          // in upper case
	Hosts     []string          // patterns of the host, in lower case
	Headers   map[string]string // name to a pattern of one of its lines
	ClientIPs []netip.Prefix
}

// Empty reports whether the rule is for all requests.
func (m *Match) Empty() bool {
	return len(m.Paths) == 0 && len(m.Methods) == 0 && len(m.Hosts) == 0 && len(m.Headers) == 0 && len(m.ClientIPs) == 0
}

// Text returns the rule as text: two rules with the same text match the same requests. That of the zero Match is "".
func (m *Match) Text() string {
	if m.Empty() {
		return ""
	}
	names := []string{}
	for name := range m.Headers {
		names = append(names, name)
	}
	sort.Strings(names)
	headers := []string{}
	for _, name := range names {
		headers = append(headers, name, m.Headers[name])
	}
	clients := []string{}
	for _, prefix := range m.ClientIPs {
		clients = append(clients, prefix.String())
	}
	return fmt.Sprintf("%q %q %q %q %q", sorted(m.Paths), sorted(m.Methods), sorted(m.Hosts), headers, sorted(clients))
}

// sorted returns a sorted copy of a list.
func sorted(list []string) []string {
	list = append([]string{}, list...)
	sort.Strings(list)
	return list
}

// holder is a compiled Match. It is immutable.
type holder struct {
	paths, hosts *patterns // nil: any
	methods      map[string]bool
	headers      []headerPattern
	clients      []netip.Prefix
}

type headerPattern struct {
	name    string
	pattern *patterns
}

func compileMatch(m *Match) *holder {
	h := &holder{paths: patternsOf(m.Paths, false), hosts: patternsOf(m.Hosts, true), clients: m.ClientIPs}
	for _, method := range m.Methods {
		if h.methods == nil {
			h.methods = map[string]bool{}
		}
		h.methods[method] = true
	}
	for name, pattern := range m.Headers {
		h.headers = append(h.headers, headerPattern{name: http.CanonicalHeaderKey(name), pattern: patternsOf([]string{pattern}, false)})
	}
	return h
}

// holds reports whether the rule is for a request of the client address, which may be invalid.
func (h *holder) holds(r *http.Request, host string, client netip.Addr) bool {
	if h.methods != nil && !h.methods[r.Method] {
		return false
	}
	if h.paths != nil && !h.paths.match(r.URL.Path) {
		return false
	}
	if h.hosts != nil && !h.hosts.match(host) {
		return false
	}
	return h.headersHold(r) && h.clientHolds(client)
}

// headersHold reports whether each named header has a line that matches.
func (h *holder) headersHold(r *http.Request) bool {
	for _, one := range h.headers {
		matches := false
		for _, line := range r.Header[one.name] {
			matches = matches || one.pattern.match(line)
		}
		if !matches {
			return false
		}
	}
	return true
}

func (h *holder) clientHolds(client netip.Addr) bool {
	if len(h.clients) == 0 {
		return true
	}
	for _, prefix := range h.clients {
		if prefix.Contains(client) {
			return true
		}
	}
	return false
}
