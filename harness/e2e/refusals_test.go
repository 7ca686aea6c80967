package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// uploads are the heads of requests whose bodies never come, and what ends the chunked ones.
var uploads = []struct {
	name, method, head string
	ends               bool // the connection, without another byte from the client
}{
	{"of a megabyte", "POST", "Content-Length: 1000000\r\n", true},
	{"of 100 bytes", "PUT", "Content-Length: 100\r\n", false},
	{"in chunks", "POST", "Transfer-Encoding: chunked\r\n", false},
	{"that waits for leave", "POST", "Content-Length: 1000000\r\nExpect: 100-continue\r\n", true},
	{"of a GET", "GET", "Content-Length: 10\r\n", false},
}

// TestRefusals_doNotWaitForABody has clients that announce a body and send nothing. Each of our own answers must reach them at once.
func TestRefusals_doNotWaitForABody(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	folder := writeRows(t, map[string]block{
		"limited": {"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "1h"}},
		"both": {"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "1h"},
			"circuitBreaker": block{"failureThreshold": 5}},
		"broken": {"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}},
		"shared": {"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}, "redis": redisBlock(redistest.Start(t))},
		"denied": {"rateLimit": block{"capacity": 1}, "redis": block{"address": freeAddress(t), "onError": "deny"}},
	})
	g := startTraefik(t, options{upstream: up, dynamic: folder})
	require.Equal(t, 200, g.get("/limited").status)
	require.Equal(t, 200, g.get("/both").status)
	require.Equal(t, 500, g.get("/broken/fail").status)
	require.Equal(t, 500, g.get("/shared/fail").status)
	for _, row := range []struct {
		path   string
		status int
	}{
		{"/limited", 429}, {"/both", 429}, {"/broken", 503}, {"/shared", 503}, {"/denied", 503},
	} {
		for _, upload := range uploads {
			t.Run(row.path+": an upload "+upload.name, func(t *testing.T) {
				for range 3 { // the first refusal is another function's than those that follow
					requireRefusedAtOnce(t, g, upload.method+" "+row.path+" HTTP/1.1\r\nHost: a\r\n"+upload.head+"\r\n", row.status, upload.ends)
				}
			})
		}
		t.Run(row.path+": a connection without an upload is kept", func(t *testing.T) {
			c, reader := dialRaw(t, g)
			for range 3 {
				_, err := io.WriteString(c, "GET "+row.path+" HTTP/1.1\r\nHost: a\r\n\r\n")
				require.NoError(t, err)
				response, err := http.ReadResponse(reader, nil)
				require.NoError(t, err)
				require.Equal(t, row.status, response.StatusCode)
				require.False(t, response.Close)
				_, err = io.Copy(io.Discard, response.Body)
				require.NoError(t, err)
			}
		})
	}
	t.Run("the health answer", func(t *testing.T) {
		requireRefusedAtOnce(t, g, "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", 200, false)
	})
	t.Run("over HTTP/2 the connection goes on", func(t *testing.T) {
		for _, row := range []struct {
			path   string
			status int
		}{{"/limited", 429}, {"/broken", 503}, {"/denied", 503}} {
			requireKeptOverHTTP2(t, g, row.path, row.status)
		}
	})
}

func dialRaw(t *testing.T, g *traefik) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", g.web)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	return c, bufio.NewReader(c)
}

// requireRefusedAtOnce sends the head of a request and nothing more. Where ends is false, its connection ends when the client has ended
// its side, as one does that has read "Connection: close".
func requireRefusedAtOnce(t *testing.T, g *traefik, head string, status int, ends bool) {
	t.Helper()
	c, reader := dialRaw(t, g)
	_, err := io.WriteString(c, head)
	require.NoError(t, err)
	begun := time.Now()
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err, "no answer while the body has not come")
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Less(t, time.Since(begun), 2*time.Second)
	require.Equal(t, status, response.StatusCode)
	require.True(t, response.Close, "Connection: close")
	require.NotEmpty(t, body)
	if !ends {
		require.NoError(t, c.(*net.TCPConn).CloseWrite())
	}
	_, err = reader.ReadByte()
	require.ErrorIs(t, err, io.EOF, "the connection is closed")
}

// requireKeptOverHTTP2 has uploads refused whose bodies never end, all on one connection.
func requireKeptOverHTTP2(t *testing.T, g *traefik, path string, status int) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	connections := map[string]bool{}
	for range 3 {
		body, hold := io.Pipe()
		defer hold.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			connections[info.Conn.LocalAddr().String()] = true
		}})
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url(path), body)
		require.NoError(t, err)
		response, err := transport.RoundTrip(request)
		require.NoError(t, err)
		require.Equal(t, 2, response.ProtoMajor)
		require.Equal(t, status, response.StatusCode)
		require.Empty(t, response.Header.Get("Connection"))
		response.Body.Close()
	}
	require.Len(t, connections, 1, path)
}

// TestRefusals_ofBodiesThatNeverArrive are held no longer than readTimeout, also where the client keeps its side open.
func TestRefusals_ofBodiesThatNeverArrive(t *testing.T) {
	t.Parallel()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"health": block{}})
	writeYAML(t, filepath.Join(dynamic, "limited.yml"), block{"http": block{
		"routers": block{"limited": block{
			"rule": "Path(`/limited`)", "entryPoints": []string{"web"}, "middlewares": []string{"limited"}, "service": "noop@internal",
		}},
		"middlewares": block{"limited": block{"plugin": block{"resilience": block{"rateLimit": scarce(block{"requestHost": true})}}}},
	}})
	g := startTraefik(t, options{dynamic: dynamic, change: withReadTimeout("2s")})
	for range 5 {
		require.Equal(t, passed, g.get("/limited").status, g.log.String())
	}
	c, reader := dialRaw(t, g)
	_, err := io.WriteString(c, "POST /limited HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
	require.NoError(t, err)
	response, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusTooManyRequests, response.StatusCode)
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	_, err = reader.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// TestRefusals_overHTTP3 has uploads refused whose bodies never end, all on one connection.
func TestRefusals_overHTTP3(t *testing.T) {
	t.Parallel()
	up := startUpstream(t)
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"rateLimit": block{"capacity": 1, "refillRate": 1, "refillPeriod": "1h"}})
	address, change := overHTTP3(t, dynamic)
	startTraefik(t, options{upstream: up, dynamic: dynamic, change: change})
	c := dialHTTP3(t, address)
	require.Equal(t, http.StatusOK, c.send(http3Request("GET", "/proxy/ok")))
	for _, upload := range [][]byte{http3Request("POST", "/proxy/echo", "content-length", "100"), http3Request("POST", "/proxy/echo")} {
		for range 3 {
			begun := time.Now()
			require.Equal(t, http.StatusTooManyRequests, c.status(c.open(upload)))
			require.Less(t, time.Since(begun), 2*time.Second)
		}
	}
	require.Equal(t, http.StatusTooManyRequests, c.send(http3Request("GET", "/proxy/ok")), "on the same connection")
}
