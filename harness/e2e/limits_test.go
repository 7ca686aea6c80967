package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// limitScenario is a middleware of each group of what puts requests under plans, and what its clients get. Nothing comes back meanwhile.
type limitScenario struct {
	recipe
	limits block // in rateLimit
}

var limitScenarios = []limitScenario{
	{recipe{"several", []recipeStep{
		{"GET /, from 127.0.0.2", 6, 4, tooMany, 0}, // hourly
		{"GET /, from 127.0.0.3", 6, 4, tooMany, 0},
		{"GET /, from 127.0.0.4", 6, 1, tooMany, 0}, // everyone
		{"GET /, from 127.0.0.5", 6, 0, tooMany, 0},
	}}, block{"limits": block{"hourly": block{"capacity": 4}, "everyone": block{"capacity": 10, "sourceCriterion": block{"all": true}}}}},
	{recipe{"sources", []recipeStep{
		{"GET /, X-Tenant: a", 5, 3, tooMany, 0},
		{"POST /, X-Tenant: a", 5, 3, tooMany, 0},
		{"GET /, X-Tenant: b", 3, 3, 0, 0},
		{"GET /", 5, 0, forbidden, 0},
	}}, block{"limits": block{"tenant": block{"capacity": 3, "sourceCriterion": block{
		"requestHeaderName": "X-Tenant", "requestMethod": true, "missingSource": "deny"}}}}},
	{recipe{"matches", []recipeStep{
		{"GET /search/a, X-Kind: slow query", 4, 2, tooMany, 0},
		{"GET /search/a, X-Kind: quick", 4, 4, 0, 0},
		{"GET /other, X-Kind: slow query", 4, 4, 0, 0},
		{"POST /search/a, X-Kind: slow query", 4, 2, tooMany, 0}, // of the block's own limit
	}}, block{"limits": block{"search": block{"capacity": 2, "match": block{
		"paths": []string{"/search", "/search/*"}, "methods": []string{"GET", "HEAD"}, "headers": block{"X-Kind": "slow*"}}}}}},
	{recipe{"tiers", []recipeStep{
		{"GET /, from 127.0.0.2", 14, 12, tooMany, 0},
		{"GET /, from 127.7.0.1", 22, 20, tooMany, 0},
		{"GET /, from 127.8.0.1", 50, 50, 0, 0},
		{"GET /, from 127.8.0.1, User-Agent: a badbot/1", 3, 0, forbidden, 0},
	}}, block{"tiers": block{
		"partners": block{"match": block{"clientIPs": []string{"127.7.0.0/16", "127.9.0.1"}}, "capacity": 20},
		"internal": block{"match": block{"clientIPs": []string{"127.8.0.0/16"}}, "unlimited": true},
		"banned":   block{"priority": 10, "match": block{"headers": block{"User-Agent": "*badbot*"}}, "deny": true},
	}}},
	{recipe{"cost", []recipeStep{
		{"GET /, X-Cost: 6", 1, 1, 0, 0},
		{"GET /search/a", 2, 1, tooMany, 0}, // 4
		{"POST /", 1, 0, tooMany, 0},        // 3
		{"GET /", 3, 2, tooMany, 0},
	}}, block{"cost": block{"header": "X-Cost", "max": 6, "methods": block{"POST": 3}, "paths": block{"/search/*": 4}}}},
	{recipe{"statuses", []recipeStep{
		{"POST /login?status=401", 1, 1, 0, 0},
		{"POST /login", 8, 8, 0, 0},
		{"POST /login?status=403", 3, 1, tooMany, 0},
		{"GET /login", 2, 2, 0, 0},
	}}, block{"limits": block{"logins": block{"capacity": 2, "chargeStatus": "401,403", "match": block{
		"paths": []string{"/login"}, "methods": []string{"POST"}}}}}},
	{recipe{"penalty", []recipeStep{{"GET /, from 127.0.0.2", 40, 12, tooMany, 0}, {"GET /, from 127.0.0.3", 12, 12, 0, 0}}},
		block{"penalty": block{"refusals": 5, "time": "1m", "maxTime": "10m"}, "maxDelay": "10ms", "maxDelayed": 5}},
	{recipe{"dry", []recipeStep{{"GET /", 30, 30, 0, 0}}}, block{"dryRun": true}},
}

