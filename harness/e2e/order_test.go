package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestOrder shows what the table of orders in the documentation tells: what another of Traefik's middlewares does before ours in a chain,
// and after it.
func TestOrder(t *testing.T) {
	t.Parallel()
	up, server := startUpstream(t), redistest.Start(t)
	users := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "":
			w.WriteHeader(http.StatusUnauthorized)
		case "down":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.Header().Set("X-User", r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(users.Close)
	others := block{
		"cors": block{"headers": block{
			"accessControlAllowOriginList": []string{"https://shop.example"}, "accessControlAllowMethods": []string{"GET"},
			"accessControlExposeHeaders": []string{"Retry-After"},
		}},
		"retry":     block{"retry": block{"attempts": 3, "initialInterval": "10ms"}},
		"eager":     block{"retry": block{"attempts": 3, "initialInterval": "100ms", "status": []string{"429", "503"}}},
		"pages":     block{"errors": block{"status": []string{"429", "500-599"}, "service": "upstream", "query": "/ok"}},
		"rewrites":  block{"errors": block{"status": []string{"500-599"}, "service": "upstream", "query": "/ok", "statusRewrites": block{"500-599": 200}}},
		"users":     block{"forwardAuth": block{"address": users.URL, "authResponseHeaders": []string{"X-User"}}},
		"compress":  block{"compress": block{"minResponseBodyBytes": 1}},
		"buffering": block{"buffering": block{"maxRequestBodyBytes": 1000}},
	}
	routers, middlewares := block{}, block{}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	for name, other := range others {
		middlewares[name] = other
		for _, order := range []string{"before", "after"} {
			for part, plugin := range map[string]block{
				"limit":   {"rateLimit": block{"capacity": 10, "refillRate": 1, "refillPeriod": "1h"}},
				"circuit": {"circuitBreaker": block{"failureThreshold": 10, "resetTimeout": "1h"}},
			} {
				own := name + "-" + order + "-" + part
				if name == "users" && part == "limit" {
					plugin["rateLimit"].(block)["sourceCriterion"] = block{"requestHeaderName": "X-User"}
				}
				plugin["redis"] = redisBlock(server)
				middlewares[own] = block{"plugin": block{"resilience": plugin}}
				middlewares[own+"-strip"] = block{"stripPrefix": block{"prefixes": []string{"/" + own}}}
				chain := []string{own + "-strip", name, own}
				if order == "after" {
					chain = []string{own + "-strip", own, name}
				}
				service := "upstream"
				if name == "retry" {
					service = "down" // retry tries again only where the service cannot be reached
				}
				routers[own] = block{"rule": "PathPrefix(`/" + own + "/`)", "entryPoints": []string{"web"}, "middlewares": chain, "service": service}
			}
		}
	}
	writeYAML(t, filepath.Join(dynamic, "order.yml"), block{"http": block{
		"routers": routers, "middlewares": middlewares,
		"services": block{"down": block{"loadBalancer": block{"servers": []block{{"url": "http://" + freeAddress(t)}}}}},
	}})
	g := startTraefik(t, options{upstream: up, dynamic: dynamic})
	ask := func(method, path string, header ...string) reply {
		request, err := http.NewRequest(method, g.url(path), nil)
		require.NoError(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		r := send(request)
		require.NoError(t, r.err)
		return r
	}
	// left returns how many requests more a bucket lets pass.
	left := func(own string) int {
		n := 0
		for ask("GET", "/"+own+"/ok").status != 429 {
			n++
		}
		return n
	}
	open := func(own string) bool {
		return server.Hash("resilience:{" + own + "-circuit}:breaker")["state"] == "open"
	}
	preflight := []string{"Origin", "https://shop.example", "Access-Control-Request-Method", "GET"}

	t.Run("cors before", func(t *testing.T) {
		for range 5 {
			require.Equal(t, 200, ask("OPTIONS", "/cors-before-limit/ok", preflight...).status)
		}
		require.Equal(t, 10, left("cors-before-limit"), "preflights take no token")
		refused := ask("GET", "/cors-before-limit/ok", "Origin", "https://shop.example")
		require.Equal(t, 429, refused.status)
		require.Equal(t, "https://shop.example", refused.header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "Retry-After", refused.header.Get("Access-Control-Expose-Headers"))
	})
	t.Run("cors after", func(t *testing.T) {
		for range 5 {
			require.Equal(t, 200, ask("OPTIONS", "/cors-after-limit/ok", preflight...).status)
		}
		require.Equal(t, 5, left("cors-after-limit"), "preflights take tokens")
		refused := ask("GET", "/cors-after-limit/ok", "Origin", "https://shop.example")
		require.Equal(t, 429, refused.status)
		require.Empty(t, refused.header.Get("Access-Control-Allow-Origin"))
	})
	t.Run("retry before", func(t *testing.T) {
		require.Equal(t, 502, ask("GET", "/retry-before-limit/ok").status)
		require.Equal(t, 2, left("retry-before-limit"), "each attempt takes a token")
		require.Equal(t, 502, ask("GET", "/retry-after-limit/ok").status)
		require.Equal(t, 9, left("retry-after-limit"))
		for range 3 {
			ask("GET", "/retry-before-circuit/ok")
			ask("GET", "/retry-after-circuit/ok")
		}
		require.Equal(t, "9", server.Hash("resilience:{retry-before-circuit}:breaker")["failures"], "each attempt is a failure")
		require.Equal(t, "3", server.Hash("resilience:{retry-after-circuit}:breaker")["failures"])
	})
	t.Run("retry by status before", func(t *testing.T) {
		require.Equal(t, 10, left("eager-before-limit"))
		begun := time.Now()
		require.Equal(t, 429, ask("GET", "/eager-before-limit/ok").status)
		require.Greater(t, time.Since(begun), 100*time.Millisecond, "a refusal is tried again")
		require.Equal(t, 10, left("eager-after-limit"))
		begun = time.Now()
		require.Equal(t, 429, ask("GET", "/eager-after-limit/ok").status)
		require.Less(t, time.Since(begun), 100*time.Millisecond)
	})
	t.Run("errors before", func(t *testing.T) {
		left("pages-before-limit")
		refused := ask("GET", "/pages-before-limit/ok")
		require.Equal(t, 429, refused.status)
		require.Equal(t, `{"status":"ok"}`, refused.body, "the page")
		require.Empty(t, refused.header.Get("Retry-After"))
		for range 10 {
			ask("GET", "/pages-before-circuit/fail")
		}
		require.True(t, open("pages-before"))
		require.Equal(t, 503, ask("GET", "/pages-before-circuit/ok").status, "the status is kept")
	})
	t.Run("errors after", func(t *testing.T) {
		for range 10 {
			ask("GET", "/pages-after-circuit/fail")
			ask("GET", "/rewrites-after-circuit/fail")
			ask("GET", "/rewrites-before-circuit/fail")
		}
		require.True(t, open("pages-after"), "a page with 500 counts")
		require.False(t, open("rewrites-after"), "a failure that is rewritten to 200 does not")
		require.True(t, open("rewrites-before"))
	})
	t.Run("forwardAuth before", func(t *testing.T) {
		for range 12 {
			require.Equal(t, 401, ask("GET", "/users-before-limit/ok").status)
			ask("GET", "/users-before-circuit/ok", "Authorization", "down")
		}
		for _, user := range []string{"alice", "bob"} {
			counts := map[int]int{}
			for range 12 {
				counts[ask("GET", "/users-before-limit/ok", "Authorization", user).status]++
			}
			require.Equal(t, map[int]int{200: 10, 429: 2}, counts, user)
		}
		require.False(t, open("users-before"))
	})
	t.Run("forwardAuth after", func(t *testing.T) {
		counts := map[int]int{}
		for i := range 12 {
			counts[ask("GET", "/users-after-limit/ok", "Authorization", fmt.Sprint("user", i)).status]++
			ask("GET", "/users-after-circuit/ok", "Authorization", "down")
		}
		require.Equal(t, map[int]int{200: 10, 429: 2}, counts, "all users share a bucket, for the header is not there yet")
		require.Equal(t, 200, ask("GET", "/users-after-limit/ok", "Authorization", "alice", "X-User", "made-up").status,
			"and a client that writes it chooses its own")
		require.True(t, open("users-after"), "a failure of the server that is asked counts")
	})
	for _, name := range []string{"compress", "buffering"} {
		for _, order := range []string{"before", "after"} {
			t.Run(name+" "+order, func(t *testing.T) {
				own := name + "-" + order
				require.Equal(t, 10, left(own+"-limit"))
				r := ask("GET", "/"+own+"-limit/ok")
				require.Equal(t, limitedBody, r.body)
				require.NotEmpty(t, r.header.Get("Retry-After"))
				for range 10 {
					ask("GET", "/"+own+"-circuit/fail")
				}
				require.True(t, open(own))
				require.Equal(t, openBody, ask("GET", "/"+own+"-circuit/ok").body)
			})
		}
	}
}

// TestOrder_onAnEntryPoint gives the middleware to all routers of an entry point: those of ping and of a redirection are among them.
func TestOrder_onAnEntryPoint(t *testing.T) {
	t.Parallel()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"rateLimit": block{"capacity": 100, "refillRate": 1, "refillPeriod": "1h"}})
	redirecting := freeAddress(t)
	g := startTraefik(t, options{dynamic: dynamic, change: func(static map[string]any) {
		gateway.Set(static, []string{"gateway@file"}, "entryPoints", "traefik", "http", "middlewares")
		gateway.Set(static, redirecting, "entryPoints", "redirecting", "address")
		gateway.Set(static, []string{"gateway@file"}, "entryPoints", "redirecting", "http", "middlewares")
		gateway.Set(static, "web", "entryPoints", "redirecting", "http", "redirections", "entryPoint", "to")
	}})
	last := func(url string) int {
		response, err := (&http.Client{CheckRedirect: noRedirect}).Get(url)
		require.NoError(t, err)
		response.Body.Close()
		return response.StatusCode
	}
	redirected := last("http://" + redirecting + "/")
	require.Contains(t, []int{301, 302, 307, 308}, redirected)
	for range 100 {
		last("http://" + g.api + "/ping")
	}
	require.Equal(t, http.StatusTooManyRequests, last("http://"+g.api+"/ping"), "ping takes tokens, and is refused")
	require.Equal(t, http.StatusTooManyRequests, last("http://"+redirecting+"/"), "so does a redirection")
}
