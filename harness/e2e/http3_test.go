package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// overHTTP3 gives a gateway that is about to start one more entry point, with the route /proxy/ over TLS and HTTP/3. It
// returns the entry point's address and the change to the static file; the folder is that of the dynamic files. Traefik
// makes the certificate itself.
func overHTTP3(t *testing.T, dynamic string) (address string, change func(static map[string]any)) {
	t.Helper()
	address = freeAddress(t)
	writeYAML(t, filepath.Join(dynamic, "http3.yml"), block{"http": block{"routers": block{"proxy-http3": block{
		"rule": "PathPrefix(`/proxy/`)", "entryPoints": []string{"http3"}, "middlewares": []string{"gateway", "strip-proxy"},
		"service": "upstream", "tls": block{},
	}}}})
	return address, func(static map[string]any) {
		gateway.Set(static, address, "entryPoints", "http3", "address")
		gateway.Set(static, block{}, "entryPoints", "http3", "http3")
	}
}

// http3Client is one connection over HTTP/3, on which requests are sent frame by frame: also those that no client sends.
type http3Client struct {
	t    *testing.T
	conn *quic.Conn
}

func dialHTTP3(t *testing.T, address string) *http3Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	conn, err := quic.DialAddr(ctx, address, config, nil)
	require.NoError(t, err)
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	(&http3.Transport{}).NewClientConn(conn) // sends the settings
	return &http3Client{t: t, conn: conn}
}

// send sends the frames on a new stream, ends it, and returns the status of the answer: 0 where the gateway reset
// the stream instead. A last frame that is nil resets it from here.
func (c *http3Client) send(frames ...[]byte) int {
	c.t.Helper()
	stream := c.open(frames...)
	if frames[len(frames)-1] == nil {
		time.Sleep(20 * time.Millisecond) // so that what came before the reset is read
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	} else {
		stream.Close() // which fails where the gateway has answered already, and reads no more
	}
	return c.status(stream)
}

// open sends the frames on a new stream, and leaves it open.
func (c *http3Client) open(frames ...[]byte) *quic.Stream {
	c.t.Helper()
	stream, err := c.conn.OpenStream()
	require.NoError(c.t, err)
	require.NoError(c.t, stream.SetDeadline(time.Now().Add(20*time.Second)))
	for _, frame := range frames {
		_, err := stream.Write(frame)
		require.NoError(c.t, err)
	}
	return stream
}

// status reads an answer to its end.
func (c *http3Client) status(stream *quic.Stream) int {
	c.t.Helper()
	answer, err := io.ReadAll(stream)
	if reset := (*quic.StreamError)(nil); errors.As(err, &reset) {
		return 0
	}
	require.NoError(c.t, err)
	reader := bytes.NewReader(answer)
	kind, err := quicvarint.Read(reader)
	require.NoError(c.t, err)
	require.EqualValues(c.t, http3HeadersFrame, kind)
	length, err := quicvarint.Read(reader)
	require.NoError(c.t, err)
	fields := make([]byte, length)
	_, err = io.ReadFull(reader, fields)
	require.NoError(c.t, err)
	first, err := qpack.NewDecoder().Decode(fields)()
	require.NoError(c.t, err)
	require.Equal(c.t, ":status", first.Name)
	status, err := strconv.Atoi(first.Value)
	require.NoError(c.t, err)
	return status
}

const (
	http3DataFrame    = 0
	http3HeadersFrame = 1
)

func http3Frame(kind uint64, content []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(content))), content...)
}

// http3Headers returns a frame of fields, each a name and a value.
func http3Headers(fields ...string) []byte {
	var block bytes.Buffer
	encoder := qpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		encoder.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return http3Frame(http3HeadersFrame, block.Bytes())
}

// http3Request returns the frame of headers of a request.
func http3Request(method, path string, fields ...string) []byte {
	return http3Headers(append([]string{":method", method, ":scheme", "https", ":authority", "shop.example", ":path", path}, fields...)...)
}

func http3Data(text string) []byte { return http3Frame(http3DataFrame, []byte(text)) }

