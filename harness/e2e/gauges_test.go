package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// memory is what Traefik's runtime says of its memory, in bytes.
type memory struct {
	HeapAlloc int64 // in use, and garbage
	Sys       int64 // had from the system; never gives back
}

// gauges writes a router for Traefik's own debugging pages, which the gauges read, and returns the change to the static
// file that makes Traefik have them.
func gauges(t *testing.T, dynamic string) (change func(static map[string]any)) {
	t.Helper()
	writeYAML(t, filepath.Join(dynamic, "debug.yml"), block{"http": block{"routers": block{"debug": block{
		"rule": "PathPrefix(`/debug`)", "entryPoints": []string{"traefik"}, "service": "api@internal",
	}}}})
	return func(static map[string]any) { gateway.Set(static, true, "api", "debug") }
}

// writeYAML writes a file at once: whoever watches it sees the old one or the new one.
func writeYAML(t *testing.T, path string, content block) {
	t.Helper()
	text, err := yaml.Marshal(content)
	require.NoError(t, err)
	beside := filepath.Dir(path) + ".new"
	require.NoError(t, os.WriteFile(beside, text, 0o644))
	require.NoError(t, os.Rename(beside, path))
}

func (g *traefik) memory() memory {
	g.t.Helper()
	var vars struct{ Memstats memory }
	getJSON(g.t, "http://"+g.api+"/debug/vars", &vars)
	return vars.Memstats
}

// heap returns the bytes in use after the garbage is gone.
func (g *traefik) heap() int64 {
	g.t.Helper()
	g.debug("heap?gc=1")
	return g.memory().HeapAlloc
}

func (g *traefik) goroutines() int {
	g.t.Helper()
	var number int
	_, err := fmt.Sscanf(g.debug("goroutine?debug=1"), "goroutine profile: total %d", &number)
	require.NoError(g.t, err)
	return number
}

// debug returns the first line of one of Traefik's profiles.
func (g *traefik) debug(profile string) string {
	g.t.Helper()
	response, err := client.Get("http://" + g.api + "/debug/pprof/" + profile)
	require.NoError(g.t, err)
	defer response.Body.Close()
	require.Equal(g.t, http.StatusOK, response.StatusCode, profile)
	reader := bufio.NewReader(response.Body)
	line, _ := reader.ReadString('\n')
	_, err = io.Copy(io.Discard, reader)
	require.NoError(g.t, err)
	return line
}

// connections returns how many clients a Redis has, but for the one that asks.
func connections(server *redistest.Server) int {
	return strings.Count(server.Text("CLIENT", "LIST", "TYPE", "NORMAL"), "\n") - 1
}

// files returns how many files and sockets Traefik has open.
func (g *traefik) files() int {
	g.t.Helper()
	number, err := g.process.Files()
	require.NoError(g.t, err)
	return number
}
