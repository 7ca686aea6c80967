package identitydiff

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/stretchr/testify/require"
)

// none is the key of a request without the source.
const none = "none:"

// hashed returns the key of a named value.
func hashed(kind, name, value string) string {
	if len(value) > identity.MaxLength {
		value = sum(value)
	}
	return kind + ":" + sum(name+"="+value)
}

func sum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// FuzzCookie reads a cookie as a Go service does. If it has a key here, the service reads no other value, whether it takes the first cookie
// of the name or the last. If the service reads one value, it is the one that has the key.
func FuzzCookie(f *testing.F) {
	for _, line := range []string{
		"session=abc", "a=b; session=abc;c=d", "session=abc; session=def", `session="abc"; session=abc`, "session=%61bc", "session = abc", "xsession=a; session=b",
		"a=session=b; session=c", "session", "session=;session=a", "session=a b", "session=a+b", "\tsession=a", ";;session=a;", `session="a;b"`, "SESSION=a",
	} {
		f.Add(line)
	}
	key := identity.KeyOf(identity.Source{Cookie: "session"})
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n\x00") || len(line) > 4096 {
			return // net/http refuses the request, or nobody reads it
		}
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		var read []string
		for _, cookie := range r.Cookies() {
			if cookie.Name == "session" {
				read = append(read, plain(cookie.Value))
			}
		}
		got := key(r)
		for _, value := range read {
			if got != none && value != "" { // it is empty if the cookie is only a name, which tells the service nothing
				require.Equal(t, hashed("cookie", "session", value), got, "%q: the service reads %q", line, read)
			}
		}
		if len(read) == 1 && strings.Count(line, "session") == 1 && read[0] >= " " {
			require.Equal(t, hashed("cookie", "session", read[0]), got, "%q", line)
		}
	})
}

// plain returns what a service that decodes cookies makes of a value, with a plus for a blank.
func plain(value string) string {
	value = strings.Trim(value, " \t\"")
	if decoded, err := url.PathUnescape(value); err == nil {
		value = decoded
	}
	return strings.ReplaceAll(value, " ", "+")
}

// FuzzQuery reads a parameter as a Go service does, which takes the first, and as one does that takes the last.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		"tenant=a", "tenant=a&tenant=b", "t%65nant=a", "tenant=a;tenant=b", "x=1;tenant=a", "tenant=%zz&tenant=a", "tenant", "tenant=&tenant=a", "tenant=a+b", "&&tenant=a",
	} {
		f.Add(query)
	}
	key := identity.KeyOf(identity.Source{Query: "tenant"})
	f.Fuzz(func(t *testing.T, query string) {
		if len(query) > 4096 {
			return
		}
		got := key(&http.Request{URL: &url.URL{RawQuery: query}})
		read, err := url.ParseQuery(query)
		for _, value := range read["tenant"] {
			if got != none {
				require.Equal(t, hashed("query", "tenant", value), got, "%q: the service reads %q", query, read["tenant"])
			}
		}
		if err == nil && len(read["tenant"]) == 1 && read.Get("tenant") >= " " {
			require.Equal(t, hashed("query", "tenant", read.Get("tenant")), got, "%q", query)
		}
	})
}

// FuzzPath reads a segment of the path as the router of a Go service does. If it has a key here, the service reads no other value.
func FuzzPath(f *testing.F) {
	for _, path := range []string{
		"/api/acme/orders", "/api/acme", "/api/acme/", "/api/ac%6de/x", "/api/a%2Fb/x", "/api/x/../acme/y", "/api//acme/x", "/api/acme;v=1/x", "/api/%2e%2e/x", "/api/acme/a%2fb",
		"/api/a%00b/x", "/api/%ff/x", "/api/./acme/x", "/%61pi/acme/x",
	} {
		f.Add(path)
	}
	const pattern = "/api/{tenant}/*"
	key := identity.KeyOf(identity.Source{Path: pattern})
	read, matched := "", false
	mux := http.NewServeMux()
	serve := func(w http.ResponseWriter, r *http.Request) {
		read, _, _ = strings.Cut(r.PathValue("tenant"), ";")
		matched = true
	}
	mux.HandleFunc("/api/{tenant}", serve)
	mux.HandleFunc("/api/{tenant}/{rest...}", serve)
	f.Fuzz(func(t *testing.T, path string) {
		parsed, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") || len(path) > 4096 {
			return // net/http refuses the request
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = parsed
		read, matched = "", false
		mux.ServeHTTP(httptest.NewRecorder(), r)
		got := key(r)
		if got != none {
			require.True(t, matched, "%q: the service knows no such path", path)
			require.Equal(t, hashed("path", pattern, read), got, "%q: the service reads %q", path, read)
		}
	})
}