// malformedHTTP3 are requests over HTTP/3 whose fault is the client's.
var malformedHTTP3 = func() []http3Row {
	post := func(fields ...string) []byte { return http3Request("POST", "/proxy/echo", fields...) }
	// What is too long is a whole body at first, which a service may answer well. This one does not before the gateway sees the fault.
	postSlow := func(fields ...string) []byte { return http3Request("POST", "/proxy/slow?seconds=1", fields...) }
	return []http3Row{
		{"less than the content-length", [][]byte{post("content-length", "10"), http3Data("abc")}},
		{"no body, and a content-length", [][]byte{post("content-length", "10")}},
		{"more than the content-length", [][]byte{postSlow("content-length", "3"), http3Data("abcdef")}},
		{"more than the content-length, in a second frame", [][]byte{postSlow("content-length", "3"), http3Data("ab"), http3Data("cdef")}},
		{"data after the trailer", [][]byte{post(), http3Data("abc"), http3Headers("x-checksum", "abc"), http3Data("def")}},
		{"a trailer with a pseudo-header", [][]byte{post(), http3Data("abc"), http3Headers(":path", "/")}},
		{"two trailers", [][]byte{post(), http3Data("abc"), http3Headers("x-checksum", "abc"), http3Headers("x-checksum", "def")}},
		{"a reset in the middle of the body", [][]byte{post("content-length", "10"), http3Data("abc"), nil}},
	}
}()

type http3Row struct {
	name   string
	frames [][]byte
}

// startHTTP3 starts a gateway with a breaker and HTTP/3, and returns its address and what sends a GET to it.
func startHTTP3(t *testing.T, server *redistest.Server, breaker block, change func(static map[string]any)) (address string, get func(path string) int) {
	t.Helper()
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"redis": redisBlock(server), "circuitBreaker": breaker})
	address, withHTTP3 := overHTTP3(t, dynamic)
	startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, change: func(static map[string]any) {
		change(static)
		withHTTP3(static)
	}})
	return address, func(path string) int {
		t.Helper()
		return dialHTTP3(t, address).send(http3Request("GET", path))
	}
}

// Each row is sent five times after one failure of the service, which then must still be the only one in a row.
func TestHTTP3_malformedRequestsAreNotTheServicesFailures(t *testing.T) {
	t.Parallel()
	for source, change := range statusSources {
		if source == byRecorder {
			continue // over HTTP/3 a default Traefik has one already
		}
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			address, get := startHTTP3(t, server, block{"failureThreshold": 1000}, change)
			failures := func() string { return server.Hash(breakerKey)["failures"] }
			for _, row := range malformedHTTP3 {
				t.Run(row.name, func(t *testing.T) {
					require.Equal(t, http.StatusOK, get("/proxy/ok"))
					require.Equal(t, http.StatusInternalServerError, get("/proxy/fail"))
					require.Eventually(t, func() bool { return failures() == "1" }, 5*time.Second, time.Millisecond)
					for range 5 {
						dialHTTP3(t, address).send(row.frames...)
					}
					time.Sleep(100 * time.Millisecond) // for the reports
					require.Equal(t, "1", failures(), "failures in a row")
				})
			}
		})
	}
}

// A probe that is malformed gives its place back: the circuit stays half-open, and the next good requests close it.
func TestHTTP3_malformedProbesHaveNoVerdict(t *testing.T) {
	t.Parallel()
	for source, change := range statusSources {
		if source == byRecorder {
			continue // over HTTP/3 a default Traefik has one already
		}
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			address, get := startHTTP3(t, server, block{"failureThreshold": 1, "resetTimeout": "1s"}, change)
			require.Equal(t, http.StatusInternalServerError, get("/proxy/fail"))
			require.Equal(t, http.StatusServiceUnavailable, get("/proxy/ok"))
			time.Sleep(1100 * time.Millisecond)
			for _, row := range malformedHTTP3 {
				dialHTTP3(t, address).send(row.frames...)
				require.Eventually(t, func() bool { return len(probesIn(server.Hash(breakerKey))) == 0 }, soon, time.Millisecond, row.name)
				require.Equal(t, "half-open", server.Hash(breakerKey)["state"], row.name)
			}
			for range 2 { // one that was reset may arrive only now
				require.Eventually(t, func() bool { return get("/proxy/ok") == http.StatusOK }, 5*time.Second, 10*time.Millisecond)
			}
			require.Equal(t, "closed", server.Hash(breakerKey)["state"])
		})
	}
}
