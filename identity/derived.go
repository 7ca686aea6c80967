package identity

import (
	"net/http"
	"strconv"
	"strings"
)

// maxText is the length of the longest text that is searched for a value, in bytes: a path, a query, all cookies, a header. Servers accept
// little more. A longer one has no value.
const maxText = 8192

// Identities that no value has: a value begins with a character that is not less than usable.
const (
	usable         = " "
	sharedIdentity = "\x00" // of all requests that lack the source
	addressMark    = "\x00" // precedes the address of one that lacks it
)

const (
	allIdentity = "all"  // of every request
	partEnd     = "\x00" // between the parts of a composite identity
	maxJoined   = 128    // bytes of a composite identity; a longer one is hashed
)

// part is one of the things that make a key.
type part struct {
	kind  string // as in a key, with the colon
	name  string // tells sources of one kind apart; "": there is only one
	value func(*http.Request) string
}

// Derived reports whether identities come from Of: the source is composite, or of a kind that no key contains as it is, or Missing does
// not say MissingShared. Of any other source, the identity is a header's value, RemoteAddr, or the key itself, and costs less.
func (s Source) Derived() bool {
	return s.All || s.Method || s.Path != "" || s.Cookie != "" || s.Query != "" || s.Claim != "" || s.composite() ||
		s.Missing != "" && s.Missing != MissingShared
}

// CanBeMissing reports whether a request can lack the source. Each has an address of its connection and a method.
func (s Source) CanBeMissing() bool {
	return s.Depth > 0 || len(s.Excluded) > 0 || s.Header != "" || s.Host || s.Path != "" || s.Cookie != "" || s.Query != "" || s.Claim != ""
}

// OnlyHeader returns the name of the header that is the whole source, or "" if the source is another one.
func (s Source) OnlyHeader() string {
	if s.composite() || s.Method || s.Path != "" || s.Cookie != "" || s.Query != "" || s.Claim != "" {
		return ""
	}
	return s.Header
}

func (s *Source) composite() bool {
	return s.Address && (s.Header != "" || s.Host) || s.Header != "" && s.Host || strings.Contains(s.Header, ",")
}

// Of returns the function that returns the identity of a request for a derived source. The identity is "" if Missing is MissingPass or
// MissingDeny and the request lacks the source. Requests with different values have different identities, and except for a single header,
// address or host, no identity is longer than maxJoined. The function is safe for concurrent use.
func Of(s Source) func(*http.Request) string {
	if s.All {
		return func(r *http.Request) string { return allIdentity }
	}
	value, instead := valueOf(s.parts()), insteadOf(s)
	return func(r *http.Request) string {
		//lint:ignore S1021 R2
		var id string
		id = value(r)
		if id < usable {
			return instead(r)
		}
		return id
	}
}

// BucketKey returns the function that returns the key of an identity from Of. The value of a single address, header, host or method is in the
// key as it is, as in the keys of sources that are not derived. Anything else is hashed together with the names of the sources, so that
// the same value of two cookies has two keys.
func BucketKey(s Source) func(id string) string {
	if s.All {
		return func(id string) string { return kindAll }
	}
	kinds, names := []string{}, []string{}
	for _, one := range s.parts() {
		kinds = append(kinds, strings.TrimSuffix(one.kind, ":"))
		names = append(names, one.name)
	}
	kind, name := strings.Join(kinds, "-")+":", strings.Join(names, ",")+"="
	plain := isPlain(kind)
	return func(id string) string {
		switch {
		case id == "" || id == sharedIdentity:
			return kindNone
		case strings.HasPrefix(id, addressMark):
			return makeKey(kindAddress, id[len(addressMark):])
		case plain:
			return makeKey(kind, id)
		}
		return kind + Hash(name+id)
	}
}

// isPlain reports whether keys contain the values of this kind as they are.
func isPlain(kind string) bool {
	return kind == kindIP || kind == KindHeader || kind == kindHost || kind == kindMethod
}

