package identity

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// get returns a request with headers, written as "Name: value".
func get(target string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	parsed, err := url.ParseRequestURI(target) // as the server does
	if err == nil {
		r.URL = parsed
	}
	r.Host = "shop.example"
	r.RemoteAddr = "192.0.2.7:1234"
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	return r
}

// bearer returns the header with a token of this payload.
func bearer(payload string) string {
	return "Authorization: Bearer eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

// sharedKey is the key of all requests without the source.
const sharedKey = "none:"

func TestKeyOf_path(t *testing.T) {
	for _, row := range []struct{ name, pattern, target, want string }{
		{"one segment", "/api/{tenant}/*", "/api/acme/orders/7", "acme"},
		{"the end of the pattern left out", "/api/{tenant}/*", "/api/acme", "acme"},
		{"nothing after the last slash", "/api/{tenant}/*", "/api/acme/", "acme"},
		{"an empty segment", "/api/{tenant}/*", "/api//orders", ""},
		{"no segment", "/api/{tenant}/*", "/api/", ""},
		{"another path", "/api/{tenant}/*", "/apis/acme/x", ""},
		{"another case", "/api/{tenant}/*", "/API/acme/x", ""},
		{"a longer path", "/api/{tenant}", "/api/acme/orders", ""},
		{"a slash at the end", "/api/{tenant}", "/api/acme/", ""},
		{"the whole path", "/{a}/{b}", "/x/y", "x/y"},
		{"two names, in their order", "/{b}/x/{a}", "/one/x/two", "one/two"},
		{"anything before the name", "/*/users/{id}", "/a/b/c/users/7", "7"},
		{"as much as possible before it", "/*/{id}", "/a/b/c", "c"},
		{"anything within a segment", "/v*/{id}", "/v12/7", "7"},
		{"an encoded character", "/api/{tenant}/*", "/api/ac%6De/orders", "acme"},
		{"encoded in the fixed part", "/api/{tenant}/*", "/%61pi/acme/orders", "acme"},
		{"a query is no part of it", "/api/{tenant}", "/api/acme?x=/1", "acme"},
		{"parameters of a segment", "/api/{tenant}/*", "/api/acme;v=1;w=2/orders", "acme"},
		{"encoded parameters of a segment", "/api/{tenant}/*", "/api/acme%3Bv=1/orders", "acme"},
		{"only parameters", "/api/{tenant}/*", "/api/;v=1/orders", ""},
		{"an encoded slash", "/api/{tenant}/*", "/api/acme%2Forders/x", ""},
		{"an encoded slash in lower case", "/api/{tenant}/*", "/api/acme%2fx", ""},
		{"an encoded slash behind it", "/api/{tenant}/*", "/api/acme/a%2Fb", ""},
		{"a segment back", "/api/{tenant}/*", "/api/x/../acme/orders", ""},
		{"a segment back, encoded", "/api/{tenant}/*", "/api/x/%2e%2e/acme/orders", ""},
		{"a segment that is a dot", "/api/{tenant}/*", "/api/./acme/orders", ""},
		{"two dots as the name", "/api/{tenant}/*", "/api/../orders", ""},
		{"a double slash behind it", "/api/{tenant}/*", "/api/acme//orders", ""},
		{"dots that are a name", "/api/{tenant}/*", "/api/.well-known/orders", ".well-known"},
		{"characters of regular expressions", "/a.b+(c)/{x}", "/a.b+(c)/y", "y"},
		{"no dot for any character", "/a.b/{x}", "/axb/y", ""},
		{"a newline", "/api/{tenant}/*", "/api/acme/a%0Ab", "acme"},
		{"invalid UTF-8", "/api/{tenant}", "/api/%ff%fe", "\xff\xfe"},
		{"a control character first", "/api/{tenant}", "/api/%00x", ""},
		{"the asterisk of OPTIONS", "/{a}", "*", ""},
		{"too long", "/api/{tenant}/*", "/api/acme/" + strings.Repeat("x", maxText), ""},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.NoError(t, CheckPath(row.pattern))
			want := sharedKey
			if row.want != "" {
				want = "path:" + sum(row.pattern+"="+row.want)
			}

			require.Equal(t, want, of(Source{Path: row.pattern}, get(row.target)))
		})
	}
}

