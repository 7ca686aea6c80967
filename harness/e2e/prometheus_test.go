package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

func monitoring(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(root(t), "deploy", "monitoring", name)
}

// prometheus is one that scrapes gateways.
type prometheus struct {
	t       *testing.T
	address string
}

// startPrometheus starts a Prometheus with our alerts, which wait for a second where ours wait for minutes.
func startPrometheus(t *testing.T, token string, gateways ...*traefik) *prometheus {
	t.Helper()
	folder := t.TempDir()
	rules, err := os.ReadFile(monitoring(t, "alerts.yml"))
	require.NoError(t, err)
	quick := regexp.MustCompile(`(?m)^        for: .*$`).ReplaceAllString(string(rules), "        for: 1s")
	quick = strings.ReplaceAll(quick, "[5m]", "[10s]")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "alerts.yml"), []byte(quick), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "token"), []byte(token), 0o600))
	targets := []string{}
	for _, g := range gateways {
		targets = append(targets, g.api)
	}
	writeYAML(t, filepath.Join(folder, "prometheus.yml"), block{
		"global":     block{"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"},
		"rule_files": []string{"alerts.yml"},
		"scrape_configs": []block{{
			"job_name": "resilience", "metrics_path": "/resilience/metrics", "authorization": block{"credentials_file": "token"},
			"static_configs": []block{{"targets": targets}},
		}},
	})
	p := &prometheus{t: t, address: freeAddress(t)}
	command := exec.Command("prometheus", "--config.file="+filepath.Join(folder, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(folder, "data"),
		"--web.listen-address="+p.address, "--log.level=error")
	log := &gateway.Log{}
	process, err := gateway.Start("Prometheus", command, log)
	require.NoError(t, err, "make prometheus")
	t.Cleanup(process.Stop)
	require.Eventually(t, func() bool {
		response, err := client.Get("http://" + p.address + "/-/ready")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == 200
	}, soon, 50*time.Millisecond, log.String())
	return p
}

// sum returns the sum of a query's samples.
func (p *prometheus) sum(query string) float64 {
	p.t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Value []any }
		}
	}
	getJSON(p.t, "http://"+p.address+"/api/v1/query?query="+url.QueryEscape(query), &answer)
	sum := 0.0
	for _, one := range answer.Data.Result {
		var n float64
		fmt.Sscan(one.Value[1].(string), &n)
		sum += n
	}
	return sum
}

// firing returns the names of the alerts that fire.
func (p *prometheus) firing() map[string]bool {
	p.t.Helper()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	getJSON(p.t, "http://"+p.address+"/api/v1/alerts", &answer)
	names := map[string]bool{}
	for _, one := range answer.Data.Alerts {
		if one.State == "firing" {
			names[one.Labels["alertname"]] = true
		}
	}
	return names
}

func TestPrometheus_alertsFireAndResolve(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	up := startUpstream(t)
	plugin := block{
		"redis":          block{"address": server.Addr(), "timeout": "200ms", "dialTimeout": patience},
		"rateLimit":      block{"capacity": 40, "refillRate": 1, "refillPeriod": "1h"},
		"circuitBreaker": block{"failureThreshold": 3, "resetTimeout": "4s", "halfOpenSuccessThreshold": 1},
	}
	var gateways []*traefik
	for range 2 {
		gateways = append(gateways, startWithAdmin(t, up, plugin, block{"tokenEnv": "ADMIN_TOKEN"}, "ADMIN_TOKEN="+adminToken))
	}
	p := startPrometheus(t, adminToken, gateways...)
	fires := func(alert string, yes bool) {
		t.Helper()
		require.Eventually(t, func() bool { return p.firing()[alert] == yes }, soon, 100*time.Millisecond, "%s: %t", alert, yes)
	}
	statuses := burst(60, "/proxy/ok", gateways...)
	for decision, status := range map[string]int{"admitted": 200, "limited": 429} {
		query := `sum(resilience_requests_total{middleware="gateway",decision="` + decision + `"})`
		require.Eventually(t, func() bool { return p.sum(query) == float64(statuses[status]) }, soon, 100*time.Millisecond,
			"%s: %d in %v", decision, statuses[status], statuses)
	}
	require.Equal(t, up.stats().Requests, statuses[200])
	require.Equal(t, 2.0, p.sum(`up{job="resilience"}`))
	require.Empty(t, p.firing()["ResilienceRedisUnavailable"])

	server.Kill()
	gateways[0].get("/proxy/ok")
	gateways[1].get("/proxy/ok")
	fires("ResilienceRedisUnavailable", true)
	server.Run()
	fires("ResilienceRedisUnavailable", false)

	for range 3 {
		gateways[0].get("/proxy/fail")
	}
	fires("ResilienceCircuitOpen", true)
	require.Eventually(t, func() bool { return gateways[0].get("/proxy/ok").status == 200 }, soon, 100*time.Millisecond)
	fires("ResilienceCircuitOpen", false)
	gateways[1].process.Stop()
	fires("ResilienceGatewayDown", true)
}

