package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// oddLimit is a configuration as operators write it, and what its clients get, or what is wrong with it.
type oddLimit struct {
	recipe
	plugin string   // YAML
	errors []string // parts of the error; nil: it is valid
}

var oddLimits = []oddLimit{
	{recipe{"commas", []recipeStep{{"POST /login", 3, 2, tooMany, 0}, {"PUT /api/a", 1, 0, tooMany, 0}, {"GET /login", 3, 3, 0, 0}}},
		`rateLimit: {capacity: 9, refillRate: 1, refillPeriod: 1h, limits: {some: {capacity: "2", match: {paths: "/login, /api/*", methods: "POST,PUT"}}}}`, nil},
	{recipe{"texts", []recipeStep{{"GET /", 4, 3, tooMany, 0}, {"GET /, X-Tier: a", 5, 4, tooMany, 0}, {"POST /, from 127.0.0.2", 2, 1, tooMany, 0}}},
		`rateLimit: {capacity: "3", refillRate: 1.0, refillPeriod: 1h, tiers: {a: {priority: 10, capacity: "4", match: {headers: {x-tier: a}}}}, cost: {max: "3", methods: {POST: 2}}}`, nil},
	{recipe{"without-numbers", []recipeStep{{"POST /", 3, 2, tooMany, 0}, {"GET /", 1, 0, tooMany, 0}, {"GET /, from 127.0.0.2", 3, 2, tooMany, 0}}},
		`rateLimit: {capacity: 2, refillRate: 1, refillPeriod: 1h, limits: {posts: {match: {methods: [POST]}}}}`, nil},
	{recipe{"only-limits", []recipeStep{{"GET /", 130, 120, tooMany, 0}}},
		`rateLimit: {refillPeriod: 1h, limits: {a: {capacity: 120, refillRate: 1}}}`, nil},
	{recipe{"only-deny", []recipeStep{{"GET /, User-Agent: badbot", 2, 0, forbidden, 0}, {"GET /", 110, 100, tooMany, 0}}},
		`rateLimit: {refillPeriod: 1h, tiers: {banned: {deny: "true", match: {headers: {User-Agent: "*badbot*"}}}}}`, nil},
	{recipe{"unlimited", []recipeStep{{"GET /, X-Tier: free", 9, 9, 0, 0}, {"GET /", 9, 2, tooMany, 0}}},
		`rateLimit: {capacity: 3, refillRate: 1, refillPeriod: 1h, limits: {more: {capacity: 2}}, tiers: {free: {unlimited: true, match: {headers: {X-Tier: free}}}}}`, nil},
	{recipe{"same-source", []recipeStep{{"GET /a", 3, 2, tooMany, 0}, {"GET /b", 4, 3, tooMany, 0}, {"GET /c", 5, 5, 0, 0}}},
		`rateLimit: {capacity: 10, refillRate: 1, refillPeriod: 1h, limits: {a: {capacity: 2, match: {paths: /a}}, b: {capacity: 3, match: {paths: [/b]}}}}`, nil},
	{recipe{"all", []recipeStep{{"GET /", 2, 2, 0, 0}, {"GET /, from 127.0.0.2", 2, 1, tooMany, 0}}},
		`rateLimit: {capacity: 3, refillRate: 1, refillPeriod: 1h, sourceCriterion: {all: true}}`, nil},
	{recipe{"headers", []recipeStep{{"GET /, X-A: 1, X-B: 2", 2, 1, tooMany, 0}, {"GET /, X-A: 12", 1, 0, forbidden, 0}, {"GET /, X-A: 1, X-B: 3", 1, 1, 0, 0}}},
		`rateLimit: {capacity: 1, refillRate: 1, refillPeriod: 1h, sourceCriterion: {requestHeaderName: "X-A, X-B", missingSource: deny}}`, nil},
	{recipe{"pattern", []recipeStep{{"GET /x/y", 2, 1, tooMany, 0}, {"GET /x/z", 1, 1, 0, 0}, {"GET /x/y/z", 3, 3, 0, 0}, {"GET /x", 1, 1, 0, 0}}},
		`rateLimit: {capacity: 1, refillRate: 1, refillPeriod: 1h, sourceCriterion: {requestPath: "/{a}/{b}", missingSource: pass}}`, nil},
	{recipe{"claims", []recipeStep{ // {"roles":["a"],"sub":"ann"}
		{"GET /, Authorization: Bearer e30.eyJyb2xlcyI6WyJhIl0sInN1YiI6ImFubiJ9.c2ln", 1, 0, forbidden, 0}}},
		`rateLimit: {capacity: 1, refillRate: 1, refillPeriod: 1h, sourceCriterion: {requestJWTClaim: roles, missingSource: deny}}`, nil},
	{recipe{"cookies", []recipeStep{{"GET /, Cookie: session=a; session=b", 1, 0, forbidden, 0}, {"GET /, Cookie: session=a; x=b", 2, 1, tooMany, 0}}},
		`rateLimit: {capacity: 1, refillRate: 1, refillPeriod: 1h, sourceCriterion: {requestCookieName: session, missingSource: deny}}`, nil},
	{recipe{"networks", []recipeStep{{"GET /, from 127.0.0.9", 3, 3, 0, 0}, {"GET /", 2, 1, tooMany, 0}}},
		`rateLimit: {capacity: 1, refillRate: 1, refillPeriod: 1h, tiers: {us: {unlimited: true, match: {clientIPs: "2001:db8::/32,::1,127.0.0.9"}}}}`, nil},
	{recipe{"dry", []recipeStep{{"GET /?status=401", 9, 9, 0, 0}}},
		`rateLimit: {capacity: 9, refillRate: 1, refillPeriod: 1h, dryRun: true, penalty: {refusals: 2}, limits: {logins: {capacity: 1, chargeStatus: 401}}}`, nil},
	{recipe{"headers-of-refusals", []recipeStep{{"GET /", 3, 1, tooMany, 0}}},
		`rateLimit: {capacity: 1, refillRate: 1, refillPeriod: 1h, responseHeaders: both, responseHeadersOn: refused}`, nil},
	{recipe{"problem", []recipeStep{{"GET /", 3, 1, tooMany, 0}}},
		`{rateLimit: {capacity: 5, refillRate: 1, refillPeriod: 1h, limits: {small: {capacity: 1}}}, answers: {format: problem, rateLimited: {body: "limit {limit}"}}}`, nil},

	{recipe{name: "lower-case"}, `rateLimit: {limits: {a: {capacity: 2, match: {methods: [post]}}}}`, []string{
		`rateLimit.limits.a.match.methods: "post" is not a method in upper case, such as "POST"`}},
	{recipe{name: "many-faults"}, `rateLimit: {capacity: lots, limits: {default: {capacity: 1}, b: {capacty: 2}}, tiers: {b: {deny: true, capacity: 3}}, dryRun: maybe, responseHeaders: all}`, []string{
		`rateLimit.capacity: "lots"`, `rateLimit.limits.default: this is the name of the block's own limit`, `rateLimit.limits.b.capacty`,
		`rateLimit.tiers.b: a tier that is unlimited or denied has no numbers`, `rateLimit.tiers.b: the limit "b" has this name too`, `rateLimit.dryRun: "maybe"`, `rateLimit.responseHeaders: "all"`}},
	{recipe{name: "misplaced"}, `rateLimit: {match: {paths: [/a]}, limits: {a: {capacity: 2, deny: true, dryRun: true}}, tiers: {t: {limits: {x: {capacity: 1}}}}}`, []string{
		`rateLimit.match`, `rateLimit.limits.a.deny`, `rateLimit.limits.a.dryRun`, `rateLimit.tiers.t.limits`}},
}

