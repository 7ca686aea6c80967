package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// of returns the safe name of a request's key.
func of(s Source, r *http.Request) string {
	return Name(KeyOf(s)(r))
}

// request returns a request from the address, for the host shop.example, with a header unless its value is "-".
func request(remote, header, value string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Host: "shop.example", Header: http.Header{}}
	if value != "-" {
		r.Header.Set(header, value)
	}
	return r
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

func TestKeyOf_connectionAddress(t *testing.T) {
	for _, row := range []struct {
		name   string
		remote string
		subnet int
		want   string
	}{
		{"IPv4", "192.0.2.1:1234", 0, "ip:192.0.2.1"},
		{"IPv6", "[2001:db8::1]:1234", 0, "ip:2001:db8::1"},
		{"IPv6 with a zone", "[fe80::1%eth0]:1234", 0, "ip:" + sum("fe80::1%eth0")},
		{"without a port", "192.0.2.1", 0, "ip:192.0.2.1"},
		{"IPv6 without a port", "2001:db8::1", 0, "ip:2001:db8::1"},
		{"of a Unix socket", "@", 0, "ip:" + sum("@")},
		{"none", "", 0, "none:"},
		{"only a port", ":1234", 0, "none:"},
		{"IPv4, subnet of IPv6", "192.0.2.1:1234", 64, "ip:192.0.2.1"},
		{"subnet of 64 bits", "[2001:db8:1:2:3:4:5:6]:1234", 64, "ip:2001:db8:1:2::"},
		{"subnet of 48 bits", "[2001:db8:1:2:3:4:5:6]:1234", 48, "ip:2001:db8:1::"},
		{"subnet of all bits", "[2001:db8::1]:1234", 128, "ip:2001:db8::1"},
		{"subnet, with a zone", "[fe80::1%eth0]:1234", 64, "ip:fe80::"},
		{"subnet, without a port", "2001:db8::1", 64, "ip:2001:db8::"},
		{"subnet, IPv4-mapped", "[::ffff:192.0.2.1]:1234", 64, "ip:192.0.2.1"},
		{"subnet, no address", "proxy:1234", 64, "ip:proxy"},
		{"subnet of more than an address", "[2001:db8::1]:1234", 129, "ip:2001:db8::1"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			source := Source{IPv6Subnet: row.subnet}

			require.Equal(t, row.want, of(source, request(row.remote, "X-Forwarded-For", "203.0.113.9")))
		})
	}
}

func TestKeyOf_forwardedAddressAtDepth(t *testing.T) {
	for _, row := range []struct {
		name      string
		depth     int
		subnet    int
		forwarded string
		want      string
	}{
		{"the last", 1, 0, "10.0.0.1, 10.0.0.2, 10.0.0.3", "ip:10.0.0.3"},
		{"the one before", 2, 0, "10.0.0.1, 10.0.0.2, 10.0.0.3", "ip:10.0.0.2"},
		{"the first", 3, 0, "10.0.0.1, 10.0.0.2, 10.0.0.3", "ip:10.0.0.1"},
		{"deeper than the list", 4, 0, "10.0.0.1, 10.0.0.2, 10.0.0.3", "none:"},
		{"without spaces", 1, 0, "10.0.0.1,10.0.0.2", "ip:10.0.0.2"},
		{"with many spaces", 2, 0, " 10.0.0.1 ,\t10.0.0.2 ", "ip:10.0.0.1"},
		{"of nothing", 1, 0, "10.0.0.1, ", "none:"},
		{"IPv6", 1, 0, "2001:db8::1", "ip:2001:db8::1"},
		{"IPv6, subnet", 1, 64, "2001:db8::1", "ip:2001:db8::"},
		{"IPv4-mapped", 1, 0, "::ffff:192.0.2.1", "ip:::ffff:192.0.2.1"},
		{"IPv4-mapped, subnet", 1, 64, "::ffff:192.0.2.1", "ip:192.0.2.1"},
		{"no address", 1, 0, "unknown", "ip:unknown"},
		{"IPv4 with a port", 1, 0, "10.0.0.1, 203.0.113.9:4711", "ip:203.0.113.9"},
		{"IPv4 with what is no port", 1, 0, "203.0.113.9:_hidden", "ip:203.0.113.9"},
		{"IPv4 with an empty port", 1, 0, "203.0.113.9:", "ip:203.0.113.9"},
		{"IPv6 in brackets, with a port", 2, 0, "[2001:db8::7]:443, 10.0.0.1", "ip:2001:db8::7"},
		{"IPv6 in brackets", 1, 0, "[2001:db8::7]", "ip:2001:db8::7"},
		{"IPv6 in brackets, subnet", 1, 64, "[2001:db8:1:2:3::7]:443", "ip:2001:db8:1:2::"},
		{"IPv6 in brackets, with a zone", 1, 0, "[fe80::1%eth0]:443", "ip:" + sum("fe80::1%eth0")},
		{"IPv4-mapped in brackets, subnet", 1, 64, "[::ffff:192.0.2.1]:443", "ip:192.0.2.1"},
		{"no address, with a port", 1, 0, "unknown:4711", "ip:unknown:4711"},
		{"no address, in brackets", 1, 0, "[unknown]:4711", "ip:" + sum("[unknown]:4711")},
		{"brackets that do not end", 1, 0, "[2001:db8::7", "ip:" + sum("[2001:db8::7")},
		{"brackets with text behind them", 1, 0, "[2001:db8::7]x", "ip:" + sum("[2001:db8::7]x")},
		{"only brackets", 1, 0, "[]", "ip:" + sum("[]")},
		{"an empty header", 1, 0, "", "none:"},
		{"no header", 1, 0, "-", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			source := Source{Depth: row.depth, IPv6Subnet: row.subnet}

			require.Equal(t, row.want, of(source, request("192.0.2.7:1234", "X-Forwarded-For", row.forwarded)))
		})
	}
}

