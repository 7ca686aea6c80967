package identity

import (
	"net/http"
	"net/netip"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOf checks that a key is safe in Redis keys and log lines, whatever a client sends.
func FuzzOf(f *testing.F) {
	f.Add("192.0.2.1:1234", "203.0.113.9, 10.0.0.1", "shop.example", 1, 64)
	f.Add("[fe80::1%eth0]:1234", "::ffff:10.0.0.1", "[2001:db8::1]:80", 2, 0)
	f.Add("@", "a\r\nb", "", 0, 129)
	f.Add("", ",", "Größe", -1, -1)
	safe := regexp.MustCompile(`^(ip|header|host|none):[A-Za-z0-9.:_-]{0,64}$`)
	excluded := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	f.Fuzz(func(t *testing.T, remote, value, host string, depth, subnet int) {
		r := &http.Request{RemoteAddr: remote, Host: host, Header: http.Header{"X-Forwarded-For": {value}}}
		for _, c := range []Source{
			{IPv6Subnet: subnet},
			{Depth: depth, IPv6Subnet: subnet},
			{Excluded: excluded, IPv6Subnet: subnet},
			{Header: "X-Forwarded-For"},
			{Host: true},
		} {
			c := c
			require.Regexp(t, safe, of(c, r))
		}
	})
}
