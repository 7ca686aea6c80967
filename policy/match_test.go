package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/stretchr/testify/require"
)

func networks(texts ...string) []netip.Prefix {
	list := []netip.Prefix{}
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestMatch(t *testing.T) {
	long := strings.Repeat("x", 20000)
	for _, row := range []struct {
		name    string
		match   Match
		request string
		want    bool
	}{
		{"nothing named", Match{}, "GET /", true},
		{"the path", Match{Paths: []string{"/login"}}, "GET /login", true},
		{"the path, with a query", Match{Paths: []string{"/login"}}, "GET /login?next=/a", true},
		{"another path", Match{Paths: []string{"/login"}}, "GET /logins", false},
		{"a longer path", Match{Paths: []string{"/login"}}, "GET /a/login", false},
		{"a slash at the end", Match{Paths: []string{"/login"}}, "GET /login/", false},
		{"another case", Match{Paths: []string{"/login"}}, "GET /Login", false},
		{"an encoded path", Match{Paths: []string{"/login"}}, "GET /lo%67in", true},
		{"an encoded slash", Match{Paths: []string{"/a/b"}}, "GET /a%2Fb", true},
		{"one of several paths", Match{Paths: []string{"/login", "/api/*"}}, "GET /api/a", true},
		{"none of several paths", Match{Paths: []string{"/login", "/api/*"}}, "GET /ap", false},
		{"any run of characters", Match{Paths: []string{"/api/*"}}, "GET /api/a/b", true},
		{"an empty run", Match{Paths: []string{"/api/*"}}, "GET /api/", true},
		{"not the slash before it", Match{Paths: []string{"/api/*"}}, "GET /api", false},
		{"a run in the middle", Match{Paths: []string{"/*/edit"}}, "GET /a/b/edit", true},
		{"a run that is not at the end", Match{Paths: []string{"/*/edit"}}, "GET /a/edit/b", false},
		{"several runs", Match{Paths: []string{"*.php*"}}, "GET /a/x.php/b", true},
		{"a run over a newline", Match{Paths: []string{"/api/*"}}, "GET /api/a%0Ab", true},
		{"a newline at the end", Match{Paths: []string{"/login"}}, "GET /login%0A", false},
		{"no dot for any character", Match{Paths: []string{"/a.b"}}, "GET /axb", false},
		{"characters of expressions", Match{Paths: []string{"/a.b+(c)[d]|^$"}}, "GET /a.b+(c)[d]%7C%5E$", true},
		{"alternatives are whole", Match{Paths: []string{"/a", "/b"}}, "GET /a/b", false},
		{"a long path", Match{Paths: []string{"/*x"}}, "GET /" + long, true},
		{"invalid UTF-8 under a run", Match{Paths: []string{"/a*"}}, "GET /a%ff%fe", true},
		{"the asterisk of OPTIONS", Match{Paths: []string{"/*"}}, "OPTIONS *", false},

		{"the method", Match{Methods: []string{"POST"}}, "POST /", true},
		{"one of several methods", Match{Methods: []string{"POST", "PUT"}}, "PUT /", true},
		{"another method", Match{Methods: []string{"POST"}}, "GET /", false},
		{"a method in another case", Match{Methods: []string{"POST"}}, "post /", false},

		{"the host", Match{Hosts: []string{"shop.example"}}, "GET / | Host: shop.example", true},
		{"the host with a port", Match{Hosts: []string{"shop.example"}}, "GET / | Host: shop.example:8443", true},
		{"the host in another case", Match{Hosts: []string{"shop.example"}}, "GET / | Host: Shop.EXAMPLE", true},
		{"the host with a dot at the end", Match{Hosts: []string{"shop.example"}}, "GET / | Host: shop.example.:80", true},
		{"another host", Match{Hosts: []string{"shop.example"}}, "GET / | Host: shop.example.org", false},
		{"a subdomain", Match{Hosts: []string{"*.example"}}, "GET / | Host: a.b.example", true},
		{"not the domain itself", Match{Hosts: []string{"*.example"}}, "GET / | Host: example", false},
		{"a pattern in upper case", Match{Hosts: []string{"*.EXAMPLE"}}, "GET / | Host: a.example", true},
		{"an IPv6 address as the host", Match{Hosts: []string{"::1"}}, "GET / | Host: [::1]:80", true},
		{"an address in another form", Match{Hosts: []string{"::1"}}, "GET / | Host: [0:0::1]", true},
		{"no host", Match{Hosts: []string{"shop.example"}}, "GET / | Host: ", false},
		{"no host, any pattern", Match{Hosts: []string{"*"}}, "GET / | Host: ", true},

		{"the header", Match{Headers: map[string]string{"X-Key": "a"}}, "GET / | X-Key: a", true},
		{"the header's name in another case", Match{Headers: map[string]string{"x-key": "a"}}, "GET / | X-Key: a", true},
		{"the value in another case", Match{Headers: map[string]string{"X-Key": "a"}}, "GET / | X-Key: A", false},
		{"a pattern of a value", Match{Headers: map[string]string{"User-Agent": "*badbot*"}}, "GET / | User-Agent: x badbot/2", true},
		{"not the pattern", Match{Headers: map[string]string{"User-Agent": "*badbot*"}}, "GET / | User-Agent: bad bot", false},
		{"a missing header", Match{Headers: map[string]string{"X-Key": "*"}}, "GET /", false},
		{"an empty header", Match{Headers: map[string]string{"X-Key": "*"}}, "GET / | X-Key: ", true},
		{"the second of two lines", Match{Headers: map[string]string{"X-Key": "b"}}, "GET / | X-Key: a | X-Key: b", true},
		{"two lines are not joined", Match{Headers: map[string]string{"X-Key": "a*b"}}, "GET / | X-Key: a | X-Key: b", false},
		{"all headers", Match{Headers: map[string]string{"X-A": "1", "X-B": "2"}}, "GET / | X-A: 1 | X-B: 2", true},
		{"not all headers", Match{Headers: map[string]string{"X-A": "1", "X-B": "2"}}, "GET / | X-A: 1", false},
		{"a long value", Match{Headers: map[string]string{"X-A": "*y*"}}, "GET / | X-A: " + long + "y" + long, true},

		{"the client", Match{ClientIPs: networks("203.0.113.7/32")}, "GET / | from 203.0.113.7:1", true},
		{"the client's network", Match{ClientIPs: networks("203.0.113.0/24")}, "GET / | from 203.0.113.255:1", true},
		{"another client", Match{ClientIPs: networks("203.0.113.0/24")}, "GET / | from 203.0.114.0:1", false},
		{"one of several networks", Match{ClientIPs: networks("10.0.0.0/8", "192.168.0.0/16")}, "GET / | from 192.168.9.9:1", true},
		{"a mapped address", Match{ClientIPs: networks("203.0.113.0/24")}, "GET / | from [::ffff:203.0.113.7]:1", true},
		{"an IPv6 network", Match{ClientIPs: networks("2001:db8::/32")}, "GET / | from [2001:db8:1::1]:1", true},
		{"an IPv6 address with a zone", Match{ClientIPs: networks("fe80::/10")}, "GET / | from [fe80::1%eth0]:1", true},
		{"all of IPv4 has no IPv6", Match{ClientIPs: networks("0.0.0.0/0")}, "GET / | from [2001:db8::1]:1", false},
		{"no address", Match{ClientIPs: networks("0.0.0.0/0", "::/0")}, "GET / | from @", false},

		{"everything at once", Match{Paths: []string{"/a"}, Methods: []string{"POST"}, Hosts: []string{"h"}, Headers: map[string]string{"X": "1"},
			ClientIPs: networks("10.0.0.0/8")}, "POST /a | Host: h | X: 1 | from 10.0.0.1:1", true},
		{"all but the path", Match{Paths: []string{"/a"}, Methods: []string{"POST"}, Hosts: []string{"h"}, Headers: map[string]string{"X": "1"},
			ClientIPs: networks("10.0.0.0/8")}, "POST /b | Host: h | X: 1 | from 10.0.0.1:1", false},
		{"all but the method", Match{Paths: []string{"/a"}, Methods: []string{"POST"}, Hosts: []string{"h"}, Headers: map[string]string{"X": "1"},
			ClientIPs: networks("10.0.0.0/8")}, "GET /a | Host: h | X: 1 | from 10.0.0.1:1", false},
		{"all but the host", Match{Paths: []string{"/a"}, Methods: []string{"POST"}, Hosts: []string{"h"}, Headers: map[string]string{"X": "1"},
			ClientIPs: networks("10.0.0.0/8")}, "POST /a | Host: i | X: 1 | from 10.0.0.1:1", false},
		{"all but the header", Match{Paths: []string{"/a"}, Methods: []string{"POST"}, Hosts: []string{"h"}, Headers: map[string]string{"X": "1"},
			ClientIPs: networks("10.0.0.0/8")}, "POST /a | Host: h | from 10.0.0.1:1", false},
		{"all but the client", Match{Paths: []string{"/a"}, Methods: []string{"POST"}, Hosts: []string{"h"}, Headers: map[string]string{"X": "1"},
			ClientIPs: networks("10.0.0.0/8")}, "POST /a | Host: h | X: 1 | from 11.0.0.1:1", false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := asked(row.request)
			got := compileMatch(&row.match).holds(r, identity.HostName(r.Host), connection(r))
			require.Equal(t, row.want, got)
		})
	}
}

func TestMatch_text(t *testing.T) {
	require.Equal(t, "", (&Match{}).Text())
	require.Equal(t, "", (&Match{Paths: []string{}, Headers: map[string]string{}}).Text())
	a := Match{Paths: []string{"/a", "/b"}, Headers: map[string]string{"X": "1", "Y": "2"}, ClientIPs: networks("10.0.0.0/8", "::/0")}
	same := Match{Paths: []string{"/b", "/a"}, Headers: map[string]string{"Y": "2", "X": "1"}, ClientIPs: networks("::/0", "10.0.0.0/8")}
	require.Equal(t, a.Text(), same.Text(), "in any order")
	require.Equal(t, []string{"/b", "/a"}, same.Paths, "the rule itself keeps its order")
	for _, other := range []Match{
		{Paths: []string{"/a /b"}}, {Paths: []string{"/a", "/b"}}, {Methods: []string{"/a"}}, {Hosts: []string{"/a"}}, {Paths: []string{"/a"}},
		{Headers: map[string]string{"X": "1"}}, {Headers: map[string]string{"X": "1", "Y": "3"}}, {ClientIPs: networks("10.0.0.0/8")},
	} {
		require.NotEqual(t, a.Text(), other.Text())
	}
}