func TestKeyOf_lastForwardedAddressNotExcluded(t *testing.T) {
	for _, row := range []struct {
		name      string
		excluded  string
		forwarded string
		want      string
	}{
		{"none excluded", "172.16.0.0/12", "10.0.0.1, 10.0.0.2", "ip:10.0.0.2"},
		{"the last excluded", "10.0.0.2/32", "10.0.0.1, 10.0.0.2", "ip:10.0.0.1"},
		{"an excluded one before it", "10.0.0.1/32", "10.0.0.1, 10.0.0.2", "ip:10.0.0.2"},
		{"two networks", "10.0.0.0/8 192.168.0.0/16", "203.0.113.9, 192.168.1.1, 10.0.0.2", "ip:203.0.113.9"},
		{"all excluded", "10.0.0.0/8", "10.0.0.1, 10.0.0.2", "none:"},
		{"empty entries are skipped", "10.0.0.0/8", "203.0.113.9, , 10.0.0.2,", "ip:203.0.113.9"},
		{"IPv4-mapped", "10.0.0.0/8", "203.0.113.9, ::ffff:10.0.0.2", "ip:203.0.113.9"},
		{"IPv6", "2001:db8::/32", "203.0.113.9, 2001:db8::1", "ip:203.0.113.9"},
		{"IPv6 with a zone", "fe80::/10", "203.0.113.9, fe80::1%eth0", "ip:203.0.113.9"},
		{"excluded with a port", "10.0.0.0/8", "203.0.113.9:4711, 10.0.0.2:80", "ip:203.0.113.9"},
		{"excluded in brackets", "2001:db8::/32", "[2001:db9::7]:1, [2001:db8::1]:443, [2001:db8::2]", "ip:2001:db9::7"},
		{"what is no address is not excluded", "10.0.0.0/8", "203.0.113.9, unknown, 10.0.0.2", "ip:unknown"},
		{"an empty header", "10.0.0.0/8", "", "none:"},
		{"no header", "10.0.0.0/8", "-", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			source := Source{IPv6Subnet: 64}
			for _, text := range strings.Fields(row.excluded) {
				source.Excluded = append(source.Excluded, netip.MustParsePrefix(text))
			}

			require.Equal(t, row.want, of(source, request("192.0.2.7:1234", "X-Forwarded-For", row.forwarded)))
		})
	}
}

func TestKeyOf_depthCountsBeforeExcluded(t *testing.T) {
	source := Source{Depth: 1, Excluded: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}

	require.Equal(t, "ip:10.0.0.2", of(source, request("192.0.2.7:1234", "X-Forwarded-For", "203.0.113.9, 10.0.0.2")))
}

func TestKeyOf_header(t *testing.T) {
	for _, row := range []struct {
		name  string
		value string
		want  string
	}{
		{"plain", "client-7", "header:client-7"},
		{"in upper and lower case", "Client-7", "header:Client-7"},
		{"missing", "-", "none:"},
		{"empty", "", "none:"},
		{"with a space", "Bearer abc", "header:" + sum("Bearer abc")},
		{"with line ends", "a\r\nb", "header:" + sum("a\r\nb")},
		{"with a control character", "a\x00b", "header:" + sum("a\x00b")},
		{"with a brace, as in the tag of a Redis key", "a}b", "header:" + sum("a}b")},
		{"not ASCII", "größe", "header:" + sum("größe")},
		{"not even UTF-8", "\xff\xfe", "header:" + sum("\xff\xfe")},
		{"of 63 characters", strings.Repeat("a", 63), "header:" + strings.Repeat("a", 63)},
		{"of 64 characters", strings.Repeat("a", 64), "header:" + sum(strings.Repeat("a", 64))},
		{"of 64 KB", strings.Repeat("a", 65536), "header:" + sum(strings.Repeat("a", 65536))},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			source := Source{Header: "x-client"}

			require.Equal(t, row.want, of(source, request("192.0.2.7:1234", "X-Client", row.value)))
		})
	}
}

