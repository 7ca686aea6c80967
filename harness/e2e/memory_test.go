package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// The plugin keeps at most 65,536 keys: twice as many show that the memory does not go on growing, and a million
// take minutes.
var clientsInMemory = flag.Int("clients", 140000, "distinct clients that the memory test sends")

func TestPromise_aMillionClientsCostLittleMemory(t *testing.T) {
	server := redistest.Start(t)
	g := startPing(t, server)
	for i := range 5 {
		g.askAs(t, 2000, func(int) string { return "warm" + fmt.Sprint(i) })
	}
	before := g.residentMB()
	n := *clientsInMemory
	g.askAs(t, n/2, func(i int) string { return fmt.Sprint("client-", i) })
	half := g.residentMB()
	g.askAs(t, n/2, func(i int) string { return fmt.Sprint("client-", n/2+i) })
	after := g.residentMB()
	t.Logf("%d MB before, %d MB after %d clients, %d MB after %d", before, half, n/2, after, n)
	require.GreaterOrEqual(t, server.Int("DBSIZE"), int64(n), "clients that Redis has heard of")
	require.Less(t, after-before, 100)
	require.Less(t, after-half, 30, "it goes on growing")
}

// startPing starts a gateway that limits its own ping: an answer that needs no upstream.
func startPing(t *testing.T, server *redistest.Server) *traefik {
	content, err := yaml.Marshal(block{"http": block{
		"routers": block{
			"health": block{"rule": "Path(`/health`)", "entryPoints": []string{"web"}, "service": "ping@internal"},
			"ping":   block{"rule": "Path(`/ping`)", "entryPoints": []string{"web"}, "middlewares": []string{"limit"}, "service": "ping@internal"},
		},
		"middlewares": block{"limit": block{"plugin": block{"resilience": block{
			"redis": redisBlock(server),
			"rateLimit": block{
				"capacity": 100000, "refillRate": 1, "refillPeriod": "1h", "sourceCriterion": block{"requestHeaderName": "X-Client"},
			},
			"circuitBreaker": block{"failureThreshold": 5},
		}}}},
	}})
	require.NoError(t, err)
	dynamic := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dynamic, "ping.yml"), content, 0o644))
	return startTraefik(t, options{dynamic: dynamic})
}

// askAs sends n requests, each as the client of that name, and requires that all are let through. It writes and reads them
// on bare connections: http.Client would take longer than the gateway.
func (g *traefik) askAs(t *testing.T, n int, name func(i int) string) {
	t.Helper()
	const connections = 256
	var next atomic.Int64
	var done sync.WaitGroup
	failures := make(chan error, connections)
	for range connections {
		done.Go(func() {
			if err := askOn(g.web, func() (string, bool) {
				i := int(next.Add(1)) - 1
				return name(i), i < n
			}); err != nil {
				failures <- err
			}
		})
	}
	done.Wait()
	close(failures)
	require.NoError(t, <-failures)
}

func askOn(address string, name func() (string, bool)) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	reader := bufio.NewReader(c)
	for client, more := name(); more; client, more = name() {
		if _, err := fmt.Fprintf(c, "GET /ping HTTP/1.1\r\nHost: gateway\r\nX-Client: %s\r\n\r\n", client); err != nil {
			return err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", client, response.Status)
		}
	}
	return nil
}
