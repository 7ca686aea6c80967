// Package identitydiff holds our reading of who a request comes from against Traefik's own.
package identitydiff

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/stretchr/testify/require"
	"github.com/traefik/traefik/v3/pkg/ip"
	"github.com/traefik/traefik/v3/pkg/middlewares/requestdecorator"
)

var excluded = []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "fe80::1/128"}

// FuzzForwarded reads addresses and forwarded lists as Traefik's ipStrategy does, but for two things. IPv4 addresses in an IPv6 dress
// are not one network. And an address may have a port or brackets, as some proxies write: Traefik's own takes those for a part of
// the key, so that each connection is a client, and an excluded proxy is none. Traefik is asked about the list without them.
func FuzzForwarded(f *testing.F) {
	f.Add("192.0.2.1:1234", "203.0.113.9, 10.0.0.1", 1, 64)
	f.Add("[fe80::1%eth0]:1234", "2001:db8::1 ,\t198.51.100.1,,", 2, 128)
	f.Add("[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1,10.0.0.1", 3, 129)
	f.Add("[::1]:1234", "a, b, 10.0.0.1:80, [2001:db8::1]", 4, 0)
	f.Add("192.0.2.2:1", ",", 1, 1)
	f.Add("192.0.2.2:1", "203.0.113.9:4711, [2001:db8::7]:443, [2001:db9::7]", 1, 64)
	f.Add("192.0.2.2:1", "[2001:dbb8::]:443\n0", 1, 0)
	f.Add("192.0.2.2:1", "203.0.113.9:, [::1, [::1]x, ::1]:80, [10.0.0.1]:x", 2, 0)
	var prefixes []netip.Prefix
	for _, text := range excluded {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	checker, err := ip.NewChecker(excluded)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, remote, forwarded string, depth, subnet int) {
		if depth < 1 || depth > 1000 || subnet < 0 || subnet > 200 {
			return // no configuration has them
		}
		if _, err := netip.ParseAddrPort(remote); err != nil {
			return // no connection comes from there
		}
		r := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		var bits *int
		if subnet > 0 {
			bits = &subnet
		}
		plain := &http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {withoutPorts(forwarded)}}}
		for _, row := range []struct {
			criterion identity.Source
			theirs    ip.Strategy
		}{
			{identity.Source{IPv6Subnet: subnet}, &ip.RemoteAddrStrategy{IPv6Subnet: bits}},
			{identity.Source{Depth: depth, IPv6Subnet: subnet}, &ip.DepthStrategy{Depth: depth, IPv6Subnet: bits}},
			{identity.Source{Excluded: prefixes}, &ip.PoolStrategy{Checker: checker}},
		} {
			want := row.theirs.GetIP(plain)
			got := identity.KeyOf(row.criterion)(r)
			if subnet > 0 && inDisguise(row.criterion, plain) {
				continue
			}
			require.Equal(t, keyOf(want), got, "%+v of %q, %q", row.criterion, remote, forwarded)
		}
	})
}

var (
	inBrackets = regexp.MustCompile(`(?s)^\[([^\]]*)\](:.*)?$`)
	beforePort = regexp.MustCompile(`^([^:]*):[^:]*$`)
)

// withoutPorts removes what proxies write around an address.
func withoutPorts(forwarded string) string {
	entries := strings.Split(forwarded, ",")
	for i, entry := range entries {
		entry = strings.TrimSpace(entry)
		for _, form := range []*regexp.Regexp{inBrackets, beforePort} {
			found := form.FindStringSubmatch(entry)
			if found == nil {
				continue
			}
			if _, err := netip.ParseAddr(found[1]); err == nil {
				entries[i] = found[1]
			}
		}
	}
	return strings.Join(entries, ",")
}

// FuzzHost reads a host as Traefik's router does: what the router takes for one host has one key.
func FuzzHost(f *testing.F) {
	for _, host := range []string{
		"shop.example", "shop.example:1", "shop.example:a7", "shop.example.", "SHOP.example", "Shop.Example.:81", "shop.example:1:2",
		"[2001:db8::1]:80", "2001:db8::1", "[2001:db8::1", "[]:]", "[[a]]", "", ":", ".", "other.example", "K.example",
	} {
		f.Add(host)
	}
	decorator := requestdecorator.New(nil)
	key := identity.KeyOf(identity.Source{Host: true})
	f.Fuzz(func(t *testing.T, host string) {
		if strings.ContainsFunc(host, unicode.IsSpace) {
			return // net/http answers 400
		}
		var canonical string
		r := &http.Request{Host: host}
		decorator.ServeHTTP(nil, r, func(_ http.ResponseWriter, r *http.Request) {
			canonical = requestdecorator.GetCanonicalHost(r.Context())
		})
		got := key(r)
		require.Equal(t, got, key(&http.Request{Host: canonical}), "%q and what the router makes of it, %q", host, canonical)
		require.Equal(t, got, key(&http.Request{Host: canonical + "."}), "%q, with a dot", canonical)
	})
}

// inDisguise reports whether the address that is asked for is an IPv4 address written as an IPv6 one.
func inDisguise(c identity.Source, r *http.Request) bool {
	var whole ip.Strategy = &ip.RemoteAddrStrategy{}
	if c.Depth > 0 {
		whole = &ip.DepthStrategy{Depth: c.Depth}
	}
	address, err := netip.ParseAddr(whole.GetIP(r))
	return err == nil && address.Is4In6()
}

func keyOf(address string) string {
	switch {
	case address == "":
		return "none:"
	case len(address) > 63:
		sum := sha256.Sum256([]byte(address))
		return "ip:" + hex.EncodeToString(sum[:])
	}
	return "ip:" + address
}
