package migration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
)

// nginxLoad is a row of the figures of nginx and the plugin.
type nginxLoad struct {
	row     string
	nginx   []string // old and new texts in the example before, in turn
	ours    block    // changes of the example after
	skip    bool     // the plugin has nothing like it
	measure func(t *testing.T, url string) float64
}

// startNginx starts an nginx with a configuration, and waits until it listens on an address.
func startNginx(t *testing.T, configuration, address string) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/nginx") // not in the path of users
	}
	require.NoError(t, err, "nginx is missing; run: .ci/install nginx")
	dir := t.TempDir()
	const frame = `daemon off;
master_process off;
error_log stderr;
pid nginx.pid;
events { worker_connections 4096; }
http {
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
%s
}
`
	file := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, frame, configuration), 0o644))
	log := &gateway.Log{}
	process, err := gateway.Start("nginx", exec.Command(program, "-p", dir, "-c", file), log)
	require.NoError(t, err)
	t.Cleanup(process.Stop)
	listens := func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	require.Eventually(t, listens, 10*time.Second, 20*time.Millisecond, "%s", log)
}

// TestNginx_sideBySide loads the page's examples in nginx and in the real Traefik and compares its figures.
func TestNginx_sideBySide(t *testing.T) {
	t.Parallel()
	text := readPage(t, "docs/migration/nginx.md")
	before, after := text.section(t, "## Before").code(t, "nginx"), with(text.section(t, "## After").middleware(t), patience)
	table := text.section(t, "## Measured").table(t)
	pass := func(n int) func(t *testing.T, url string) float64 {
		return func(_ *testing.T, url string) float64 { return send(atOnce(n), same(url)).passed() }
	}
	slowest := func(_ *testing.T, url string) float64 {
		return float64(send(atOnce(60), same(url)).slowest.Milliseconds())
	}
	burst := under(pluginLimit, block{"capacity": 5, "refillRate": 2, "refillPeriod": "1s"})
	loads := []nginxLoad{
		{row: "200 requests at once: those that pass", measure: pass(200)},
		{
			row: "the bucket is emptied, the client waits 7 s and sends 200 more: those that pass",
			measure: func(t *testing.T, url string) float64 {
				pass(200)(t, url)
				time.Sleep(7 * time.Second)
				return pass(200)(t, url)
			},
		},
		{
			row:   "`rate=5r/s` without `burst`, `capacity: 1`: of 40 requests, one every 200 ms, but each second one 40 ms early, those that pass",
			nginx: []string{"12r/m", "5r/s", "burst=50 nodelay", ""},
			ours:  under(pluginLimit, block{"capacity": 1, "refillRate": 5, "refillPeriod": "1s"}),
			measure: func(_ *testing.T, url string) float64 {
				return send(unevenly(40, 200*time.Millisecond, 40*time.Millisecond), same(url)).passed()
			},
		},
		{
			row:   "`rate=2r/s burst=4`, `capacity: 5`: of 60 requests at once, those that pass",
			nginx: []string{"12r/m", "2r/s", "burst=50 nodelay", "burst=4"}, ours: burst, measure: pass(60),
		},
		{
			row:   "the same: milliseconds until the slowest answer",
			nginx: []string{"12r/m", "2r/s", "burst=50 nodelay", "burst=4"}, ours: burst, measure: slowest,
		},
		{
			row:   "`rate=2r/s burst=4 delay=2`: milliseconds until the slowest answer",
			nginx: []string{"12r/m", "2r/s", "burst=50 nodelay", "burst=4 delay=2"}, skip: true, measure: slowest,
		},
		{
			row:   "the key is `$http_x_api_key`, and 200 requests have none: those that pass",
			nginx: []string{"$binary_remote_addr", "$http_x_api_key"},
			ours:  under(pluginLimit, block{"sourceCriterion.requestHeaderName": "X-Api-Key"}), measure: pass(200),
		},
		{
			row: "answers with `Retry-After`, of 10 that are refused",
			measure: func(t *testing.T, url string) float64 {
				pass(200)(t, url)
				announced := 0.0
				for range 10 {
					response, err := client.Get(url)
					require.NoError(t, err)
					response.Body.Close()
					require.Equal(t, http.StatusTooManyRequests, response.StatusCode)
					if response.Header.Get("Retry-After") != "" {
						announced++
					}
				}
				return announced
			},
		},
	}
	require.Len(t, table, len(loads), "rows that no test measures")
	middlewares := map[string]block{}
	for i, l := range loads {
		middlewares[fmt.Sprint("load", i)] = with(after, l.ours)
	}
	stack := startStack(t, 1, middlewares)
	configuration, urls := "", []string{}
	for i, l := range loads {
		address, err := gateway.FreeAddress()
		require.NoError(t, err)
		edits := []string{"clients", fmt.Sprint("clients", i), "listen 80;", "listen " + address + ";", "http://shop:8081", stack.service}
		for j, text := range append(edits, l.nginx...) {
			require.True(t, j%2 == 1 || strings.Contains(before, text), "the example lacks %q", text)
		}
		configuration += strings.NewReplacer(append(edits, l.nginx...)...).Replace(before)
		urls = append(urls, "http://"+address+"/")
	}
	startNginx(t, configuration, strings.Trim(urls[len(urls)-1], "htp:/"))
	for i, l := range loads {
		cells := table[l.row]
		require.NotNil(t, cells, l.row)
		check := func(column, url string) {
			t.Run(l.row+": "+column, func(t *testing.T) {
				t.Parallel()
				got := l.measure(t, url)
				require.True(t, matches(t, cells[column], got), "the page states %s, measured were %.4g", cells[column], got)
			})
		}
		check("nginx", urls[i])
		if l.skip {
			require.Equal(t, none, cells["The plugin"])
			continue
		}
		check("The plugin", fmt.Sprintf("%s/load%d/a", stack.gateways[0], i))
	}
}