// parts returns the parts of the key, always in the same order. No name contains "=", and only that of a path may contain a comma.
func (s Source) parts() []part {
	parts := []part{}
	if s.Address || s.onlyAddress() {
		parts = append(parts, part{kind: kindIP, name: "ip", value: addressValue(s)})
	}
	if s.Header != "" {
		for _, name := range strings.Split(s.Header, ",") {
			parts = append(parts, part{kind: KindHeader, name: strings.ToLower(name), value: HeaderValue(name)})
		}
	}
	if s.Host {
		parts = append(parts, part{kind: kindHost, name: "host", value: host})
	}
	if s.Method {
		parts = append(parts, part{kind: kindMethod, name: "method", value: method})
	}
	if s.Path != "" {
		parts = append(parts, part{kind: kindPath, name: s.Path, value: pathValue(s.Path)})
	}
	if s.Cookie != "" {
		parts = append(parts, part{kind: kindCookie, name: s.Cookie, value: cookieValue(s.Cookie)})
	}
	if s.Query != "" {
		parts = append(parts, part{kind: kindQuery, name: s.Query, value: queryValue(s.Query)})
	}
	if s.Claim != "" {
		parts = append(parts, part{kind: kindClaim, name: s.Claim, value: claimValue(s.Claim)})
	}
	return parts
}

// onlyAddress reports whether no part but the address is set.
func (s Source) onlyAddress() bool {
	return s.Header == "" && !s.Host && !s.Method && s.Path == "" && s.Cookie == "" && s.Query == "" && s.Claim == "" && !s.All
}

// valueOf returns the function that returns the value of all parts, or a text that is less than usable.
func valueOf(parts []part) func(*http.Request) string {
	if len(parts) > 1 {
		return compositeValue(parts)
	}
	value := parts[0].value
	if isPlain(parts[0].kind) {
		return value
	}
	return func(r *http.Request) string { return bounded(value(r)) }
}

// compositeValue returns the function that joins the values of all parts, and returns "" if one of them is missing.
func compositeValue(parts []part) func(*http.Request) string {
	var reads []func(*http.Request) string
	for _, one := range parts {
		reads = append(reads, one.value)
	}
	return func(r *http.Request) string {
		var ( // R2
			values []string
			value  string
		)
		values = make([]string, len(reads))
		for i, read := range reads {
			value = read(r)
			if value < usable || len(value) > maxText {
				return ""
			}
			values[i] = value
		}
		return joined(values)
	}
}

// joined returns the values as one text: joined if they can be told apart in it and it is short, and a hash of them otherwise. A hash has
// no partEnd in it, and so equals no joined values.
func joined(values []string) string {
	text := strings.Join(values, partEnd)
	if len(text) <= maxJoined && strings.Count(text, partEnd) == len(values)-1 {
		return text
	}
	var all []string
	for _, value := range values {
		all = append(all, strconv.Itoa(len(value)), ":", value)
	}
	return Hash(strings.Join(all, ""))
}

// bounded returns a value, or the hash of a long one.
func bounded(value string) string {
	if len(value) > MaxLength {
		return Hash(value)
	}
	return value
}

// insteadOf returns the function that returns the identity of a request without the source.
func insteadOf(s Source) func(*http.Request) string {
	switch s.Missing {
	case MissingPass, MissingDeny:
		return func(r *http.Request) string { return "" }
	case MissingAddress:
		return func(r *http.Request) string { return addressMark + bounded(s.anyAddress(r)) }
	}
	return func(r *http.Request) string { return sharedIdentity }
}

// anyAddress returns the address that the source says, or that of the connection if X-Forwarded-For has none.
func (s *Source) anyAddress(r *http.Request) string {
	address := s.address(r)
	if address < usable {
		address = s.connectionAddress(r)
	}
	return address
}

func addressValue(s Source) func(*http.Request) string {
	return func(r *http.Request) string { return s.address(r) }
}

func host(r *http.Request) string { return hostName(r.Host) }

// methods are the methods of HTTP. A client may invent others: all of them are one.
var methods = map[string]string{
	"GET": "GET", "HEAD": "HEAD", "POST": "POST", "PUT": "PUT", "PATCH": "PATCH", "DELETE": "DELETE", "CONNECT": "CONNECT",
	"OPTIONS": "OPTIONS", "TRACE": "TRACE",
}

func method(r *http.Request) string {
	if known := methods[r.Method]; known != "" {
		return known
	}
	return "other"
}