// rateLimit returns the block of a scenario.
func (s *limitScenario) rateLimit() block {
	whole := block{"capacity": 12, "refillRate": 1, "refillPeriod": "1h"}
	for key, value := range s.limits {
		whole[key] = value
	}
	return whole
}

// TestLimits_inAFile gives each group to Traefik in a file.
func TestLimits_inAFile(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	dynamic, routers, middlewares := limitsFolder(t), block{}, block{}
	for _, scenario := range limitScenarios {
		middlewares[scenario.name] = block{"plugin": block{"resilience": block{"redis": redisBlock(server), "rateLimit": scenario.rateLimit()}}}
		routers[scenario.name] = block{
			"rule": "Host(`" + scenario.name + ".example`)", "entryPoints": []string{"web"}, "middlewares": []string{scenario.name}, "service": "status",
		}
	}
	writeYAML(t, filepath.Join(dynamic, "limits.yml"), block{"http": block{"routers": routers, "middlewares": middlewares}})
	requireLimits(t, startTraefik(t, options{dynamic: dynamic}))
}

// TestLimits_asLabels gives them to Traefik as the tags of a service in a catalogue, which are labels with an equals sign.
func TestLimits_asLabels(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	tags := []string{"traefik.enable=true"}
	for _, scenario := range limitScenarios {
		router := "traefik.http.routers." + scenario.name + "."
		tags = append(tags, router+"rule=Host(`"+scenario.name+".example`)", router+"entryPoints=web", router+"middlewares="+scenario.name, router+"service=status@file")
		tags = append(tags, labelsOf("traefik.http.middlewares."+scenario.name+".plugin.resilience.", block{
			"redis": redisBlock(server), "rateLimit": scenario.rateLimit(),
		})...)
	}
	g := startTraefik(t, options{dynamic: limitsFolder(t), change: func(static map[string]any) {
		static["providers"].(map[string]any)["consulCatalog"] = block{"endpoint": block{"address": catalogueOf(t, tags)}, "exposedByDefault": false}
	}})
	requireLimits(t, g)
}

// limitsFolder returns a folder with our dynamic files and the service of all scenarios.
func limitsFolder(t *testing.T) (folder string) {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(serveStatus))
	t.Cleanup(service.Close)
	folder = t.TempDir()
	writeDynamic(t, folder, block{"health": block{}})
	writeYAML(t, filepath.Join(folder, "status.yml"), block{"http": block{"services": block{
		"status": block{"loadBalancer": block{"servers": []block{{"url": service.URL}}}},
	}}})
	return folder
}

// labelsOf returns a block as labels below a prefix.
func labelsOf(prefix string, b block) (labels []string) {
	for key, value := range b {
		switch value := value.(type) {
		case block:
			labels = append(labels, labelsOf(prefix+key+".", value)...)
		case []string:
			labels = append(labels, prefix+key+"="+strings.Join(value, ","))
		case []any:
			labels = append(labels, prefix+key+"="+strings.Trim(fmt.Sprint(value), "[]"))
		default:
			labels = append(labels, fmt.Sprint(prefix, key, "=", value))
		}
	}
	sort.Strings(labels)
	return labels
}

func requireLimits(t *testing.T, g *traefik) {
	t.Helper()
	for _, scenario := range limitScenarios {
		// An address that the scenario does not use: what this request takes is none of its clients'.
		ready := func() bool {
			return askRecipe(t, g, scenario.name, "GET /ready, from 127.0.0.99", 0).status != http.StatusNotFound
		}
		require.Eventually(t, ready, 10*time.Second, 20*time.Millisecond, scenario.name)
	}
	for _, scenario := range limitScenarios {
		scenario.follow(t, g)
	}
	require.Contains(t, g.log.String(), "rate limit exceeded (dry run)")
	penalised := func() bool {
		seconds, _ := strconv.Atoi(askRecipe(t, g, "penalty", "GET /, from 127.0.0.2", 0).header.Get("Retry-After"))
		return seconds > 0 && seconds <= 60
	}
	require.Eventually(t, penalised, soon, 100*time.Millisecond, "a minute, and not the hours until there is a token")
}
