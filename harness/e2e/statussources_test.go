package e2e

import (
	"net/http"
	"testing"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
)

// How the middleware learns the status of an answer: from Traefik's own writer, from net/http's own, which is all that there is in a
// default Traefik, or by a recorder around any other writer.
const (
	traefiksWriter = "Traefik's writer"
	netHTTPsField  = "net/http's field"
	byRecorder     = "a recorder"
)

// statusSources are changes to the static file, each of which makes the middleware learn an answer's status in another way. Over HTTP/3, a
// default Traefik has a recorder.
var statusSources = map[string]func(static map[string]any){
	traefiksWriter: func(map[string]any) {},
	netHTTPsField:  watchNothing,
	byRecorder: func(static map[string]any) {
		watchNothing(static)
		for name := range static["entryPoints"].(map[string]any) {
			if name != "traefik" {
				gateway.Set(static, []string{"wraps@file"}, "entryPoints", name, "http", "middlewares")
			}
		}
	},
}

// wraps is a middleware that has the ones below it write to another writer than net/http's.
var wraps = block{"headers": block{"customResponseHeaders": block{"X-Wrapped": "yes"}}}

// watchNothing is the static file as it is by default.
func watchNothing(static map[string]any) {
	delete(static, "metrics")
	delete(static, "accessLog")
}

// runsRow reports whether a test sends a row: all where the status is learned as usual, and a third of them through the recorder, each test
// another third.
func runsRow(source string, i, test int) bool {
	return source != byRecorder || i%3 == test%3
}

// eachSource runs the test with each source of the status.
func eachSource(t *testing.T, test func(t *testing.T, p *pair)) {
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) { test(t, startPair(t, change)) })
	}
}

// The handler below the middleware sees which source it is: the writer is Traefik's own, or the recorder, which is interpreted.
func TestStatusSources_eachIsUsed(t *testing.T) {
	writers := map[string]string{
		traefiksWriter: "*capture.captureResponseWriter",
		netHTTPsField:  "*recovery.responseWriterWrapperWithCloseNotify",
		byRecorder:     "stdlib._netHTTPResponseWriterHijacker",
	}
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			p := startPair(t, change)
			for range 60 { // while the first hundred are checked for other instances on their way, and afterwards
				for _, protocol := range []*http.Client{client, http2} {
					p.makeHealthy(t)
					response, err := protocol.Get(p.url("/proxy/writer"))
					require.NoError(t, err)
					response.Body.Close()
					require.Equal(t, writers[source], response.Header.Get("X-Writer"), response.Proto)
				}
			}
		})
	}
}
