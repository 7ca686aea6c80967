// Package e2e tests the plugin in the real Traefik, before a real upstream, with a real Redis.
package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// block is a part of a configuration.
type block = map[string]any

func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../..")
	require.NoError(t, err)
	return path
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := gateway.FreeAddress()
	require.NoError(t, err)
	return address
}

// upstream is a dummy upstream that was started for a test.
type upstream struct {
	t       *testing.T
	address string
	process *gateway.Process
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{t: t, address: freeAddress(t)}
	process, err := gateway.StartUpstream(root(t), u.address, io.Discard)
	require.NoError(t, err)
	t.Cleanup(process.Stop)
	u.process = process
	return u
}

func (u *upstream) url() string { return "http://" + u.address }

// stats is what the upstream says of the requests that reached it.
type stats struct {
	Requests int            `json:"requests"`
	ByPath   map[string]int `json:"byPath"`
	InFlight struct {
		Now int `json:"now"`
		Max int `json:"max"`
	} `json:"inFlight"`
}

func (u *upstream) stats() stats {
	u.t.Helper()
	var s stats
	getJSON(u.t, u.url()+"/stats", &s)
	return s
}

func (u *upstream) post(path string) {
	u.t.Helper()
	response, err := http.Post(u.url()+path, "", nil)
	require.NoError(u.t, err)
	response.Body.Close()
	require.Equal(u.t, http.StatusOK, response.StatusCode, path)
}

// traefik is a gateway that was started for a test.
type traefik struct {
	t       *testing.T
	web     string
	api     string
	log     *gateway.Log
	process *gateway.Process
}

// options of a gateway. Of plugin and env one is used: a configuration of the middleware, or the environment that our own
// dynamic files read.
type options struct {
	upstream *upstream
	plugin   block
	env      []string
	dynamic  string // folder; default: ours, with patience
	change   func(static map[string]any)
	workDir  string // that holds plugins-local; default: dist
	panics   bool   // a handler below the middleware does, on purpose
}

func startTraefik(t *testing.T, o options) *traefik {
	t.Helper()
	g := &traefik{t: t, web: freeAddress(t), api: freeAddress(t), log: &gateway.Log{}}
	env := o.env
	if o.upstream != nil {
		env = append(env, "UPSTREAM_URL="+o.upstream.url())
	}
	dynamic := o.dynamic
	switch {
	case o.plugin != nil:
		dynamic = t.TempDir()
		writeDynamic(t, dynamic, o.plugin)
	case dynamic == "":
		dynamic = t.TempDir()
		writePatient(t, dynamic)
	}
	starter := &gateway.Traefik{
		Root: root(t), Dir: t.TempDir(), WorkDir: o.workDir, Web: g.web, API: g.api, Dynamic: dynamic, Env: env, Log: g.log,
		Change: o.change,
	}
	process, err := starter.Start()
	require.NoError(t, err, g.log.String())
	t.Cleanup(func() {
		client.CloseIdleConnections() // Traefik waits for some of them
		process.Stop()
		if !o.panics {
			require.NotContains(t, g.log.String(), "panic:", "the gateway's log")
		}
	})
	g.process = process
	require.Eventually(t, func() bool { return g.get("/health").status == http.StatusOK }, 10*time.Second, 20*time.Millisecond)
	return g
}

// writeDynamic writes our dynamic files into a folder, with another configuration of the middleware in them.
func writeDynamic(t *testing.T, folder string, plugin block) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "dynamic", "*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		if filepath.Base(file) == "admin.yml" { // it registers the gateway in Redis; writeAdmin writes it
			continue
		}
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		if filepath.Base(file) == "middlewares.yml" {
			content, err = yaml.Marshal(block{"http": block{"middlewares": block{
				"gateway":     block{"plugin": block{"resilience": plugin}},
				"health":      block{"plugin": block{"resilience": block{"health": block{"path": "/health"}}}},
				"strip-proxy": block{"stripPrefix": block{"prefixes": []string{"/proxy"}}},
				"wraps":       wraps,
			}}})
			require.NoError(t, err)
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, filepath.Base(file)), content, 0o644))
	}
}

