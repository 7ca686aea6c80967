package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStreams_sendPieces(t *testing.T) {
	address := start(t)
	cases := []struct {
		path, body, kind string
		length           int64
	}{
		{"/sse?events=2&interval=0", "data: 1\n\ndata: 2\n\n", "text/event-stream", -1},
		{"/sse?interval=0", "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n", "text/event-stream", -1},
		{"/chunks?pieces=2&interval=0.01", "piece 1\npiece 2\n", "text/plain; charset=utf-8", -1},
		{"/chunks?pieces=2&interval=0&length=1", "piece 1\npiece 2\n", "text/plain; charset=utf-8", 16},
		{"/chunks?pieces=1&length=0", "piece 1\n", "text/plain; charset=utf-8", -1},
	}
	both(t, func(t *testing.T, client *http.Client) {
		for _, c := range cases {
			response, body := exchange(t, client, http.MethodGet, address+c.path, "")
			require.Equal(t, http.StatusOK, response.StatusCode, c.path)
			require.Equal(t, c.body, body, c.path)
			require.Equal(t, c.kind, response.Header.Get("Content-Type"), c.path)
			require.Equal(t, c.length, response.ContentLength, c.path)
		}
	})
}

// The next piece is half a minute away, so what arrives has been flushed.
func TestStreams_flushEachPiece(t *testing.T) {
	address := start(t)
	cases := []struct{ path, first string }{
		{"/sse?interval=30", "data: 1\n"},
		{"/chunks?interval=30", "piece 1\n"},
		{"/chunks?interval=30&length=1", "piece 1\n"},
	}
	both(t, func(t *testing.T, client *http.Client) {
		for _, c := range cases {
			response, err := client.Get("http://" + address + c.path)
			require.NoError(t, err, c.path)
			line, err := bufio.NewReader(response.Body).ReadString('\n')
			response.Body.Close()
			require.NoError(t, err, c.path)
			require.Equal(t, c.first, line, c.path)
		}
	})
}

func TestStreams_waitBetweenPieces(t *testing.T) {
	address := start(t)
	for _, path := range []string{"/sse?events=3&interval=0.05", "/chunks?pieces=3&interval=0.05"} {
		began := time.Now()
		get(t, address+path)
		require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond, path)
	}
}

func TestHints_comeBeforeTheAnswer(t *testing.T) {
	address := start(t)
	both(t, func(t *testing.T, client *http.Client) {
		hinted := map[int]string{}
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			hinted[code] = header.Get("Link")
			return nil
		}}
		ctx := httptrace.WithClientTrace(context.Background(), trace)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/hints", nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()

		require.Equal(t, map[int]string{http.StatusEarlyHints: hintedLink}, hinted)
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Empty(t, response.Header.Get("Link"))
	})
}

func TestTrailers_followABodyWithoutALength(t *testing.T) {
	address := start(t)
	both(t, func(t *testing.T, client *http.Client) {
		response, err := client.Get("http://" + address + "/trailers")
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, int64(-1), response.ContentLength)
		require.Contains(t, response.Trailer, "X-Checksum")
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, `{"status":"ok"}`, string(body))
		require.Equal(t, checksum, response.Trailer.Get("X-Checksum"))
	})
}
