package catalogue

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const site = "plugins.traefik.io"

// store stands for the catalogue's site. Traefik reaches it through a proxy and trusts its certificate.
type store struct {
	archive []byte
	env     []string // for Traefik

	mu       sync.Mutex
	requests []string // path, hash that was sent, status
}

func startStore(t *testing.T, archive []byte) *store {
	t.Helper()
	s := &store{archive: archive}
	certificate, authority := certificateOf(t, site)
	behind := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	behind.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	behind.StartTLS()
	t.Cleanup(behind.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != site+":443" {
			http.Error(w, "only "+site, http.StatusForbidden)
			return
		}
		tunnel(w, behind.Listener.Addr().String())
	}))
	t.Cleanup(proxy.Close)
	trusted := filepath.Join(t.TempDir(), "authority.pem")
	require.NoError(t, os.WriteFile(trusted, authority, 0o600))
	s.env = []string{"HTTPS_PROXY=" + proxy.URL, "https_proxy=", "NO_PROXY=", "no_proxy=", "SSL_CERT_FILE=" + trusted}
	return s
}

// tunnel joins the connection of a CONNECT with the address.
func tunnel(w http.ResponseWriter, address string) {
	server, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	client, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		server.Close()
		return
	}
	io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(server, buffered)
		server.Close()
	}()
	go func() {
		io.Copy(client, server)
		client.Close()
	}()
}

func certificateOf(t *testing.T, name string) (certificate tls.Certificate, encoded []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serve answers as the site does: a version's archive, unless the caller has it, and whether a hash is that of a version.
func (s *store) serve(w http.ResponseWriter, r *http.Request) {
	const path = "/" + module + "/" + version
	hash, status := r.Header.Get("X-Plugin-Hash"), http.StatusNotFound
	switch r.URL.Path {
	case "/public/download" + path:
		status = http.StatusOK
		if hash == sum(s.archive) {
			status = http.StatusNotModified
		}
	case "/public/validate" + path:
		status = http.StatusOK
		if hash != sum(s.archive) {
			status = http.StatusBadRequest
		}
	}
	s.mu.Lock()
	s.requests = append(s.requests, strings.Join([]string{r.URL.Path, hash, http.StatusText(status)}, " "))
	s.mu.Unlock()
	w.WriteHeader(status)
	if status == http.StatusOK && strings.HasPrefix(r.URL.Path, "/public/download") {
		w.Write(s.archive)
	}
}

func (s *store) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = nil
	return requests
}

// start starts Traefik in a working directory, with these plugins in its static configuration.
func start(t *testing.T, workDir, dynamic string, experimental map[string]any, env []string) (*gateway.Traefik, *gateway.Log, error) {
	t.Helper()
	log := &gateway.Log{}
	web, err := gateway.FreeAddress()
	require.NoError(t, err)
	api, err := gateway.FreeAddress()
	require.NoError(t, err)
	traefik := &gateway.Traefik{
		Root: root, Dir: t.TempDir(), WorkDir: workDir, Web: web, API: api, Dynamic: dynamic, Env: env, Log: log,
		Change: func(static map[string]any) { static["experimental"] = experimental },
	}
	process, err := traefik.Start()
	if err == nil {
		t.Cleanup(process.Stop)
	}
	return traefik, log, err
}

func status(t *testing.T, url string) int {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	return response.StatusCode
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	return string(body)
}

// fromCatalogue is the static configuration that docs/deployment.md shows.
func fromCatalogue(version string) map[string]any {
	return map[string]any{
		"abortOnPluginFailure": true,
		"plugins":              map[string]any{"resilience": map[string]any{"moduleName": module, "version": version}},
	}
}

