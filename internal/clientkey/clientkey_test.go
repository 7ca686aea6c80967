package clientkey

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// of is the safe name of a request's key.
func of(c Criterion, r *http.Request) string {
	return Name(New(c)(r))
}

// request comes from the address, for the host shop.example, with a header that is left out where its value is "-".
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

func TestOf_theAddressOfTheConnection(t *testing.T) {
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
		{"none but a port", ":1234", 0, "none:"},
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
			c := Criterion{IPv6Subnet: row.subnet}

			require.Equal(t, row.want, of(c, request(row.remote, "X-Forwarded-For", "203.0.113.9")))
		})
	}
}

func TestOf_theAddressAtADepth(t *testing.T) {
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
		{"deeper than there are", 4, 0, "10.0.0.1, 10.0.0.2, 10.0.0.3", "none:"},
		{"without spaces", 1, 0, "10.0.0.1,10.0.0.2", "ip:10.0.0.2"},
		{"with many", 2, 0, " 10.0.0.1 ,\t10.0.0.2 ", "ip:10.0.0.1"},
		{"of nothing", 1, 0, "10.0.0.1, ", "none:"},
		{"IPv6", 1, 0, "2001:db8::1", "ip:2001:db8::1"},
		{"IPv6, subnet", 1, 64, "2001:db8::1", "ip:2001:db8::"},
		{"IPv4-mapped", 1, 0, "::ffff:192.0.2.1", "ip:::ffff:192.0.2.1"},
		{"IPv4-mapped, subnet", 1, 64, "::ffff:192.0.2.1", "ip:192.0.2.1"},
		{"no address at all", 1, 0, "unknown", "ip:unknown"},
		{"an empty header", 1, 0, "", "none:"},
		{"no header", 1, 0, "-", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			c := Criterion{Depth: row.depth, IPv6Subnet: row.subnet}

			require.Equal(t, row.want, of(c, request("192.0.2.7:1234", "X-Forwarded-For", row.forwarded)))
		})
	}
}

func TestOf_theLastAddressThatIsNotExcluded(t *testing.T) {
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
		{"empty entries passed over", "10.0.0.0/8", "203.0.113.9, , 10.0.0.2,", "ip:203.0.113.9"},
		{"IPv4-mapped", "10.0.0.0/8", "203.0.113.9, ::ffff:10.0.0.2", "ip:203.0.113.9"},
		{"IPv6", "2001:db8::/32", "203.0.113.9, 2001:db8::1", "ip:203.0.113.9"},
		{"IPv6 with a zone", "fe80::/10", "203.0.113.9, fe80::1%eth0", "ip:203.0.113.9"},
		{"no address is in no network", "10.0.0.0/8", "203.0.113.9, unknown, 10.0.0.2", "ip:unknown"},
		{"an empty header", "10.0.0.0/8", "", "none:"},
		{"no header", "10.0.0.0/8", "-", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			c := Criterion{IPv6Subnet: 64}
			for _, text := range strings.Fields(row.excluded) {
				c.Excluded = append(c.Excluded, netip.MustParsePrefix(text))
			}

			require.Equal(t, row.want, of(c, request("192.0.2.7:1234", "X-Forwarded-For", row.forwarded)))
		})
	}
}

func TestOf_prefersTheDepthToTheExcluded(t *testing.T) {
	c := Criterion{Depth: 1, Excluded: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}

	require.Equal(t, "ip:10.0.0.2", of(c, request("192.0.2.7:1234", "X-Forwarded-For", "203.0.113.9, 10.0.0.2")))
}

func TestOf_aHeader(t *testing.T) {
	for _, row := range []struct {
		name  string
		value string
		want  string
	}{
		{"plain", "client-7", "header:client-7"},
		{"in its own letters", "Client-7", "header:Client-7"},
		{"missing", "-", "none:"},
		{"empty", "", "none:"},
		{"with a space", "Bearer abc", "header:" + sum("Bearer abc")},
		{"with what would end a line", "a\r\nb", "header:" + sum("a\r\nb")},
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
			c := Criterion{Header: "x-client"}

			require.Equal(t, row.want, of(c, request("192.0.2.7:1234", "X-Client", row.value)))
		})
	}
}

func TestOf_theHash(t *testing.T) {
	c := Criterion{Header: "X-Client"}
	victim := of(c, request("", "X-Client", "Bearer abc"))
	sent := strings.TrimPrefix(victim, "header:")
	require.Len(t, sent, 64)

	require.NotEqual(t, victim, of(c, request("", "X-Client", sent)), "nobody can send another's hash")
}

func TestOf_theHost(t *testing.T) {
	for _, row := range []struct {
		name string
		host string
		want string
	}{
		{"a name", "shop.example", "host:shop.example"},
		{"in any letters", "Shop.EXAMPLE", "host:shop.example"},
		{"with its port", "shop.example:8080", "host:shop.example:8080"},
		{"an IPv6 address", "[2001:db8::1]:80", "host:" + sum("[2001:db8::1]:80")},
		{"none", "", "none:"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := request("192.0.2.7:1234", "X-Forwarded-Host", "other.example")
			r.Host = row.host
			c := Criterion{Host: true}

			require.Equal(t, row.want, of(c, r))
		})
	}
}