// TestOdd_limitsInAFile and TestOdd_limitsAsLabels give them to Traefik. The API shows each as enabled, or names all that is wrong with it.
func TestOdd_limitsInAFile(t *testing.T) {
	t.Parallel()
	dynamic, routers, middlewares := limitsFolder(t), block{}, block{}
	for _, odd := range oddLimits {
		middlewares[odd.name] = block{"plugin": block{"resilience": odd.block(t)}}
		routers[odd.name] = block{
			"rule": "Host(`" + odd.name + ".example`)", "entryPoints": []string{"web"}, "middlewares": []string{odd.name}, "service": "status",
		}
	}
	writeYAML(t, filepath.Join(dynamic, "odd.yml"), block{"http": block{"routers": routers, "middlewares": middlewares}})
	requireOdd(t, startTraefik(t, options{dynamic: dynamic}), "file")
}

func TestOdd_limitsAsLabels(t *testing.T) {
	t.Parallel()
	tags := []string{"traefik.enable=true"}
	for _, odd := range oddLimits {
		router := "traefik.http.routers." + odd.name + "."
		tags = append(tags, router+"rule=Host(`"+odd.name+".example`)", router+"entryPoints=web", router+"middlewares="+odd.name, router+"service=status@file")
		tags = append(tags, labelsOf("traefik.http.middlewares."+odd.name+".plugin.resilience.", odd.block(t))...)
	}
	g := startTraefik(t, options{dynamic: limitsFolder(t), change: func(static map[string]any) {
		static["providers"].(map[string]any)["consulCatalog"] = block{"endpoint": block{"address": catalogueOf(t, tags)}, "exposedByDefault": false}
	}})
	requireOdd(t, g, "consulcatalog")
}

func (o oddLimit) block(t *testing.T) block {
	t.Helper()
	b := block{}
	require.NoError(t, yaml.Unmarshal([]byte(o.plugin), &b), o.name)
	return b
}

func requireOdd(t *testing.T, g *traefik, provider string) {
	t.Helper()
	for _, odd := range oddLimits {
		t.Run(odd.name, func(t *testing.T) {
			var shown struct {
				Status string
				Error  []string
			}
			loaded := func() bool {
				response, err := client.Get("http://" + g.api + "/api/http/middlewares/" + odd.name + "@" + provider)
				if err != nil {
					return false
				}
				response.Body.Close()
				return response.StatusCode == http.StatusOK
			}
			require.Eventually(t, loaded, soon, 20*time.Millisecond)
			getJSON(t, "http://"+g.api+"/api/http/middlewares/"+odd.name+"@"+provider, &shown)
			if odd.errors == nil {
				require.Equal(t, "enabled", shown.Status, shown.Error)
				odd.follow(t, g)
				return
			}
			require.Equal(t, "disabled", shown.Status)
			for _, part := range odd.errors {
				require.Contains(t, strings.Join(shown.Error, "\n"), part)
			}
			require.Equal(t, http.StatusNotFound, askRecipe(t, g, odd.name, "GET /", 0).status)
		})
	}
	limited := askRecipe(t, g, "problem", "GET /", 0)
	require.Equal(t, "limit small", limited.body, fmt.Sprint(limited.header))
	require.Equal(t, `"default";r=0;t=`, askRecipe(t, g, "headers-of-refusals", "GET /", 0).header.Get("RateLimit")[:len(`"default";r=0;t=`)])
}