// exposed returns the metrics of a gateway under load, as text.
func exposed(t *testing.T) string {
	t.Helper()
	server := redistest.Start(t)
	g := startWithAdmin(t, startUpstream(t), block{
		"redis": redisBlock(server), "rateLimit": block{"capacity": 10, "refillRate": 1, "limits": block{"hourly": block{"capacity": 1000}}},
		"circuitBreaker": block{"failureThreshold": 3, "scope": "host", "minGateways": 2},
	}, block{"path": "/resilience"})
	burst(20, "/proxy/ok", g)
	return g.admin("GET", "/metrics").body
}

func TestPrometheus_theChecksOfPromtool(t *testing.T) {
	t.Parallel()
	text := exposed(t)
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	out, err := check.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Empty(t, string(out))
	out, err = exec.Command("promtool", "check", "rules", monitoring(t, "alerts.yml")).CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.Command("promtool", "check", "config", "--syntax-only", monitoring(t, "prometheus.yml")).CombinedOutput()
	require.NoError(t, err, string(out))
}

// TestPrometheus_everyAlertFiresAndResolves runs Prometheus's own tests of the alerts, which have each of them quiet, firing and resolved.
func TestPrometheus_everyAlertFiresAndResolves(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("promtool", "test", "rules", monitoring(t, "alerts_test.yml")).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "SUCCESS")
	var rules struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	loadYAML(t, monitoring(t, "alerts.yml"), &rules)
	var tests struct {
		Tests []struct {
			Rules []struct {
				Alert  string `yaml:"alertname"`
				Alerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	loadYAML(t, monitoring(t, "alerts_test.yml"), &tests)
	seen := map[string]string{} // by alert, a letter for each time
	for _, test := range tests.Tests {
		for _, rule := range test.Rules {
			if len(rule.Alerts) > 0 {
				seen[rule.Alert] += "F"
			} else {
				seen[rule.Alert] += "q"
			}
		}
	}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			require.Regexp(t, "^(q+F+q+)+$", seen[rule.Alert], rule.Alert)
			delete(seen, rule.Alert)
		}
	}
	require.Empty(t, seen, "alerts that do not exist")
}

func loadYAML(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into))
}

// TestPrometheus_queriesNameMetricsThatExist compares each metric that the alerts and the dashboard name with those of a gateway.
func TestPrometheus_queriesNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, name := range regexp.MustCompile(`(?m)^(resilience_\w+)[ {]`).FindAllStringSubmatch(exposed(t), -1) {
		there[name[1]] = true
	}
	var queries []string
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	content, err := os.ReadFile(monitoring(t, "alerts.yml"))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, &rules))
	operations, err := os.ReadFile(filepath.Join(root(t), "docs", "operations.md"))
	require.NoError(t, err)
	for _, rule := range rules.Groups[0].Rules {
		queries = append(queries, rule.Expr)
		require.Contains(t, string(operations), "#### "+rule.Alert+"\n", "what to do about it")
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Query string } }
	}
	content, err = os.ReadFile(monitoring(t, "grafana/dashboards/resilience.json"))
	require.NoError(t, err)
	require.NoError(t, json.NewDecoder(bytes.NewReader(content)).Decode(&board))
	for _, panel := range board.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	queries = append(queries, board.Templating.List[0].Query)
	named := 0
	for _, query := range queries {
		for _, name := range regexp.MustCompile(`resilience_\w+`).FindAllString(query, -1) {
			require.True(t, there[name], "%s in %s", name, query)
			named++
		}
	}
	require.Greater(t, named, 20)
}

// TestMonitoring_theClusterHasTheSame compares what the component for clusters holds with the files of deploy/monitoring.
func TestMonitoring_theClusterHasTheSame(t *testing.T) {
	t.Parallel()
	load := func(name string) map[string]any {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		var loaded map[string]any
		require.NoError(t, yaml.Unmarshal(content, &loaded))
		return loaded
	}
	component := filepath.Join(root(t), "k8s", "components", "monitoring")
	require.Equal(t, load(monitoring(t, "alerts.yml")), load(filepath.Join(component, "rules.yaml"))["spec"])
	require.Equal(t, load(monitoring(t, "grafana/dashboards/resilience.json")), load(filepath.Join(component, "resilience.json")))
}