func TestCheckPath_saysWhatIsWrong(t *testing.T) {
	for _, row := range []struct{ pattern, message string }{
		{"", "does not begin with /"},
		{"api/{a}", "does not begin with /"},
		{"*/{a}", "does not begin with /"},
		{"/{a}?x", "holds one of ? # % = or a blank; a pattern is a decoded path, without a query"},
		{"/a b/{a}", "holds one of ? # % = or a blank; a pattern is a decoded path, without a query"},
		{"/%20/{a}", "holds one of ? # % = or a blank; a pattern is a decoded path, without a query"},
		{"/api", "holds none or more than eight of {name}"},
		{"/*", "holds none or more than eight of {name}"},
		{"/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "holds none or more than eight of {name}"},
		{"/{}", "holds a { or } without the other, or no name of letters, digits and _ between them"},
		{"/{a", "holds a { or } without the other, or no name of letters, digits and _ between them"},
		{"/a}", "holds a { or } without the other, or no name of letters, digits and _ between them"},
		{"/{a-b}", "holds a { or } without the other, or no name of letters, digits and _ between them"},
		{"/{{a}}", "holds a { or } without the other, or no name of letters, digits and _ between them"},
		{"/v{a}", "holds a {name} that is not a whole segment"},
		{"/{a}{b}", "holds a {name} that is not a whole segment"},
		{"/{a}*", "holds a {name} that is not a whole segment"},
		{"/{a}.json", "holds a {name} that is not a whole segment"},
		{"/{a}/{a}", "holds the same {name} twice"},
		{"/a//{b}", "holds an empty segment, or one that is . or ..; no path with such a segment matches"},
		{"/a/../{b}", "holds an empty segment, or one that is . or ..; no path with such a segment matches"},
		{"/{a}/" + strings.Repeat("x", 256), "is longer than 256 bytes"},
	} {
		require.EqualError(t, CheckPath(row.pattern), row.message, row.pattern)
	}
	for _, pattern := range []string{"/{a}", "/{a}/", "/{a}/*", "/*/{a}", "/x*y/{a_1}/*/{B}", "/größe/{a}", "/**/{a}"} {
		require.NoError(t, CheckPath(pattern), pattern)
	}
}

func TestKeyOf_cookie(t *testing.T) {
	for _, row := range []struct {
		name    string
		cookies []string
		want    string
	}{
		{"the only one", []string{"session=abc"}, "abc"},
		{"among others", []string{"theme=dark; session=abc; lang=en"}, "abc"},
		{"without a blank between them", []string{"theme=dark;session=abc;lang=en"}, "abc"},
		{"in the second line", []string{"theme=dark", "session=abc"}, "abc"},
		{"none", nil, ""},
		{"another", []string{"sessions=abc"}, ""},
		{"one that ends alike", []string{"xsession=abc"}, ""},
		{"as the value of another", []string{"a=session=abc"}, ""},
		{"empty", []string{"session="}, ""},
		{"only its name", []string{"session"}, ""},
		{"in another case", []string{"Session=abc"}, ""},
		{"in quotation marks", []string{`session="abc"`}, "abc"},
		{"with blanks", []string{"session = abc ; x=y"}, "abc"},
		{"encoded", []string{"session=%61b%63"}, "abc"},
		{"with an equals sign", []string{"session=YWJj=="}, "YWJj=="},
		{"with a plus", []string{"session=a+b"}, "a+b"},
		{"with an encoded plus", []string{"session=a%2Bb"}, "a+b"},
		{"with an encoded blank, which some read for a plus", []string{"session=a%20b"}, "a+b"},
		{"with what is no encoding", []string{"session=100%"}, "100%"},
		{"twice, the same", []string{"session=abc; session=abc"}, "abc"},
		{"twice, the same in two spellings", []string{`session=abc; session="%61bc"`}, "abc"},
		{"twice, not the same", []string{"session=abc; session=def"}, ""},
		{"twice, not the same, in two lines", []string{"session=abc", "session=def"}, ""},
		{"twice, one empty", []string{"session=abc; session="}, ""},
		{"five times", []string{strings.Repeat("session=abc;", 5)}, ""},
		{"invalid UTF-8", []string{"session=\xff\xfe"}, "\xff\xfe"},
		{"a control character first", []string{"session=%00abc"}, ""},
		{"too many cookies", []string{"session=abc; " + strings.Repeat("a=b; ", maxText/5)}, ""},
		{"long", []string{"session=" + strings.Repeat("x", 64)}, sum(strings.Repeat("x", 64))},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := get("/")
			r.Header["Cookie"] = row.cookies
			want := sharedKey
			if row.want != "" {
				want = "cookie:" + sum("session="+row.want)
			}

			require.Equal(t, want, of(Source{Cookie: "session"}, r))
		})
	}
}

