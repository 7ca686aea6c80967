package identity

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Source says what makes two requests come from the same client. The zero Source is the address of the connection. If several parts are
// set, they make one composite key, and a request that lacks one of them lacks all.
type Source struct {
	Address    bool           // the address is a part; implied if no other part is set
	Depth      int            // the address at this position in X-Forwarded-For, from the right, from 1; 0: that of the connection
	Excluded   []netip.Prefix // where Depth is 0: the rightmost address in X-Forwarded-For that is in none of these
	IPv6Subnet int            // only this many leading bits of an IPv6 address count, 1 to 128; 0: all; not with Excluded

	Header string // the name of a header, as it was configured; several with commas
	Host   bool   // the requested host
	Method bool
	Path   string // a pattern: see CheckPath
	Cookie string // the name of one
	Query  string // the name of a parameter
	Claim  string // the name of a claim in a bearer token
	All    bool   // all requests have one key; excludes the others

	Missing string // what a request without the source has instead; "": MissingShared
}

// What a request without the source has instead.
const (
	MissingShared  = "shared"  // one bucket with all others like it
	MissingAddress = "address" // the bucket of its address
	MissingPass    = "pass"    // none: it is not limited
	MissingDeny    = "deny"    // none: it is refused
)

// KeyOf returns the function that returns a request's key. The value is in it as the client sent it, unless it is long: Name
// makes it safe. The function is safe for concurrent use.
func KeyOf(s Source) func(*http.Request) string {
	if s.Derived() {
		identity, key := Of(s), BucketKey(s)
		return func(r *http.Request) string { return key(identity(r)) }
	}
	if s.Header != "" {
		value := HeaderValue(s.Header)
		return func(r *http.Request) string { return OfHeader(value(r)) }
	}
	return func(r *http.Request) string { return s.keyFor(r) }
}

// OfConnection reports whether the key depends only on the request's RemoteAddr.
func (s Source) OfConnection() bool {
	return s.Depth == 0 && len(s.Excluded) == 0 && s.Header == "" && !s.Host && !s.Derived()
}

// HeaderValue returns the function that reads a header. A value in the configured spelling comes from a middleware and
// counts before one in the canonical spelling, which is all that a client can send: net/http keeps the two apart. Of several
// lines the last one counts: a proxy adds its own after the client's.
func HeaderValue(name string) func(*http.Request) string {
	canonical := http.CanonicalHeaderKey(name)
	return func(r *http.Request) string {
		var lines []string
		lines = r.Header[name]
		if len(lines) == 0 {
			lines = r.Header[canonical]
		}
		if len(lines) == 0 {
			return ""
		}
		return lines[len(lines)-1]
	}
}

// OfHeader returns the key of a header's value.
func OfHeader(value string) string { return makeKey(KindHeader, value) }

// OfAddress returns the key of a request's RemoteAddr.
func (s *Source) OfAddress(address string) string {
	if s.IPv6Subnet == 0 {
		// The usual case, an IPv4 address and a port: in an IPv6 address a colon comes earlier.
		colon := strings.IndexByte(address, ':')
		if colon >= 7 && colon <= 15 {
			return kindIP + address[:colon]
		}
	}
	return makeKey(kindIP, s.maskIPv6(withoutPort(address)))
}

func (s *Source) keyFor(r *http.Request) string {
	switch {
	case s.Host:
		return makeKey(kindHost, hostName(r.Host))
	case s.Depth > 0 || len(s.Excluded) > 0:
		return makeKey(kindIP, s.forwardedAddress(r))
	}
	return s.OfAddress(r.RemoteAddr)
}

// address returns the address of a request, or "" if X-Forwarded-For has none.
func (s *Source) address(r *http.Request) string {
	if s.Depth > 0 || len(s.Excluded) > 0 {
		return s.forwardedAddress(r)
	}
	return s.connectionAddress(r)
}

func (s *Source) connectionAddress(r *http.Request) string {
	if s.IPv6Subnet == 0 { // as in OfAddress
		colon := strings.IndexByte(r.RemoteAddr, ':')
		if colon >= 7 && colon <= 15 {
			return r.RemoteAddr[:colon]
		}
	}
	return s.maskIPv6(withoutPort(r.RemoteAddr))
}

func (s *Source) forwardedAddress(r *http.Request) string {
	if s.Depth > 0 {
		return s.maskIPv6(addressAtDepth(r, s.Depth))
	}
	return s.lastNotExcluded(r)
}

// lastNotExcluded returns the rightmost address in X-Forwarded-For that is not excluded.
func (s *Source) lastNotExcluded(r *http.Request) string {
	entries := forwardedFor(r)
	for i := len(entries) - 1; i >= 0; i-- {
		address := addressIn(entries[i])
		if address != "" && !s.excludes(address) {
			return address
		}
	}
	return ""
}

func (s *Source) excludes(text string) bool {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	address = address.Unmap().WithZone("")
	for _, prefix := range s.Excluded {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// maskIPv6 returns the first address of an IPv6 address's subnet, the IPv4 address that an IPv6 address stands for, and
// anything else as it is.
func (s *Source) maskIPv6(text string) string {
	if s.IPv6Subnet == 0 {
		return text
	}
	address, err := netip.ParseAddr(text)
	if err != nil || !address.Is6() {
		return text
	}
	if address.Is4In6() {
		return address.Unmap().String() // masked, all IPv4 clients would be one
	}
	prefix, err := address.Prefix(s.IPv6Subnet)
	if err != nil {
		return text
	}
	return prefix.Addr().String()
}

func withoutPort(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

func forwardedFor(r *http.Request) []string {
	return strings.Split(r.Header.Get("X-Forwarded-For"), ",")
}

func addressAtDepth(r *http.Request, depth int) string {
	entries := forwardedFor(r)
	if len(entries) < depth {
		return ""
	}
	return addressIn(entries[len(entries)-depth])
}

// addressIn returns the address in an entry of X-Forwarded-For, without the port and the brackets that some proxies write;
// anything else as it is.
func addressIn(entry string) string {
	entry = strings.TrimSpace(entry)
	text := entry
	if strings.HasPrefix(entry, "[") {
		end := strings.IndexByte(entry, ']')
		if end < 0 || end+1 < len(entry) && entry[end+1] != ':' {
			return entry
		}
		text = entry[1:end]
	} else if colon := strings.IndexByte(entry, ':'); colon >= 0 && colon == strings.LastIndexByte(entry, ':') {
		text = entry[:colon] // an IPv6 address has two colons or more
	}
	if isAddress(text) {
		return text
	}
	return entry
}

// hostName returns one spelling of the host that a request asks for: in lower case, without a port (valid or not) and
// without dots at the end. Traefik's router accepts all spellings, and the client chooses among them.
func hostName(text string) string {
	text = strings.TrimLeft(strings.TrimSpace(text), "[")
	if end := strings.IndexByte(text, ']'); end >= 0 {
		text = text[:end]
	}
	if colon := strings.IndexByte(text, ':'); colon >= 0 && !isAddress(strings.TrimRight(text, ".")) {
		text = text[:colon]
	}
	text = strings.TrimRight(strings.ToLower(text), ".")
	if address, err := netip.ParseAddr(text); err == nil {
		return address.Unmap().WithZone("").String()
	}
	return text
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}