// writePatient writes our dynamic files into a folder as they are, but with patience for Redis.
func writePatient(t *testing.T, folder string) {
	t.Helper()
	writeDynamic(t, folder, nil)
	const key = "passwordEnv: REDIS_PASSWORD\n"
	content, err := os.ReadFile(filepath.Join(root(t), "dynamic", "middlewares.yml"))
	require.NoError(t, err)
	require.Contains(t, string(content), key)
	changed := strings.Replace(string(content), key, key+"            timeout: "+patience+"\n            dialTimeout: "+patience+"\n", 1)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "middlewares.yml"), []byte(changed), 0o644))
}

// writeRows writes the dynamic files of a gateway with many middlewares and returns their folder. /<name> is a route to
// the upstream's /ok through the middleware of that name, /plain one without any, and below both, /fail and /slow are
// routes to those.
func writeRows(t *testing.T, plugins map[string]block) string {
	t.Helper()
	routers, middlewares := block{}, block{}
	for _, path := range []string{"ok", "fail", "slow"} {
		middlewares[path] = block{"replacePath": block{"path": "/" + path}}
		below := "/" + path
		if path == "ok" {
			below = ""
		}
		route := func(name string, middlewares ...string) {
			routers[name+"-"+path] = block{
				"rule": "Path(`/" + name + below + "`)", "entryPoints": []string{"web"}, "middlewares": middlewares, "service": "upstream",
			}
		}
		route("plain", path)
		for name := range plugins {
			route(name, name, path)
		}
	}
	for name, plugin := range plugins {
		middlewares[name] = block{"plugin": block{"resilience": plugin}}
	}
	folder := t.TempDir()
	writeDynamic(t, folder, block{"rateLimit": block{"capacity": 1}})
	content, err := yaml.Marshal(block{"http": block{"routers": routers, "middlewares": middlewares}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "rows.yml"), content, 0o644))
	return folder
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 200},
}

func (g *traefik) url(path string) string { return "http://" + g.web + path }

func (g *traefik) get(path string) reply {
	request, err := http.NewRequest(http.MethodGet, g.url(path), nil)
	if err != nil {
		return reply{err: err}
	}
	return send(request)
}

func send(request *http.Request) reply { return sendBy(client, request) }

func sendBy(client *http.Client, request *http.Request) reply {
	response, err := client.Do(request)
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return reply{status: response.StatusCode, header: response.Header, body: string(body), err: err}
}

// burst sends n requests at once, to the gateways in turn, and counts the answers by their status.
func burst(n int, path string, gateways ...*traefik) map[int]int {
	counts := map[int]int{}
	var mu sync.Mutex
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			r := gateways[i%len(gateways)].get(path)
			mu.Lock()
			defer mu.Unlock()
			counts[r.status]++
		})
	}
	done.Wait()
	return counts
}

func getJSON(t *testing.T, url string, target any) {
	t.Helper()
	response, err := client.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode, url)
	require.NoError(t, json.NewDecoder(response.Body).Decode(target))
}

// soon is how long a test waits at most for what takes milliseconds on a machine at rest.
const soon = 20 * time.Second

// patience is redis.timeout and redis.dialTimeout where a test is not about them: with the defaults, a busy machine would have
// a gateway limit by itself now and then, which is as it should be, and not what the test asks for.
const patience = "5s"

// redisEnv is the environment that makes our dynamic files use the server.
func redisEnv(server *redistest.Server) []string {
	return []string{"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + server.Port()}
}

func redisBlock(server *redistest.Server) block {
	return block{"address": server.Addr(), "timeout": patience, "dialTimeout": patience}
}

// events returns the lines of the log with this message, as fields.
func (g *traefik) events(message string) []map[string]string {
	var found []map[string]string
	for _, line := range strings.Split(g.log.String(), "\n") {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil || fields["message"] != message {
			continue
		}
		texts := map[string]string{}
		for name, value := range fields {
			texts[name] = fmt.Sprint(value)
		}
		found = append(found, texts)
	}
	return found
}