func TestKeyOf_query(t *testing.T) {
	for _, row := range []struct{ name, query, want string }{
		{"the only one", "tenant=acme", "acme"},
		{"among others", "a=1&tenant=acme&b=2", "acme"},
		{"none", "", ""},
		{"another", "tenants=acme", ""},
		{"in another case", "Tenant=acme", ""},
		{"empty", "tenant=", ""},
		{"only its name", "tenant", ""},
		{"encoded", "tenant=%61cme", "acme"},
		{"with an encoded name", "%74enant=acme", "acme"},
		{"with a plus", "tenant=a+b", "a b"},
		{"twice, the same", "tenant=acme&tenant=acme", "acme"},
		{"twice, the same in two spellings", "tenant=acme&tenant=%61cme", "acme"},
		{"twice, not the same", "tenant=acme&tenant=other", ""},
		{"twice, not the same, one with an encoded name", "tenant=acme&t%65nant=other", ""},
		{"twice, one empty", "tenant=acme&tenant=", ""},
		{"behind a semicolon", "a=1;tenant=acme", "acme"},
		{"twice, not the same, behind a semicolon", "tenant=acme&a=1;tenant=other", ""},
		{"an encoded semicolon", "tenant=a%3Bb", "a;b"},
		{"next to a broken one", "discount=100%&tenant=acme", "acme"},
		{"invalid UTF-8", "tenant=%ff%fe", "\xff\xfe"},
		{"a control character first", "tenant=%00x", ""},
		{"too long", "tenant=acme&x=" + strings.Repeat("x", maxText), ""},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := get("/")
			r.URL.RawQuery = row.query
			want := sharedKey
			if row.want != "" {
				want = "query:" + sum("tenant="+row.want)
			}

			require.Equal(t, want, of(Source{Query: "tenant"}, r))
		})
	}
}

