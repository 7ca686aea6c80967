// Package identity says which client a request comes from, as a key. The address, a header and the host have the meaning of those in
// Traefik's own rateLimit (sourceCriterion), with three exceptions: a host has one key in all its spellings, an address in
// X-Forwarded-For may have a port or brackets, and of several lines of a header the last one counts.
//
// All sources follow two rules. What the service may take for one value is one value: no client gains a bucket by writing the same thing
// in another way. And a value that the service may read in two ways, such as a cookie that is there twice, is no value.
package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// A key is "<kind>:<value>". These are the kinds, with the colon.
const (
	kindIP = "ip:"
	// KindHeader is for a header's value that is not empty and not longer than MaxLength.
	KindHeader = "header:"
	kindHost   = "host:"
	kindMethod = "method:"
	kindPath   = "path:"
	kindCookie = "cookie:"
	kindQuery  = "query:"
	kindClaim  = "claim:"
	// kindAll is for the one bucket of all requests.
	kindAll = "all:"
	// kindAddress is for the address of a request without a usable value, where Missing is MissingAddress.
	kindAddress = "address:"
	// kindNone is for requests without a usable value: they share one bucket.
	kindNone = "none:"
)

// MaxLength is the length of the longest value that a key contains as it is; a longer one is hashed. It is less than the
// length of a SHA-256, so that no client can send a value that equals another one's hash.
const MaxLength = 63

// Harmless are the letters, digits and marks of addresses and host names. A key that has no other characters is its own Name.
const Harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_"

// makeKey returns the key of a value.
func makeKey(kind, value string) string {
	if value == "" {
		return kindNone
	}
	if len(value) > MaxLength {
		return kind + Hash(value)
	}
	return kind + value
}

// Name returns the key as it may be part of a Redis key or a log line: a value that is not safe is replaced by its SHA-256.
func Name(key string) string {
	value := key[strings.IndexByte(key, ':')+1:]
	if isSafe(value) {
		return key
	}
	return key[:len(key)-len(value)] + Hash(value)
}

// Hashed returns the key with the SHA-256 of its value, for the keys in Redis of limits that have names. An empty value stays empty.
func Hashed(key string) string {
	colon := strings.IndexByte(key, ':') + 1
	if colon == len(key) {
		return key
	}
	return key[:colon] + Hash(key[colon:])
}

// HostName returns one spelling of the host that a request asks for, in lower case.
func HostName(host string) string { return hostName(host) }

// Shown returns the key as a log may show it. A header, cookie, query, path or claim may be a credential or name a person: of these, and of
// composite keys, only the beginning of the hash is shown.
func Shown(key string) string {
	key = Name(key)
	colon := strings.IndexByte(key, ':') + 1
	kind, value := key[:colon], key[colon:]
	switch kind {
	case kindIP, kindAddress, kindHost, kindMethod, kindAll, kindNone:
		return key
	case KindHeader:
		value = Hash(value)
	}
	return kind + "sha256:" + value[:12] // all other keys contain a hash
}

// isSafe reports whether the text contains nothing but Harmless characters. A loop would be interpreted byte by byte.
func isSafe(text string) bool { return strings.Trim(text, Harmless) == "" }

// Hash returns the SHA-256 of a text in hexadecimal digits.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
