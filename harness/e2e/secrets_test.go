package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// marked is a password that stands out wherever it is. Its parts must not show either.
const marked = "marked pa55word-5f3a9c\"'%s<&\\"

// traces are what of the password a log might hold, as it is or in another form of text.
var traces = []string{"marked pa55", "pa55word", "5f3a9c"}

// spilling collects everything that a gateway outputs.
type spilling struct {
	*traefik
	told []string
}

func (s *spilling) hear(what string) { s.told = append(s.told, what) }

// visit hears an answer, header and all.
func (s *spilling) visit(url string) int {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(s.t, err)
	r := send(request)
	require.NoError(s.t, r.err)
	var header strings.Builder
	r.header.Write(&header)
	s.hear(url + ": " + header.String() + r.body)
	return r.status
}

// visitAll hears the whole API, the metrics, and the profiles.
func (s *spilling) visitAll() {
	for _, path := range []string{
		"/api/rawdata", "/api/overview", "/api/version", "/api/entrypoints", "/api/http/routers", "/api/http/services",
		"/api/http/middlewares", "/api/http/middlewares/gateway@file", "/metrics", "/debug/vars", "/debug/pprof/cmdline",
		"/debug/pprof/goroutine?debug=2",
	} {
		require.Equal(s.t, http.StatusOK, s.visit("http://"+s.api+path), path)
	}
}

// walk has the gateway do all that it does: let pass, limit, fail, open, probe and close.
func (s *spilling) walk() {
	for range 3 {
		s.visit(s.url("/proxy/fail"))
	}
	s.visit(s.url("/proxy/ok"))
	time.Sleep(bothReset + 50*time.Millisecond)
	for range 25 {
		s.visit(s.url("/proxy/ok"))
	}
}

// leaks returns where what was told or logged holds the password.
func (s *spilling) leaks() (leaks []string) {
	s.visitAll()
	for _, text := range append(s.told, s.log.String()) {
		for _, trace := range traces {
			if at := strings.Index(text, trace); at >= 0 {
				leaks = append(leaks, text[max(0, at-100):min(len(text), at+100)])
			}
		}
	}
	return leaks
}

func (s *spilling) requireSilence() {
	s.t.Helper()
	require.Empty(s.t, s.leaks())
	require.Contains(s.t, s.log.String(), `"level":"debug"`)
}

func startSpilling(t *testing.T, plugin block, env ...string) *spilling {
	t.Helper()
	return startSpillingFrom(t, t.TempDir(), plugin, env...)
}

func startSpillingFrom(t *testing.T, dynamic string, plugin block, env ...string) *spilling {
	t.Helper()
	writeDynamic(t, dynamic, plugin)
	withGauges := gauges(t, dynamic)
	g := startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, env: env, change: func(static map[string]any) {
		withGauges(static)
		gateway.Set(static, "DEBUG", "log", "level")
	}})
	return &spilling{traefik: g}
}

