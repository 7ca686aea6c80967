package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// TestKeys_oneHostIsOneBucket writes a host in the ways that the router takes for the same one.
func TestKeys_oneHostIsOneBucket(t *testing.T) {
	t.Parallel()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	writeYAML(t, filepath.Join(dynamic, "hosts.yml"), block{"http": block{
		"routers": block{
			"shop": block{"rule": "Host(`shop.example`)", "entryPoints": []string{"web"}, "middlewares": []string{"scarce"}, "service": "noop@internal"},
			"six":  block{"rule": "Host(`2001:db8::7`)", "entryPoints": []string{"web"}, "middlewares": []string{"scarce"}, "service": "noop@internal"},
		},
		"middlewares": block{"scarce": block{"plugin": block{"resilience": block{"rateLimit": scarce(block{"requestHost": true})}}}},
	}})
	g := startTraefik(t, options{dynamic: dynamic})
	ask := func(hosts ...string) map[int]int {
		counts := map[int]int{}
		for _, host := range hosts {
			request, err := http.NewRequest(http.MethodGet, g.url("/"), nil)
			require.NoError(t, err)
			request.Host = host
			r := send(request)
			require.NoError(t, r.err)
			counts[r.status]++
		}
		return counts
	}
	var hosts []string
	for i := range 100 {
		hosts = append(hosts, fmt.Sprint("shop.example:", i), fmt.Sprint("shop.example:a", i), "shop.example.", "Shop.EXAMPLE")
	}
	require.Equal(t, map[int]int{passed: 5, 429: 395}, ask(hosts...))
	hosts = nil
	for i := range 10 {
		hosts = append(hosts, fmt.Sprint("[2001:db8::7]:", i), "[2001:DB8::7]")
	}
	require.Equal(t, fiveOfTwenty, ask(hosts...))
}

// TestKeys_anAddressWithAPortIsTheAddress has a load balancer that writes the client's port too, as some do.
func TestKeys_anAddressWithAPortIsTheAddress(t *testing.T) {
	t.Parallel()
	g := startAbused(t, true, redistest.Start(t), map[string]block{
		"depth":    scarce(block{"ipStrategy": block{"depth": 1}}),
		"excluded": scarce(block{"ipStrategy": block{"excludedIPs": "10.0.0.0/8, 2001:db8:f::/48"}}),
	})
	for _, row := range []struct{ path, format string }{
		{"/depth", "203.0.113.9:%d"},
		{"/depth", "[2001:db8::7]:%d"},
		{"/excluded", "203.0.113.10:%d, 10.0.0.1"},
		{"/excluded", "[2001:db8::8]:%d, [2001:db8:f::1]:443, 10.0.0.1:80"},
	} {
		require.Equal(t, fiveOfTwenty, statuses(t, g, row.path, "X-Forwarded-For", rotating(row.format)...), row.format)
	}
	require.Equal(t, map[int]int{429: 2}, statuses(t, g, "/depth", "X-Forwarded-For", "203.0.113.9", "[2001:db8::7]"),
		"with a port or without one")
}

// TestKeys_aHeaderThatAMiddlewareSets takes the user that basicAuth sets in a header in the configured spelling, not what a client
// sends under that name.
func TestKeys_aHeaderThatAMiddlewareSets(t *testing.T) {
	t.Parallel()
	const field = "X-WebAuth-User"
	users := []string{basicUser(t, "alice", "wonder"), basicUser(t, "bob", "builder")}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	writeYAML(t, filepath.Join(dynamic, "users.yml"), block{"http": block{
		"routers": block{"users": block{
			"rule": "Path(`/users`)", "entryPoints": []string{"web"}, "middlewares": []string{"who", "scarce"}, "service": "noop@internal",
		}},
		"middlewares": block{
			"who":    block{"basicAuth": block{"users": users, "headerField": field}},
			"scarce": block{"plugin": block{"resilience": block{"rateLimit": scarce(block{"requestHeaderName": field})}}},
		},
	}})
	g := startTraefik(t, options{dynamic: dynamic})
	ask := func(user, password string, claims func(i int) string) map[int]int {
		counts := map[int]int{}
		for i := range 20 {
			request, err := http.NewRequest(http.MethodGet, g.url("/users"), nil)
			require.NoError(t, err)
			request.SetBasicAuth(user, password)
			if name := claims(i); name != "" {
				request.Header.Set(field, name)
			}
			counts[send(request).status]++
		}
		return counts
	}
	require.Equal(t, fiveOfTwenty, ask("alice", "wonder", func(int) string { return "" }))
	require.Equal(t, fiveOfTwenty, ask("bob", "builder", func(i int) string { return fmt.Sprint("user", i) }), "whoever he says he is")
}

// basicUser returns a line of basicAuth's users.
func basicUser(t *testing.T, name, password string) string {
	t.Helper()
	hashed, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return name + ":" + string(hashed)
}
