//go:build !yaegi

package policy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/stretchr/testify/require"
)

// FuzzIdentity_differs checks that two requests have the same identity only if all facts are the same, and that none is long.
func FuzzIdentity_differs(f *testing.F) {
	f.Add("a", "b", true, false, int64(1), "ab", "", true, false, int64(1))
	f.Add("1:a", "b", true, true, int64(11), "1", ":ab", true, true, int64(1))
	f.Add("", "+-1", false, true, int64(1), "+", "-1", true, true, int64(2))
	f.Add(strings.Repeat("x", 130), "", true, true, int64(1), identity.Hash("x"), "", false, false, int64(1))
	f.Fuzz(func(t *testing.T, a, b string, c, d bool, n int64, a2, b2 string, c2, d2 bool, n2 int64) {
		first := &facts{ids: []string{a, b}, holds: []bool{c, d}, cost: n}
		second := &facts{ids: []string{a2, b2}, holds: []bool{c2, d2}, cost: n2}
		require.LessOrEqual(t, len(first.text()), maxIdentity)
		require.Equal(t, first.text(), (&facts{ids: []string{a, b}, holds: []bool{c, d}, cost: n}).text())
		same := a == a2 && b == b2 && c == c2 && d == d2 && n == n2
		require.Equal(t, same, first.text() == second.text())
	})
}

// FuzzResolve_dependsOnTheIdentity checks that two requests with the same identity have the same decision, whatever else they have.
func FuzzResolve_dependsOnTheIdentity(f *testing.F) {
	all, key := identity.Source{All: true}, identity.Source{Header: "A,B", Missing: identity.MissingDeny}
	routes := []*Route{
		NewRoute(Rules{Own: tokens(9), Limits: []LimitRule{{Name: "all", Limit: tokens(99), Source: &all}}, Cost: &CostRule{Header: "C", Max: 9,
			Methods: map[string]int64{"POST": 2}, Paths: []PathCost{{"/a*b", 3}}}}, connection),
		NewRoute(Rules{Source: identity.Source{Header: "A", Missing: identity.MissingPass}, Own: tokens(9), Limits: []LimitRule{
			{Name: "key", Limit: tokens(9), Source: &key, Match: Match{Paths: []string{"/a*", "*b"}}},
			{Name: "host", Limit: tokens(9), Match: Match{Hosts: []string{"a.*"}, Methods: []string{"POST"}}},
		}}, connection),
		NewRoute(Rules{Limits: []LimitRule{{Name: "more", Limit: tokens(9)}}, Tiers: []TierRule{
			{Name: "one", Deny: true, Match: Match{Headers: map[string]string{"A": "*x*", "B": "*"}}},
			{Name: "two", Unlimited: true, Match: Match{ClientIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
			{Name: "rest", Limit: tokens(3)},
		}}, connection),
	}
	f.Add("POST", "/ab", "a.example:80", "10.0.0.1:1", "x", "1", "POST", "/ab", "a.example", "10.0.0.1:2", "x", "1")
	f.Add("GET", "/a\nb", "", "[::ffff:10.0.0.1]:1", "", "0", "PUT", "*", "A.", "@", "\xff", "9")
	f.Fuzz(func(t *testing.T, method, path, host, address, value, cost, method2, path2, host2, address2, value2, cost2 string) {
		request := func(method, path, host, address, value, cost string) *http.Request {
			return &http.Request{Method: method, URL: &url.URL{Path: path}, Host: host, RemoteAddr: address,
				Header: http.Header{"A": {value}, "B": {value, cost}, "C": {cost}}}
		}
		first, second := request(method, path, host, address, value, cost), request(method2, path2, host2, address2, value2, cost2)
		for _, route := range routes {
			id := route.Identity(first)
			require.LessOrEqual(t, len(id), maxIdentity)
			require.Equal(t, id, route.Identity(first))
			require.Equal(t, shown(route.Resolve(first)), shown(route.Resolve(first)))
			if id == route.Identity(second) {
				require.Equal(t, shown(route.Resolve(first)), shown(route.Resolve(second)))
			}
		}
	})
}

// FuzzPatterns_agree checks that the two ways to compare a text with a pattern have the same result.
func FuzzPatterns_agree(f *testing.F) {
	f.Add("/a*b*", "/axxbyy")
	f.Add("*ab*ab*", "aba")
	f.Add("**", "")
	f.Add("*.é(", "\xff.é(")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !utf8.ValidString(pattern) || strings.ContainsRune(pattern, utf8.RuneError) || len(text) > maxUsual {
			return // the rules refuse the first; an expression takes invalid UTF-8 for the second
		}
		p := patternsOf([]string{pattern}, false)
		require.Equal(t, p.match(text), inOrder(text, p.pieces[0]))
	})
}