// writeRoutes writes the two snippets for files, each as a middleware under another name, and a route through each.
func writeRoutes(t *testing.T, folder, upstream, redis string) {
	t.Helper()
	m, err := readManifest(root)
	require.NoError(t, err)
	forms, err := snippets(m.TestData)
	require.NoError(t, err)
	for _, form := range []string{"yaml", "toml"} {
		require.Contains(t, forms[form], "redis:6379")
		snippet := strings.ReplaceAll(strings.ReplaceAll(forms[form], "redis:6379", redis), "my-resilience", "my-"+form)
		write(t, snippet, folder, "snippet."+form)
	}
	write(t, strings.ReplaceAll(`http:
  routers:
    api: {rule: "PathPrefix(`+"`/api`"+`)", entryPoints: [traefik], service: api@internal}
    yaml: {rule: "Path(`+"`/yaml`"+`)", entryPoints: [web], middlewares: [my-yaml], service: upstream}
    toml: {rule: "Path(`+"`/toml`"+`)", entryPoints: [web], middlewares: [my-toml], service: upstream}
    admin: {rule: "PathPrefix(`+"`/resilience`"+`)", entryPoints: [traefik], middlewares: [admin], service: noop@internal}
  middlewares:
    admin: {plugin: {resilience: {admin: {path: /resilience}}}}
  services:
    upstream: {loadBalancer: {servers: [{url: "URL"}]}}
`, "URL", upstream), folder, "routes.yml")
}

func TestTraefik_loadsTheTagFromTheCatalogue(t *testing.T) {
	archive := tagged(t)
	s := startStore(t, archive)
	redis := redistest.Start(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(upstream.Close)
	workDir, dynamic := t.TempDir(), t.TempDir()
	writeRoutes(t, dynamic, upstream.URL, redis.Addr())

	traefik, log, err := start(t, workDir, dynamic, fromCatalogue(version), s.env)
	require.NoError(t, err, log.String())
	require.Equal(t, []string{
		"/public/download/" + module + "/" + version + "  OK",
		"/public/validate/" + module + "/" + version + " " + sum(archive) + " OK",
	}, s.took())
	for _, form := range []string{"yaml", "toml"} {
		require.NoError(t, traefik.Serves("/"+form, "my-"+form+"@file"), log.String())
		counts := map[int]int{}
		for range 200 {
			counts[status(t, "http://"+traefik.Web+"/"+form)]++
		}
		require.GreaterOrEqual(t, counts[http.StatusOK], 90, "%s: %v", form, counts)
		require.Positive(t, counts[http.StatusTooManyRequests], "%s: %v", form, counts)
		require.Equal(t, 200, counts[http.StatusOK]+counts[http.StatusTooManyRequests], "%s: %v", form, counts)
		require.NotEmpty(t, redis.Do("KEYS", "resilience:{my-"+form+"}:*"), "no state in Redis")
	}

	metrics := get(t, "http://"+traefik.API+"/resilience/metrics")
	require.Contains(t, metrics, "\nresilience_build_info{version=\""+version[1:]+"\"} 1\n")

	_, log, err = start(t, workDir, dynamic, fromCatalogue(version), s.env)
	require.NoError(t, err, log.String())
	require.Equal(t, "/public/download/"+module+"/"+version+" "+sum(archive)+" Not Modified", s.took()[0], "the second start uses the archive of the first")
}

func TestTraefik_endsWithoutTheVersion(t *testing.T) {
	s := startStore(t, nil)
	_, log, err := start(t, t.TempDir(), t.TempDir(), fromCatalogue("v9.9.9"), s.env)
	require.Error(t, err)
	require.Contains(t, log.String(), "unable to download plugin "+module+": error: 404")
}

// The message is the one that docs/operations.md explains.
func TestTraefik_saysWhatAPlainCloneLacks(t *testing.T) {
	const message = `unable to find source related to: "github.com/gomodule/redigo/redis"`
	workDir := t.TempDir()
	for _, name := range strings.Fields(command(t, root, "git", "ls-files", "*.go", "go.mod", "go.sum", ".traefik.yml")) {
		write(t, read(t, root, name), workDir, "plugins-local", "src", module, name)
	}
	_, log, err := start(t, workDir, t.TempDir(), map[string]any{
		"abortOnPluginFailure": true,
		"localPlugins":         map[string]any{"resilience": map[string]any{"moduleName": module}},
	}, nil)
	require.Error(t, err)
	require.Contains(t, strings.ReplaceAll(log.String(), `\"`, `"`), message)
	require.Contains(t, read(t, root, "docs", "operations.md"), message)
}
