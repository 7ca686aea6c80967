// Package clientkey tells who a request comes from, with the meaning that Traefik's own rateLimit gives its
// sourceCriterion.
package clientkey

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
	kindIP     = "ip:"
	kindHeader = "header:"
	kindHost   = "host:"
	// kindNone is that of requests with no usable source: they share one bucket of their own.
	kindNone = "none:"
)

// maxLength of a key that is used as it is. It is less than the length of a SHA-256, so that no client can send a key
// that is another's hash.
const maxLength = 63

// Criterion says what makes two requests come from the same client. At most one of Header, Host and the strategies for
// addresses (Depth, or Excluded) is set; with none of them it is the address of the connection.
type Criterion struct {
	Depth      int            // from the right in X-Forwarded-For, if not 0
	Excluded   []netip.Prefix // the rightmost address in X-Forwarded-For that is in none of these
	IPv6Subnet int            // bits of an IPv6 address that count, if not 0; no part of Excluded's meaning
	Header     string
	Host       bool
}

// Source tells where requests come from. It does not change and is safe for concurrent use.
type Source struct {
	criterion Criterion
	plain     bool // the address of the connection, as it is
}

// New returns the source by a criterion.
func New(c Criterion) *Source {
	plain := c.Depth == 0 && len(c.Excluded) == 0 && c.IPv6Subnet == 0 && c.Header == "" && !c.Host
	return &Source{criterion: c, plain: plain}
}

// Of returns the key of the request, "<kind>:<key>". What the client sent is in it as it came, unless it is long: Name makes
// it safe.
func (s *Source) Of(r *http.Request) string {
	if s.plain {
		// The usual case, an IPv4 address and a port, without a call of ours.
		colon := strings.IndexByte(r.RemoteAddr, ':')
		if colon > 6 && colon < 16 && strings.LastIndexByte(r.RemoteAddr, ':') == colon {
			return kindIP + r.RemoteAddr[:colon]
		}
	}
	return s.criterion.of(r)
}

func (c *Criterion) of(r *http.Request) string {
	switch {
	case c.Header != "":
		return key(kindHeader, r.Header.Get(c.Header))
	case c.Host:
		return key(kindHost, strings.ToLower(r.Host))
	case c.Depth > 0:
		return key(kindIP, c.subnet(atDepth(r, c.Depth)))
	case len(c.Excluded) > 0:
		return key(kindIP, c.notExcluded(r))
	}
	return key(kindIP, c.subnet(remote(r)))
}

func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
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
	return strings.TrimSpace(list[len(list)-depth])
}

func (c *Criterion) notExcluded(r *http.Request) string {
	list := forwarded(r)
	for i := len(list) - 1; i >= 0; i-- {
		address := strings.TrimSpace(list[i])
		if address != "" && !c.excludes(address) {
			return address
		}
	}
	return ""
}

func (c *Criterion) excludes(text string) bool {
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
func (c *Criterion) subnet(text string) string {
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
	if len(text) > maxLength {
		return kind + hash(text)
	}
	return kind + text
}

// Name returns the key as it may stand in a Redis key and in a log line: what is unsafe is its SHA-256.
func Name(key string) string {
	text := key[strings.IndexByte(key, ':')+1:]
	if safe(text) {
		return key
	}
	return key[:len(key)-len(text)] + hash(text)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// safe tells whether the text holds nothing but letters, digits and the marks of addresses and host names.
func safe(text string) bool {
	for i := 0; i < len(text); i++ {
		b := text[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !letter && (b < '0' || b > '9') && strings.IndexByte(".:-_", b) < 0 {
			return false
		}
	}
	return true
}
