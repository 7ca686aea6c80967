// Package identity reports which client a request comes from, with the meaning that Traefik's own rateLimit gives its
// sourceCriterion, but for three things: a host has one key however it is written, an address in X-Forwarded-For may have a port
// or brackets, and of several lines of a header the last one counts.
package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Kinds of a key.
const (
	kindIP = "ip:"
	// KindHeader goes before a header's value that is not empty, and no longer than MaxLength.
	KindHeader = "header:"
	kindHost   = "host:"
	// kindNone is that of requests with no usable source: they share one bucket of their own.
	kindNone = "none:"
)

// MaxLength of a key that is used as it is. It is less than the length of a SHA-256, so that no client can send a key
// that is another's hash.
const MaxLength = 63

// Criterion says what makes two requests come from the same client. At most one of Header, Host and the strategies for
// addresses (Depth, or Excluded) is set; with none of them it is the address of the connection.
type Source struct {
	Depth      int            // from the right in X-Forwarded-For, if not 0
	Excluded   []netip.Prefix // the rightmost address in X-Forwarded-For that is in none of these
	IPv6Subnet int            // bits of an IPv6 address that count, if not 0; no part of Excluded's meaning
	Header     string         // as it was configured
	Host       bool
}

// OfConnection tells whether the key depends on nothing but the request's RemoteAddr.
func (c Source) OfConnection() bool {
	return c.Depth == 0 && len(c.Excluded) == 0 && c.Header == "" && !c.Host
}

// New returns the function that tells where a request comes from by a criterion: its key, "<kind>:<key>". What the client
// sent is in it as it came, unless it is long: Name makes it safe. It is safe for concurrent use.
func KeyOf(c Source) func(*http.Request) string {
	if c.Header != "" {
		value := HeaderValue(c.Header)
		return func(r *http.Request) string { return OfHeader(value(r)) }
	}
	return func(r *http.Request) string { return c.of(r) }
}

// HeaderValue returns the function that reads a header. What a middleware has set in the configured spelling goes before what a client
// can send, which has the canonical one: net/http keeps the two apart. Of several lines the last one counts: a proxy in front adds
// its own after the client's.
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

// OfHeader returns the key for a header's value.
func OfHeader(value string) string { return key(KindHeader, value) }

// OfAddress returns the key for a request's RemoteAddr.
func (c *Source) OfAddress(address string) string {
	if c.IPv6Subnet == 0 {
		// An IPv4 address and a port: an IPv6 address has a colon earlier.
		colon := strings.IndexByte(address, ':')
		if colon >= 7 && colon <= 15 {
			return kindIP + address[:colon]
		}
	}
	return key(kindIP, c.subnet(host(address)))
}

func (c *Source) of(r *http.Request) string {
	switch {
	case c.Host:
		return key(kindHost, hostName(r.Host))
	case c.Depth > 0:
		return key(kindIP, c.subnet(atDepth(r, c.Depth)))
	case len(c.Excluded) > 0:
		return key(kindIP, c.notExcluded(r))
	}
	return c.OfAddress(r.RemoteAddr)
}

func host(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

func forwarded(r *http.Request) []string {
	return strings.Split(r.Header.Get("X-Forwarded-For"), ",")
}

func atDepth(r *http.Request, depth int) string {
	list := forwarded(r)
	if len(list) < depth {
		return ""
	}
	return bare(list[len(list)-depth])
}

// bare returns the address in an entry of X-Forwarded-For without the port or the brackets that some proxies write, and anything else
// as it is.
func bare(entry string) string {
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

// hostName returns the host that a request asks for in one spelling: in lower case, without the port, whatever that is, and without
// dots at the end. Traefik's router takes all of them for the same host, and a client chooses among them.
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

func (c *Source) notExcluded(r *http.Request) string {
	list := forwarded(r)
	for i := len(list) - 1; i >= 0; i-- {
		address := bare(list[i])
		if address != "" && !c.excludes(address) {
			return address
		}
	}
	return ""
}

func (c *Source) excludes(text string) bool {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	address = address.Unmap().WithZone("")
	for _, prefix := range c.Excluded {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// subnet returns the first address of an IPv6 address's subnet, the IPv4 address that one stands for, and anything else
// as it is.
func (c *Source) subnet(text string) string {
	if c.IPv6Subnet == 0 {
		return text
	}
	address, err := netip.ParseAddr(text)
	if err != nil || !address.Is6() {
		return text
	}
	if address.Is4In6() {
		return address.Unmap().String() // else all IPv4 clients were one
	}
	prefix, err := address.Prefix(c.IPv6Subnet)
	if err != nil {
		return text
	}
	return prefix.Addr().String()
}

func key(kind, text string) string {
	if text == "" {
		return kindNone
	}
	if len(text) > MaxLength {
		return kind + Hash(text)
	}
	return kind + text
}

// Name returns the key as it may stand in a Redis key and in a log line: what is unsafe is its SHA-256.
func Name(key string) string {
	text := key[strings.IndexByte(key, ':')+1:]
	if safe(text) {
		return key
	}
	return key[:len(key)-len(text)] + Hash(text)
}

// Hash returns the SHA-256 of a text in hexadecimal digits.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Harmless is letters, digits and the marks of addresses and host names: a key of nothing else is its own Name.
const Harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_"

// safe tells whether there is nothing in the text but what is Harmless. A loop would say so too, interpreted byte by byte.
func safe(text string) bool { return strings.Trim(text, Harmless) == "" }
