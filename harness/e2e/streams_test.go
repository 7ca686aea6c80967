package e2e

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// arrivals returns the times at which the lines of an answer that are not empty came, since the request was sent.
func arrivals(t *testing.T, url string) []time.Duration {
	t.Helper()
	begun := time.Now()
	response, err := client.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	var times []time.Duration
	reader := bufio.NewScanner(response.Body)
	for reader.Scan() {
		if strings.TrimSpace(reader.Text()) != "" {
			times = append(times, time.Since(begun))
		}
	}
	require.NoError(t, reader.Err())
	return times
}

func TestStreams_areNotHeldBack(t *testing.T) {
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) { testStreams(t, change) })
	}
}

func testStreams(t *testing.T, change func(static map[string]any)) {
	up := startUpstream(t)
	g := startTraefik(t, options{upstream: up, plugin: both(redisBlock(redistest.Start(t))), change: change})

	for _, row := range []struct{ name, path string }{
		{"server-sent events", "/sse?events=4&interval=0.3"},
		{"pieces of a body of known length", "/chunks?pieces=4&interval=0.3&length=1"},
		{"chunks", "/chunks?pieces=4&interval=0.3"},
	} {
		t.Run(row.name+" arrive one by one", func(t *testing.T) {
			times := arrivals(t, g.url("/proxy"+row.path))
			require.Len(t, times, 4)
			for i, at := range times {
				require.InDelta(t, 0.3*float64(i), at.Seconds(), 0.15, "piece %d", i)
			}
		})
	}

	t.Run("a WebSocket echoes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, response, err := websocket.Dial(ctx, "ws://"+g.web+"/proxy/ws", nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, response.StatusCode)
		for kind, text := range map[websocket.MessageType]string{websocket.MessageText: "hello", websocket.MessageBinary: "\x00\xff"} {
			require.NoError(t, c.Write(ctx, kind, []byte(text)))
			gotKind, got, err := c.Read(ctx)
			require.NoError(t, err)
			require.Equal(t, kind, gotKind)
			require.Equal(t, text, string(got))
		}
		require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	})

	t.Run("early hints come early", func(t *testing.T) {
		r := g.get("/proxy/hints")
		require.Equal(t, http.StatusOK, r.status)
	})

	t.Run("trailers trail", func(t *testing.T) {
		response, err := client.Get(g.url("/proxy/trailers"))
		require.NoError(t, err)
		defer response.Body.Close()
		_, err = bufio.NewReader(response.Body).WriteTo(&strings.Builder{})
		require.NoError(t, err)
		require.Equal(t, "abc", response.Trailer.Get("X-Checksum"))
	})
}