func TestKeyOf_claim(t *testing.T) {
	const namespaced = "https://example.com/tenant"
	for _, row := range []struct {
		name, claim string
		headers     []string
		want        string
	}{
		{"a string", "sub", []string{bearer(`{"sub":"alice"}`)}, "alice"},
		{"a number", "sub", []string{bearer(`{"sub":42}`)}, "42"},
		{"a negative number", "sub", []string{bearer(`{"sub": -1.5e3 }`)}, "-1.5e3"},
		{"a large number, to the digit", "sub", []string{bearer(`{"sub":12345678901234567890}`)}, "12345678901234567890"},
		{"an escaped string", "sub", []string{bearer(`{"sub":"\u0061lice"}`)}, "alice"},
		{"within another", "realm.tenant", []string{bearer(`{"realm":{"tenant":"acme"}}`)}, "acme"},
		{"three levels", "a.b.c", []string{bearer(`{"a":{"b":{"c":"d"}}}`)}, "d"},
		{"a name with dots", namespaced, []string{bearer(`{"` + namespaced + `":"acme"}`)}, "acme"},
		{"the whole name before the levels", "a.b", []string{bearer(`{"a":{"b":"levels"},"a.b":"whole"}`)}, "whole"},
		{"levels that are none", "a.b", []string{bearer(`{"a":"text"}`)}, ""},
		{"another claim", "sub", []string{bearer(`{"iss":"x"}`)}, ""},
		{"empty", "sub", []string{bearer(`{"sub":""}`)}, ""},
		{"a boolean", "sub", []string{bearer(`{"sub":true}`)}, ""},
		{"null", "sub", []string{bearer(`{"sub":null}`)}, ""},
		{"a list", "sub", []string{bearer(`{"sub":["alice"]}`)}, ""},
		{"an object", "sub", []string{bearer(`{"sub":{"a":"b"}}`)}, ""},
		{"the scheme in lower case", "sub", []string{strings.Replace(bearer(`{"sub":"alice"}`), "Bearer", "bearer", 1)}, "alice"},
		{"another scheme", "sub", []string{strings.Replace(bearer(`{"sub":"alice"}`), "Bearer", "Basic", 1)}, ""},
		{"no header", "sub", nil, ""},
		{"no token", "sub", []string{"Authorization: Bearer"}, ""},
		{"no dots", "sub", []string{"Authorization: Bearer opaque"}, ""},
		{"two parts", "sub", []string{"Authorization: Bearer a.eyJzdWIiOiJhIn0"}, ""},
		{"five parts, as an encrypted token has", "sub", []string{bearer(`{"sub":"alice"}`) + ".d.e"}, ""},
		{"no base64", "sub", []string{"Authorization: Bearer a.!!!.c"}, ""},
		{"no JSON", "sub", []string{bearer(`{"sub":"alice"`)}, ""},
		{"JSON that is no object", "sub", []string{bearer(`["sub"]`)}, ""},
		{"deep JSON", "sub", []string{bearer(strings.Repeat("[", 5000))}, ""},
		{"two lines", "sub", []string{bearer(`{"sub":"alice"}`), bearer(`{"sub":"bob"}`)}, ""},
		{"too long", "sub", []string{bearer(`{"sub":"alice","x":"` + strings.Repeat("x", maxToken) + `"}`)}, ""},
		{"a control character first", "sub", []string{bearer(`{"sub":"\u0000alice"}`)}, ""},
		{"a long value", "sub", []string{bearer(`{"sub":"` + strings.Repeat("x", 100) + `"}`)}, sum(strings.Repeat("x", 100))},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			want := sharedKey
			if row.want != "" {
				want = "claim:" + sum(row.claim+"="+row.want)
			}

			require.Equal(t, want, of(Source{Claim: row.claim}, get("/", row.headers...)))
		})
	}
}

func TestKeyOf_method(t *testing.T) {
	for _, row := range []struct{ method, want string }{
		{"GET", "method:GET"}, {"POST", "method:POST"}, {"HEAD", "method:HEAD"}, {"TRACE", "method:TRACE"},
		{"get", "method:other"}, {"PROPFIND", "method:other"}, {"FOO1", "method:other"}, {"other", "method:other"}, {"", "method:other"},
	} {
		r := get("/")
		r.Method = row.method

		require.Equal(t, row.want, of(Source{Method: true}, r), row.method)
	}
}

func TestKeyOf_all(t *testing.T) {
	require.Equal(t, "all:", of(Source{All: true}, get("/a", "X-A: 1")))
	require.Equal(t, "all:", of(Source{All: true}, get("/b")))
}