func TestSecrets_aPasswordIsNeverShown(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(marked+"\n"), 0o600))
	for _, source := range []struct {
		name  string
		redis block
		env   []string
	}{
		{"from the environment", block{"passwordEnv": "MARKED"}, []string{"MARKED=" + marked}},
		{"from a file", block{"passwordFile": file}, nil},
	} {
		redisWith := func(more block) block {
			redis := maps.Clone(source.redis)
			maps.Copy(redis, more)
			return redis
		}
		t.Run(source.name+", where all is well, and where Redis goes", func(t *testing.T) {
			server := redistest.Start(t, "--requirepass", marked)
			server.Login("", marked)
			s := startSpilling(t, both(redisWith(block{"address": server.Addr(), "timeout": patience, "dialTimeout": patience})), source.env...)
			s.walk()
			require.Equal(t, int64(1), server.Int("EXISTS", breakerKey), "the password was used")
			server.Kill()
			require.Eventually(t, func() bool {
				s.walk()
				return len(s.events("redis unavailable")) == 1
			}, 10*time.Second, 10*time.Millisecond)
			server.Run()
			require.Eventually(t, func() bool { return len(s.events("redis is back")) == 1 }, 5*time.Second, 10*time.Millisecond)
			server.Do("CONFIG", "SET", "requirepass", "another")
			server.Login("", "another")
			server.Do("CLIENT", "KILL", "TYPE", "normal")
			require.Eventually(t, func() bool {
				s.walk()
				return len(s.events("redis unavailable")) == 2
			}, 10*time.Second, 10*time.Millisecond)
			require.Contains(t, s.events("redis unavailable")[1]["reason"], "WRONGPASS")
			s.requireSilence()
		})
		t.Run(source.name+", where nothing works", func(t *testing.T) {
			reasons := map[string]string{}
			middlewares := block{}
			add := func(name, reason string, more block) {
				reasons[name] = reason
				middlewares[name] = block{"plugin": block{"resilience": both(redisWith(more))}}
			}
			troubled := func(name, reason string, more block, args ...string) {
				more["address"] = redistest.Start(t, args...).Addr()
				add(name, reason, more)
			}
			troubled("wrong", "WRONGPASS", block{}, "--requirepass", "another")
			troubled("needless", "redis has none configured", block{})
			troubled("rightless", "NOPERM", block{"username": "default"}, "--user", "default", "on", ">"+marked, "~*", "+auth")
			troubled("unknown", "WRONGPASS", block{"username": "nobody"}, "--requirepass", marked)
			troubled("plain", " ", block{"tls": block{"enabled": true}}, "--requirepass", marked)
			for i, wrong := range []block{
				{"adress": "127.0.0.1:1"}, {"address": "redis"}, {"address": "127.0.0.1:1", "db": "x", "timeout": "1"},
				{"address": "127.0.0.1:1", "tls": block{"enabled": true, "ca": file}},
				{"address": "127.0.0.1:1", "tls": block{"enabled": true, "cert": file, "key": file}},
				{"address": "127.0.0.1:1", "password": "x"},
			} {
				add(fmt.Sprint("misread", i), "misread", wrong)
			}
			routers := block{}
			for name := range middlewares {
				routers[name] = block{
					"rule": "Path(`/" + name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "noop@internal",
				}
			}
			dynamic := t.TempDir()
			writeYAML(t, filepath.Join(dynamic, "wrong.yml"), block{"http": block{"routers": routers, "middlewares": middlewares}})
			s := startSpillingFrom(t, dynamic, block{"health": block{}}, source.env...)
			for name, reason := range reasons {
				require.Equal(t, http.StatusOK, s.visit("http://"+s.api+"/api/http/middlewares/"+name+"@file"))
				if reason == "misread" {
					require.Equal(t, http.StatusNotFound, s.visit(s.url("/"+name)))
					continue
				}
				require.Equal(t, passed, s.visit(s.url("/"+name)), "Redis is away, and limits are local")
				require.Eventually(t, func() bool { return strings.Contains(s.whyAway(name), reason) }, 5*time.Second, 10*time.Millisecond, name)
			}
			s.requireSilence()
		})
	}
}

// whyAway returns why a middleware's Redis is unavailable, as the log says.
func (s *spilling) whyAway(name string) string {
	for _, event := range s.events("redis unavailable") {
		if event["middleware"] == name {
			return event["reason"] + " "
		}
	}
	return ""
}

// That one is told of in the documentation, and shows that the search finds what there is to be found.
func TestSecrets_traefikShowsAPasswordInTheConfiguration(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", marked)
	s := startSpilling(t, both(block{"address": server.Addr(), "password": marked}))
	require.NotEmpty(t, s.leaks())
	require.Len(t, s.events("redis.password can be read in Traefik's API; prefer redis.passwordEnv or redis.passwordFile"), 1)
}

func TestSecrets_theBundleContainsNone(t *testing.T) {
	bundle := os.DirFS(filepath.Join(root(t), "dist", "plugins-local"))
	files := 0
	require.NoError(t, fs.WalkDir(bundle, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		require.False(t, strings.HasPrefix(filepath.Base(path), ".env"), path)
		content, err := fs.ReadFile(bundle, path)
		for _, trace := range append([]string{"PRIVATE KEY"}, traces...) {
			require.NotContains(t, string(content), trace, path)
		}
		return err
	}))
	require.Greater(t, files, 20)
}
