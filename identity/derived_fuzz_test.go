package identity

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOf_derived checks, for anything that a client may send: the identity is a function of the request, it is short, the key is safe in
// Redis and in logs, and what the client sent is not in it.
func FuzzOf_derived(f *testing.F) {
	f.Add("/api/acme/x", "tenant=a&tenant=b", "session=a; session=b", "a", "b", "Bearer a.eyJzdWIiOiJhIn0.c")
	f.Add("/api/%2e%2e/x", "t%65nant=%00;tenant=", `session="%61"`, "\x00192.0.2.7", "\xff", "bearer a.bnVsbA.c")
	f.Add("//api;x/;/..", "%&=;;", "=;session", "", " ", "Bearer ..")
	safe := regexp.MustCompile(`^(none:|all:|method:[A-Za-z]+|(address|header|ip|host):[A-Za-z0-9.:_-]{0,64}|[a-z-]+:[0-9a-f]{64})$`)
	sources := []Source{
		{Path: "/api/{tenant}/*"}, {Cookie: "session"}, {Query: "tenant"}, {Claim: "sub"}, {Claim: "a.b"}, {Method: true}, {All: true},
		{Header: "A,B"}, {Address: true, Host: true, Method: true}, {Path: "/{a}/{b}", Query: "tenant", Cookie: "session"},
		{Header: "A", Missing: MissingAddress}, {Header: "A", Missing: MissingDeny}, {Host: true, Missing: MissingPass},
		{Depth: 1, Missing: MissingAddress}, {Claim: "sub", Missing: MissingAddress},
	}
	f.Fuzz(func(t *testing.T, path, query, cookie, a, b, authorization string) {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return
		}
		r := &http.Request{
			Method: a, Host: b, RemoteAddr: "192.0.2.7:1234", URL: &url.URL{Path: decoded, RawPath: path, RawQuery: query},
			Header: http.Header{"A": {a}, "B": {b}, "Cookie": {cookie}, "Authorization": {authorization}, "X-Forwarded-For": {a}},
		}
		for _, source := range sources {
			id := Of(source)(r)
			require.Equal(t, id, Of(source)(r), "%+v", source)
			key := Name(KeyOf(source)(r))
			require.Equal(t, key, Name(BucketKey(source)(id)), "%+v", source)
			require.Regexp(t, safe, key, "%+v", source)
			require.NotContains(t, Shown(key), "\n")
			if !isPlain(strings.SplitAfter(key, ":")[0]) {
				require.LessOrEqual(t, len(id), maxJoined, "%+v", source)
			}
		}
	})
}

// FuzzOf_differs checks that two requests have the same identity only if all their values are the same.
func FuzzOf_differs(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Add("a\x00b", "c", "a", "b\x00c")
	f.Add(strings.Repeat("x", 64), "y", strings.Repeat("x", 65), "y")
	f.Add("1:a1:b", "c", "a", "b")
	headers := Of(Source{Header: "A,B"})
	one := Of(Source{Header: "A", Missing: MissingAddress})
	query := Of(Source{Query: "a"})
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		first := &http.Request{RemoteAddr: a, Header: http.Header{"A": {a}, "B": {b}}, URL: &url.URL{RawQuery: url.Values{"a": {a}}.Encode()}}
		second := &http.Request{RemoteAddr: c, Header: http.Header{"A": {c}, "B": {d}}, URL: &url.URL{RawQuery: url.Values{"a": {c}}.Encode()}}
		id := headers(first)
		if id != sharedIdentity && id == headers(second) {
			require.Equal(t, []string{a, b}, []string{c, d})
		}
		id = query(first)
		if id != sharedIdentity && id == query(second) {
			require.Equal(t, a, c)
		}
		id = one(first)
		if !strings.HasPrefix(id, addressMark) && id == one(second) {
			require.Equal(t, a, c)
		}
	})
}
