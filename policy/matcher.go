package policy

import (
	"net/http"
	"net/netip"

	"github.com/resilient-gateway/resilience/identity"
)

// Matcher is a compiled Match for use outside of a route's rules. It is immutable and safe for concurrent use.
type Matcher struct {
	match  *holder
	client func(*http.Request) netip.Addr // nil: the Match names no addresses
}

// NewMatcher compiles a match. client returns the address that ClientIPs are compared with; nil, if there are none.
func NewMatcher(m Match, client func(*http.Request) netip.Addr) *Matcher {
	return &Matcher{match: compileMatch(&m), client: client}
}

// Holds reports whether the match holds for a request.
func (m *Matcher) Holds(r *http.Request) bool {
	var address netip.Addr
	if m.client != nil {
		address = m.client(r)
	}
	host := ""
	if m.match.hosts != nil {
		host = identity.HostName(r.Host)
	}
	return m.match.holds(r, host, address)
}