func TestKeyOf_composite(t *testing.T) {
	full := []string{"X-Tenant: acme", "X-User: alice", "Cookie: session=abc", bearer(`{"sub":"42"}`)}
	for _, row := range []struct {
		name    string
		source  Source
		headers []string
		want    string
	}{
		{"two headers", Source{Header: "X-Tenant,X-User"}, full, "header-header:" + sum("x-tenant,x-user=acme\x00alice")},
		{"in the order of the configuration", Source{Header: "X-User,X-Tenant"}, full, "header-header:" + sum("x-user,x-tenant=alice\x00acme")},
		{"one of two headers", Source{Header: "X-Tenant,X-Other"}, full, sharedKey},
		{"an empty one of two headers", Source{Header: "X-Tenant,X-User"}, []string{"X-Tenant: acme", "X-User: "}, sharedKey},
		{"of several lines the last one", Source{Header: "X-Tenant,X-User"}, []string{"X-Tenant: client", "X-Tenant: acme", "X-User: alice"},
			"header-header:" + sum("x-tenant,x-user=acme\x00alice")},
		{"an address and a method", Source{Address: true, Method: true}, nil, "ip-method:" + sum("ip,method=192.0.2.7\x00GET")},
		{"an address of a list and a header", Source{Address: true, Depth: 1, Header: "X-Tenant"},
			[]string{"X-Tenant: acme", "X-Forwarded-For: 198.51.100.1, 203.0.113.9"}, "ip-header:" + sum("ip,x-tenant=203.0.113.9\x00acme")},
		{"a header, and no address in the list", Source{Address: true, Depth: 1, Header: "X-Tenant"}, full, sharedKey},
		{"everything", Source{Address: true, Header: "X-Tenant", Host: true, Method: true, Path: "/api/{a}/*", Cookie: "session", Query: "q", Claim: "sub"}, full,
			"ip-header-host-method-path-cookie-query-claim:" + sum("ip,x-tenant,host,method,/api/{a}/*,session,q,sub="+
				"192.0.2.7\x00acme\x00shop.example\x00GET\x00one\x00abc\x00two\x0042")},
		{"long values", Source{Header: "X-Tenant,X-User"}, []string{"X-Tenant: " + strings.Repeat("a", 100), "X-User: " + strings.Repeat("b", 100)},
			"header-header:" + sum("x-tenant,x-user="+sum("100:"+strings.Repeat("a", 100)+"100:"+strings.Repeat("b", 100)))},
		{"a value that is too long", Source{Header: "X-Tenant,X-User"}, []string{"X-Tenant: " + strings.Repeat("a", maxText+1), "X-User: alice"}, sharedKey},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, of(row.source, get("/api/one/x?q=two", row.headers...)))
		})
	}
}

// A client chooses the values of all parts, and can still not make two different requests equal.
func TestOf_compositeIdentitiesDiffer(t *testing.T) {
	long := strings.Repeat("x", 60)
	values := []string{"a", "b", "ab", "bc", "abc", "a\x00b", "b\x00c", "a\x00", "1:a", "a1:b", "a,b", "a=b", long, long + long, long + "\x00", sum("a"), sum("1:a1:b")}
	for _, names := range []string{"A,B", "A,B,C"} {
		requireDifferent(t, Of(Source{Header: names}), values)
	}
}

// requireDifferent requires that each pair of values of two headers has an identity that no other pair has.
func requireDifferent(t *testing.T, of func(*http.Request) string, values []string) {
	seen := map[string][]string{}
	for _, a := range values {
		for _, b := range values {
			id := of(&http.Request{Header: http.Header{"A": {a}, "B": {b}, "C": {"c"}}})
			require.Nil(t, seen[id], "%q and %q", []string{a, b}, seen[id])
			seen[id] = []string{a, b}
			require.LessOrEqual(t, len(id), maxJoined)
		}
	}
}

// The same values of other sources have other keys.
func TestKeyOf_sourcesHaveKeysOfTheirOwn(t *testing.T) {
	r := get("/x/x?a=x&b=x", "A: x", "B: x", "Cookie: a=x; b=x", bearer(`{"a":"x","b":"x"}`))
	r.Host = "x"
	seen := map[string]Source{}
	for _, source := range []Source{
		{Header: "A"}, {Host: true}, {Cookie: "a"}, {Cookie: "b"}, {Query: "a"}, {Query: "b"}, {Claim: "a"}, {Claim: "b"}, {Path: "/{a}/x"}, {Path: "/x/{a}"},
		{Header: "A,B"}, {Header: "B,A"}, {Header: "A", Host: true}, {Header: "A", Cookie: "a"}, {Header: "A", Cookie: "b"}, {Cookie: "a", Query: "b"},
		{Cookie: "b", Query: "a"}, {Query: "a", Claim: "b"}, {Path: "/{a}/{b}"}, {All: true}, {Method: true}, {Address: true, Method: true},
	} {
		key := of(source, r)
		require.NotContains(t, seen, key, "%+v and %+v", source, seen[key])
		require.NotEqual(t, sharedKey, key, "%+v", source)
		seen[key] = source
	}
}

