package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"gopkg.in/yaml.v3"
)

// withReadTimeout sets the readTimeout of the public entry point.
func withReadTimeout(limit string) func(static map[string]any) {
	return func(static map[string]any) {
		gateway.Set(static, limit, "entryPoints", "web", "transport", "respondingTimeouts", "readTimeout")
	}
}

// TestReadTimeout_isShipped looks into each static file that we ship.
func TestReadTimeout_isShipped(t *testing.T) {
	files := []string{"traefik/traefik.yml", "traefik/compose.yml", "k8s/base/gateway/traefik.yml", "k8s/components/gateway-api/traefik.yml"}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(root(t), file))
		require.NoError(t, err)
		var static struct {
			EntryPoints map[string]struct {
				Transport struct {
					RespondingTimeouts map[string]string `yaml:"respondingTimeouts"`
				}
			} `yaml:"entryPoints"`
		}
		require.NoError(t, yaml.Unmarshal(content, &static))
		require.Equal(t, "10m", static.EntryPoints["web"].Transport.RespondingTimeouts["readTimeout"], file)
	}
}

// TestReadTimeout_cutsWhatClientsSend tells what the readTimeout of an entry point cuts, and what not. It is 2 s here, and each row lasts
// 4 s. It is the longest that a request may take to come, head and body; what the service sends may take as long as it likes. Nothing
// of this is the service's failure: one would open the circuit for good.
func TestReadTimeout_cutsWhatClientsSend(t *testing.T) {
	t.Parallel()
	const longer = 4 * time.Second
	up, rpc := startUpstream(t), startRPC(t)
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}})
	writeYAML(t, filepath.Join(dynamic, "rpc.yml"), block{"http": block{
		"routers": block{"rpc": block{
			"rule": "PathPrefix(`/test.Echo/`)", "entryPoints": []string{"web"}, "middlewares": []string{"gateway"}, "service": "rpc",
		}},
		"services": block{"rpc": block{"loadBalancer": block{"servers": []block{{"url": "h2c://" + rpc.address}}}}},
	}})
	g := startTraefik(t, options{upstream: up, dynamic: dynamic, change: withReadTimeout("2s")})
	t.Cleanup(func() { require.Equal(t, http.StatusOK, g.get("/proxy/ok").status, "the circuit is closed") })
	clients := map[string]*http.Client{"HTTP/1": {Transport: &http.Transport{}}, "HTTP/2": http2}

	t.Run("half a head is cut", func(t *testing.T) {
		t.Parallel()
		c, reader := dialRaw(t, g)
		begun := time.Now()
		_, err := io.WriteString(c, "GET /proxy/ok HTTP/1.1\r\nHost: a\r\nX-Half")
		require.NoError(t, err)
		_, err = io.ReadAll(reader)
		require.NoError(t, err)
		require.InDelta(t, 2, time.Since(begun).Seconds(), 1)
	})
	for name, client := range clients {
		t.Run("an upload is cut over "+name, func(t *testing.T) {
			t.Parallel()
			response, err := client.Post(g.url("/proxy/echo"), "text/plain", inPieces(longer, 10))
			if err == nil {
				t.Log(response.Status)
				response.Body.Close()
				require.NotEqual(t, http.StatusOK, response.StatusCode)
			}
		})
		t.Run("events go on over "+name, func(t *testing.T) {
			t.Parallel()
			response, err := client.Get(g.url("/proxy/sse?events=5&interval=1"))
			require.NoError(t, err)
			defer response.Body.Close()
			events := 0
			for lines := bufio.NewScanner(response.Body); lines.Scan(); {
				if lines.Text() == "" {
					events++
				}
			}
			require.Equal(t, 5, events)
		})
		t.Run("a slow answer comes over "+name, func(t *testing.T) {
			t.Parallel()
			response, err := client.Get(g.url("/proxy/slow?seconds=4"))
			require.NoError(t, err)
			response.Body.Close()
			require.Equal(t, http.StatusOK, response.StatusCode)
		})
	}
	t.Run("a connection that is kept goes on", func(t *testing.T) {
		t.Parallel()
		c, reader := dialRaw(t, g)
		require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		for range 2 {
			_, err := io.WriteString(c, "GET /proxy/ok HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			response, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			time.Sleep(longer)
		}
	})
	t.Run("a WebSocket goes on", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, _, err := websocket.Dial(ctx, "ws://"+g.web+"/proxy/ws", nil)
		require.NoError(t, err)
		for _, text := range []string{"before", "after"} {
			require.NoError(t, c.Write(ctx, websocket.MessageText, []byte(text)))
			_, got, err := c.Read(ctx)
			require.NoError(t, err)
			require.Equal(t, text, string(got))
			time.Sleep(longer)
		}
		c.Close(websocket.StatusNormalClosure, "")
	})
	t.Run("a gRPC call whose client keeps sending is cut", func(t *testing.T) {
		t.Parallel()
		require.NotEqual(t, codes.OK, echoFor(t, g, longer))
	})
	t.Run("a gRPC call whose client has sent all goes on", func(t *testing.T) {
		t.Parallel()
		c := dialRPC(t, g.web)
		ctx, cancel := context.WithTimeout(t.Context(), longer)
		defer cancel()
		require.Equal(t, codes.DeadlineExceeded, call(ctx, c, "Wait", false, "a").code)
	})
}

// inPieces returns a body of the given pieces that takes this long.
func inPieces(length time.Duration, pieces int) io.Reader {
	reader, writer := io.Pipe()
	go func() {
		for range pieces {
			if _, err := io.WriteString(writer, "piece"); err != nil {
				return
			}
			time.Sleep(length / time.Duration(pieces))
		}
		writer.Close()
	}()
	return reader
}

// echoFor sends a message over one call every half second for so long, and returns how the call ends.
func echoFor(t *testing.T, g *traefik, length time.Duration) codes.Code {
	t.Helper()
	stream, err := dialRPC(t, g.web).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/Echo")
	require.NoError(t, err)
	for begun, i := time.Now(), 0; time.Since(begun) < length; i++ {
		message, answer := fmt.Sprint(i), ""
		if err := stream.SendMsg(&message); err != nil && err != io.EOF {
			return status.Code(err)
		}
		if err := stream.RecvMsg(&answer); err != nil {
			t.Logf("after %s: %v", time.Since(begun).Round(100*time.Millisecond), err)
			return status.Code(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	return codes.OK
}