// A middleware before ours may set a header in its own spelling, as basicAuth does with its headerField. A client cannot:
// net/http makes what it sends canonical.
func TestKeyOf_headerSpelling(t *testing.T) {
	for _, row := range []struct {
		name       string
		configured string
		header     http.Header
		want       string
	}{
		{"as a client sends it", "X-WebAuth-User", http.Header{"X-Webauth-User": {"alice"}}, "header:alice"},
		{"as a middleware sets it", "X-WebAuth-User", http.Header{"X-WebAuth-User": {"alice"}}, "header:alice"},
		{"both: the client's does not count", "X-WebAuth-User",
			http.Header{"X-WebAuth-User": {"alice"}, "X-Webauth-User": {"mallory"}}, "header:alice"},
		{"in lower case", "x-user", http.Header{"x-user": {"alice"}, "X-User": {"mallory"}}, "header:alice"},
		{"set, but without a line", "x-user", http.Header{"x-user": {}, "X-User": {"bob"}}, "header:bob"},
		{"in a third spelling", "X-User", http.Header{"x-user": {"alice"}}, "none:"},
		{"several lines: the last one is the nearest proxy's", "X-User", http.Header{"X-User": {"mallory", "alice"}}, "header:alice"},
		{"several lines, as a middleware sets it", "x-user", http.Header{"x-user": {"a", "b"}}, "header:b"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := &http.Request{Header: row.header}

			require.Equal(t, row.want, of(Source{Header: row.configured}, r))
		})
	}
}

func TestKeyOf_noValueEqualsAHash(t *testing.T) {
	source := Source{Header: "X-Client"}
	victim := of(source, request("", "X-Client", "Bearer abc"))
	sent := strings.TrimPrefix(victim, "header:")
	require.Len(t, sent, 64)

	require.NotEqual(t, victim, of(source, request("", "X-Client", sent)), "a client cannot send the hash of another one's value")
}

func TestKeyOf_host(t *testing.T) {
	for _, row := range []struct {
		name string
		host string
		want string
	}{
		{"a name", "shop.example", "host:shop.example"},
		{"in upper case", "Shop.EXAMPLE", "host:shop.example"},
		{"with its port", "shop.example:8080", "host:shop.example"},
		{"with what is no port", "shop.example:a7", "host:shop.example"},
		{"with an empty port", "shop.example:", "host:shop.example"},
		{"with two ports", "shop.example:1:2", "host:shop.example"},
		{"with a dot at its end", "shop.example.", "host:shop.example"},
		{"upper case, dot and port", "Shop.Example.:81", "host:shop.example"},
		{"IDN", "bücher.example", "host:" + sum("bücher.example")},
		{"IDN, encoded", "xn--bcher-kva.example", "host:xn--bcher-kva.example"},
		{"an IPv4 address", "192.0.2.1:80", "host:192.0.2.1"},
		{"an IPv6 address", "[2001:db8::1]:80", "host:2001:db8::1"},
		{"an IPv6 address without a port", "[2001:db8::1]", "host:2001:db8::1"},
		{"an IPv6 address with what is no port", "[2001:db8::1]:x:y", "host:2001:db8::1"},
		{"an IPv6 address in another spelling", "[2001:DB8:0::1]", "host:2001:db8::1"},
		{"an IPv6 address with a zone", "[fe80::1%25a]:80", "host:fe80::1"},
		{"brackets around nothing, and what is no port", "[]:]", "none:"},
		{"brackets around brackets", "[[shop.example]]:80", "host:shop.example"},
		{"an IPv6 address without brackets", "2001:db8::1", "host:2001:db8::1"},
		{"an IPv6 address with a dot at its end", "2001:db8::1.", "host:2001:db8::1"},
		{"brackets around what is no address", "[Shop]:80", "host:shop"},
		{"brackets that do not end", "[2001:db8::1", "host:2001:db8::1"},
		{"only a port", ":80", "none:"},
		{"only a dot", ".", "none:"},
		{"none", "", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := request("192.0.2.7:1234", "X-Forwarded-Host", "other.example")
			r.Host = row.host
			source := Source{Host: true}

			require.Equal(t, row.want, of(source, r))
		})
	}
}