func TestKeyOf_missingSource(t *testing.T) {
	forwarded := "X-Forwarded-For: 198.51.100.1, 203.0.113.9"
	for _, row := range []struct {
		name    string
		source  Source
		headers []string
		id, key string
	}{
		{"shared", Source{Cookie: "session"}, nil, "\x00", "none:"},
		{"shared, as it is written", Source{Cookie: "session", Missing: MissingShared}, nil, "\x00", "none:"},
		{"pass", Source{Header: "X-Key", Missing: MissingPass}, nil, "", "none:"},
		{"deny", Source{Header: "X-Key", Missing: MissingDeny}, nil, "", "none:"},
		{"deny, and an empty header", Source{Header: "X-Key", Missing: MissingDeny}, []string{"X-Key: "}, "", "none:"},
		{"deny, and a header", Source{Header: "X-Key", Missing: MissingDeny}, []string{"X-Key: abc"}, "abc", "header:abc"},
		{"address", Source{Header: "X-Key", Missing: MissingAddress}, nil, "\x00192.0.2.7", "address:192.0.2.7"},
		{"address, and a header", Source{Header: "X-Key", Missing: MissingAddress}, []string{"X-Key: abc"}, "abc", "header:abc"},
		{"address, and a header that poses as one", Source{Header: "X-Key", Missing: MissingAddress}, []string{"X-Key: \x00192.0.2.8"},
			"\x00192.0.2.7", "address:192.0.2.7"},
		{"address, and a header that is one", Source{Header: "X-Key", Missing: MissingAddress}, []string{"X-Key: 192.0.2.7"}, "192.0.2.7", "header:192.0.2.7"},
		{"address, by the list where ipStrategy is set", Source{Address: true, Depth: 1, Header: "X-Key", Missing: MissingAddress}, []string{forwarded},
			"\x00203.0.113.9", "address:203.0.113.9"},
		{"address, of the connection if the list has none", Source{Depth: 3, Missing: MissingAddress}, []string{forwarded},
			"\x00192.0.2.7", "address:192.0.2.7"},
		{"address, and the list has it", Source{Depth: 1, Missing: MissingAddress}, []string{forwarded}, "203.0.113.9", "ip:203.0.113.9"},
		{"one of several", Source{Host: true, Cookie: "session", Missing: MissingDeny}, nil, "", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := get("/", row.headers...)

			require.Equal(t, row.id, Of(row.source)(r))
			require.Equal(t, row.key, KeyOf(row.source)(r))
			require.True(t, row.source.CanBeMissing())
		})
	}
}

// A source that has a key in Redis today keeps it when missingSource is added.
func TestKeyOf_missingSourceChangesNoOtherKey(t *testing.T) {
	for _, source := range []Source{{Header: "X-Key"}, {Host: true}, {Depth: 1}, {Depth: 1, IPv6Subnet: 64}} {
		for _, value := range []string{"abc", "two words", strings.Repeat("x", 100), "2001:db8::7"} {
			r := get("/", "X-Key: "+value, "X-Forwarded-For: "+value)
			before := of(source, r)
			for _, missing := range []string{MissingAddress, MissingPass, MissingDeny} {
				source.Missing = missing
				require.Equal(t, before, of(source, r), "%+v of %q", source, value)
			}
		}
	}
}

func TestShown_hidesWhatAClientSent(t *testing.T) {
	for _, row := range []struct {
		source Source
		want   string
	}{
		{Source{}, "ip:192.0.2.7"},
		{Source{Host: true}, "host:shop.example"},
		{Source{Method: true}, "method:GET"},
		{Source{All: true}, "all:"},
		{Source{Header: "X-None", Missing: MissingAddress}, "address:192.0.2.7"},
		{Source{Header: "X-Key"}, "header:sha256:" + sum("secret")[:12]},
		{Source{Header: "X-Key", Missing: MissingDeny}, "header:sha256:" + sum("secret")[:12]},
		{Source{Cookie: "session"}, "cookie:sha256:" + sum("session=secret")[:12]},
		{Source{Address: true, Header: "X-Key"}, "ip-header:sha256:" + sum("ip,x-key=192.0.2.7\x00secret")[:12]},
	} {
		require.Equal(t, row.want, Shown(KeyOf(row.source)(get("/", "X-Key: secret", "Cookie: session=secret"))), "%+v", row.source)
	}
}
