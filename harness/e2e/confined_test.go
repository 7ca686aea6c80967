package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// TestSecrets_areConfinedByTraefiksEnvironment has middlewares that name files and variables which Traefik's environment does not allow:
// none is read, and their routes are off. Those that it allows work.
func TestSecrets_areConfinedByTraefiksEnvironment(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "s3cret")
	server.Login("", "s3cret")
	base := t.TempDir()
	write := func(path, content string) string {
		path = filepath.Join(base, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	link := func(path, target string) string {
		path = filepath.Join(base, path)
		require.NoError(t, os.Symlink(target, path))
		return path
	}
	outside := write("token", "s3cret\n")
	write("secrets/..2026/password", "s3cret\n")
	link("secrets/..data", "..2026")
	allowed := map[string]block{
		"file":     {"passwordFile": link("secrets/password", "..data/password")},
		"variable": {"passwordEnv": "GATEWAY_REDIS"},
	}
	refused := map[string]block{
		"outside": {"passwordFile": outside},
		"dots":    {"passwordFile": filepath.Join(base, "secrets") + "/../token"},
		"link":    {"passwordFile": link("secrets/out", outside)},
		"environ": {"passwordFile": "/proc/self/environ"},
		"other":   {"passwordEnv": "CLOUD_TOKEN"},
		"ca":      {"tls": block{"enabled": true, "ca": outside}},
		"key":     {"tls": block{"enabled": true, "cert": outside, "key": outside}},
	}
	plugins := map[string]block{}
	for _, rows := range []map[string]block{allowed, refused} {
		for name, redis := range rows {
			redis["address"], redis["timeout"], redis["dialTimeout"] = server.Addr(), patience, patience
			plugins[name] = block{"redis": redis, "rateLimit": block{"capacity": 1}}
		}
	}
	g := startTraefik(t, options{dynamic: writeRows(t, plugins), env: []string{
		"RESILIENCE_SECRETS_DIR=" + filepath.Join(base, "secrets"), "RESILIENCE_SECRETS_ENV_PREFIX=GATEWAY_",
		"GATEWAY_REDIS=s3cret\n", "CLOUD_TOKEN=s3cret",
	}, upstream: startUpstream(t)})
	for name := range allowed {
		require.Equal(t, http.StatusOK, g.get("/"+name).status, name)
		require.Equal(t, int64(1), server.Int("EXISTS", "resilience:{"+name+"}:bucket:ip:127.0.0.1"), name)
	}
	for name := range refused {
		require.Equal(t, http.StatusNotFound, g.get("/"+name).status, name)
		var shown struct{ Error []string }
		getJSON(t, "http://"+g.api+"/api/http/middlewares/"+name+"@file", &shown)
		require.Contains(t, strings.Join(shown.Error, " "), "of Traefik's environment demands", name)
		require.NotContains(t, strings.Join(shown.Error, " "), "s3cret", name)
	}
}

// TestSecrets_anEndlessFileDoesNotStopTraefik names /dev/zero wherever a file may be named.
func TestSecrets_anEndlessFileDoesNotStopTraefik(t *testing.T) {
	t.Parallel()
	plugins := map[string]block{}
	for name, redis := range map[string]block{
		"password": {"passwordFile": "/dev/zero"},
		"ca":       {"tls": block{"enabled": true, "ca": "/dev/zero"}},
		"cert":     {"tls": block{"enabled": true, "cert": "/dev/zero", "key": "/dev/zero"}},
		"off":      {"tls": block{"enabled": false, "ca": "/dev/zero"}},
	} {
		redis["address"] = freeAddress(t)
		plugins[name] = block{"redis": redis, "rateLimit": block{"capacity": 1}}
	}
	begun := time.Now()
	g := startTraefik(t, options{dynamic: writeRows(t, plugins), upstream: startUpstream(t)})
	require.Less(t, time.Since(begun), 15*time.Second)
	for name, status := range map[string]int{"password": 404, "ca": 404, "cert": 404, "off": 200, "plain": 200} {
		require.Equal(t, status, g.get("/"+name).status, name)
	}
}
