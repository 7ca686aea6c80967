package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The rows of this file are requests that few clients send, and services that answer them in unusual ways.

// hostileServices all answer GET /ok well, and GET /fail with 500.
func hostileServices(t *testing.T) map[string]string {
	reads := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangup" {
			panic(http.ErrAbortHandler)
		}
		if _, err := io.ReadAll(r.Body); err != nil || r.URL.Path == "/fail" {
			http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		}
	}
	serve := func(server *http.Server) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		return listener.Addr().String()
	}
	h2c := &http.Server{Handler: http.HandlerFunc(reads), Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	const fixed = "\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
	// It keeps connections for longer than it waits for a body: one that it closes just when a POST is sent on it is its failure.
	impatient := &http.Server{Handler: http.HandlerFunc(reads), ReadTimeout: time.Second, IdleTimeout: time.Minute}
	return map[string]string{
		"h2c":       "h2c://" + serve(h2c),
		"impatient": "http://" + serve(impatient),
		"short-headed": service(t, func(c net.Conn) {
			head := make([]byte, 4096)
			n, _ := c.Read(head)
			if n == len(head) {
				return
			}
			if strings.HasPrefix(string(head), "GET /fail") {
				io.WriteString(c, "HTTP/1.1 500 No"+fixed)
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK"+fixed)
		}),
	}
}

// thenAfter sends the text, and more after a pause.
func thenAfter(text string, pause time.Duration, more string) func(c *verdictClient) {
	return func(c *verdictClient) {
		c.raw(text, func(connection *net.TCPConn) {
			time.Sleep(pause)
			io.WriteString(connection, more)
		})
	}
}

// reset sends the text, and resets the connection.
func reset(text string) func(c *verdictClient) {
	return func(c *verdictClient) {
		c.raw(text, func(connection *net.TCPConn) {
			time.Sleep(20 * time.Millisecond)
			connection.SetLinger(0)
			connection.Close()
		})
	}
}

// withTrailers sends a POST over HTTP/2 whose trailers are the fields.
func withTrailers(path, announced string, fields ...string) func(c *verdictClient) {
	return framed(h2("POST", path, "trailer", announced), func(f *xhttp2.Framer) {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for i := 0; i < len(fields); i += 2 {
			encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		f.WriteData(1, false, []byte("abc"))
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	})
}

var (
	webSocket = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}

	slowBody = 1300 * time.Millisecond // the impatient service waits for less
)

func cookie(length int) string { return "Cookie: " + strings.Repeat("x", length) }

func hostileBelow(below string, row verdictRow) verdictRow {
	row.name, row.below = below+": "+row.name, []string{below}
	return row
}

var hostileRows = []verdictRow{
	{name: "HTTP/1.0, without a host", send: rawly("GET /ok HTTP/1.0\r\n\r\n")},
	{name: "HTTP/1.0, a body until the end", send: brokenOff("POST /upload HTTP/1.0\r\nHost: {host}\r\n\r\nabc")},
	{name: "a client that says it will send no more", send: brokenOff(h1("GET /slow?seconds=0.3"))},
	{name: "a reset before the answer", send: reset(h1("GET /slow?seconds=0.3"))},
	{name: "a reset in a body", send: reset(h1("POST /upload", "Content-Length: 10") + "abc")},
	{name: "a reset in a chunk", send: reset(h1("POST /upload", "Transfer-Encoding: chunked") + "5\r\nab")},
	{name: "an early answer, then a malformed chunk", send: thenAfter(h1("POST /ok", "Transfer-Encoding: chunked")+"3\r\nabc\r\n", 100*time.Millisecond, "zz\r\n")},
	{name: "HEAD with a malformed chunk", send: rawly(h1("HEAD /upload", "Transfer-Encoding: chunked", "Connection: close") + "zz\r\n")},
	{name: "GET with a malformed chunk", send: rawly(h1("GET /upload", "Transfer-Encoding: chunked", "Connection: close") + "zz\r\n")},
	{name: "Expect, and no body", send: brokenOff(h1("POST /upload", "Content-Length: 10", "Expect: 100-continue"))},
	{name: "huge trailers", send: chunked("/upload", "3\r\nabc\r\n0\r\nX-Sum: "+strings.Repeat("x", 100000)+"\r\n\r\n")},
	{name: "odd trailers", send: rawly(h1("POST /upload", "Trailer: x-a, (b, \xff", "Transfer-Encoding: chunked", "Connection: close") + "3\r\nabc\r\n0\r\nX-A: \xff\r\n\r\n")},
	{name: "headers that Connection names", send: rawly(h1("POST /upload", "Connection: close, host, content-length, te", "TE: gzip", "Content-Length: 3") + "abc")},
	{name: "a target of another scheme", send: rawly("GET https://{host}/ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")},
	{name: "a target that is no path", send: rawly("GET x:y HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")},
	{name: "a target that is an asterisk", send: rawly(h1("GET *", "Connection: close"))},
	{name: "bytes that are no text in the target", send: rawly(h1("GET /ok%00%0d%0a\xff?\xfe;x=%zz", "Connection: close"))},
	{name: "bytes that are no text in a header", send: rawly(h1("GET /ok", "Connection: close", "X-A: \xff\t\xfe"))},
	{name: "a long cookie", send: rawly(h1("GET /ok", "Connection: close", cookie(60000)))},
	{name: "a cookie of a megabyte", send: rawly(h1("GET /ok", "Connection: close", cookie(1<<20+3700)))},
	{name: "a service that hangs up on a long cookie", service: "short-headed", send: rawly(h1("GET /ok", "Connection: close", cookie(60000)))},
	{name: "a thousand headers", send: rawly(h1("GET /ok", append(slices.Repeat([]string{"X-A: b"}, 1000), "Connection: close")...))},
	{name: "an upgrade with half a body", send: brokenOff(h1("POST /ws", append(webSocket, "Content-Length: 10")...) + "abc")},
	{name: "an upgrade with a malformed chunk", send: rawly(h1("POST /ws", append(webSocket, "Transfer-Encoding: chunked")...) + "zz\r\n")},
	{name: "an upgrade to HTTP/2", send: rawly(h1("GET /ok", "Connection: Upgrade, HTTP2-Settings, close", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"))},

	{name: "h2: a reset after the headers", send: framed(h2("POST", "/upload"), func(f *xhttp2.Framer) { f.WriteRSTStream(1, xhttp2.ErrCodeInternal) })},
	{name: "h2: a malformed frame in the body", send: framed(h2("POST", "/upload"), func(f *xhttp2.Framer) {
		f.WriteData(1, false, []byte("abc"))
		f.WriteRawFrame(xhttp2.FrameSettings, 0, 3, []byte("abcdef"))
	})},
	{name: "h2: a pseudo-header in the trailers", send: withTrailers("/upload", "x-a", ":path", "/")},
	{name: "h2: trailers with a bad name", send: withTrailers("/upload", "x-a", "A(b", "\xff")},
	{name: "h2: trailers of a connection", send: withTrailers("/upload", "connection, te", "connection", "close", "te", "gzip")},
	{name: "h2: CONNECT with a body", send: framed([]string{":method", "CONNECT", ":authority", "{host}"}, func(f *xhttp2.Framer) { f.WriteData(1, true, []byte("abc")) })},
	{name: "h2: extended CONNECT", send: framed([]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "{host}", ":path", "/ws"}, nil)},

	{name: "h2c service: a target that is no path", service: "h2c", send: rawly("GET x:y HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")},
	{name: "h2c service: the same over HTTP/2", service: "h2c", send: framed(h2("GET", "x:y"), nil)},
	{name: "h2c service: an absolute target", service: "h2c", send: framed(h2("GET", "http://{host}/ok"), nil)},
	{name: "h2c service: CONNECT", service: "h2c", send: framed([]string{":method", "CONNECT", ":authority", "{host}"}, func(f *xhttp2.Framer) { f.WriteData(1, true, []byte("abc")) })},
	{name: "h2c service: huge trailers", service: "small h2c", send: withTrailers("/ok", "x-a", "x-a", strings.Repeat("x", 15000))},
	{name: "h2c service: a body of base64 that is none", service: "h2c", below: []string{"grpc-web"},
		send: rawly(h1("POST /ok", "Content-Type: application/grpc-web-text", "Content-Length: 8", "Connection: close") + "!!!!!!!!")},
	{name: "a body of base64 that is none", below: []string{"grpc-web"},
		send: rawly(h1("POST /upload", "Content-Type: application/grpc-web-text", "Content-Length: 8", "Connection: close") + "!!!!!!!!")},

	{name: "impatient service: a body that stalls", service: "impatient", send: thenAfter(h1("POST /ok", "Content-Length: 10", "Connection: close")+"abc", slowBody, "")},
	{name: "impatient service: chunks that stall", service: "impatient", send: thenAfter(h1("POST /ok", "Transfer-Encoding: chunked", "Connection: close")+"3\r\nabc\r\n", slowBody, "")},
	{name: "impatient service: a body over HTTP/2 that stalls", service: "impatient", send: framed(h2("POST", "/ok", "content-length", "10"), func(f *xhttp2.Framer) {
		f.WriteData(1, false, []byte("abc"))
	})},

	hostileBelow("buffering", verdictRow{name: "half a body", send: brokenOff(h1("POST /upload", "Content-Length: 10") + "abc")}),
	hostileBelow("buffering", verdictRow{name: "CONNECT", send: rawly(h1("CONNECT /", "Connection: close"))}),
	hostileBelow("buffering", verdictRow{name: "a target that is no path", service: "h2c", send: rawly("GET x:y HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")}),
	hostileBelow("headers", verdictRow{name: "a malformed chunk", send: chunked("/upload", "zz\r\n")}),
	hostileBelow("errors", verdictRow{name: "CONNECT", send: rawly(h1("CONNECT /", "Connection: close"))}),

	{name: "a service that hangs up on HEAD", send: rawly(h1("HEAD /hangup", "Connection: close")), opens: true},
	{name: "one that hangs up on HEAD over HTTP/2", send: framed(h2("HEAD", "/hangup"), nil), opens: true},
	{name: "one that hangs up on a large POST", send: rawly(h1("POST /hangup", "Connection: close", "Content-Length: 1000000") + strings.Repeat("x", 1000000)), opens: true},
	{name: "one that answers an upgrade with 500", send: rawly(h1("GET /fail", webSocket...)), opens: true},
	{name: "h2c service: it hangs up", service: "h2c", send: framed(h2("GET", "/hangup"), nil), opens: true},
	{name: "h2c service: it hangs up on a large POST", service: "h2c", send: rawly(h1("POST /hangup", "Connection: close", "Content-Length: 1000000") + strings.Repeat("x", 1000000)), opens: true},
	{name: "h2c service: it hangs up on PROPFIND", service: "h2c", send: framed(h2("PROPFIND", "/hangup"), nil), opens: true},
	{name: "no answer that HTTP knows, to POST", service: "garbage", send: rawly(h1("POST /", "Content-Length: 3", "Connection: close") + "abc"), opens: true},
	{name: "no answer that HTTP knows, to PROPFIND", service: "garbage", send: rawly(h1("PROPFIND /", "Connection: close")), opens: true},
	{name: "no answer that HTTP knows, to a name in UTF-8", service: "garbage", send: rawly(h1("GET /", "X-Name: caf\xc3\xa9", "Connection: close")), opens: true},
	{name: "nobody listens to chunks", service: "nobody", send: chunked("/", "3\r\nabc\r\n0\r\n\r\n"), opens: true},
	{name: "nobody listens to a long cookie", service: "nobody", send: rawly(h1("GET /", "Connection: close", cookie(7000))), opens: true},
	{name: "impatient service: its own 500 to a POST", service: "impatient", send: rawly(h1("POST /fail", "Content-Length: 3", "Connection: close") + "abc"), opens: true},
	hostileBelow("errors", verdictRow{name: "a service that hangs up", send: rawly(h1("GET /hangup", "Connection: close")), opens: true}),
}

// pageForABrokenBody looks like an answer of the service until requests are watched closely, which they are while a failure is pending
// and while the circuit is half-open.
var pageForABrokenBody = hostileBelow("errors", verdictRow{name: "a malformed chunk", send: chunked("/upload", "zz\r\n")})

// checkHostileRows checks the rows, some at a time: most of it is waiting. Through the recorder it checks one third of them.
func checkHostileRows(t *testing.T, third int, rows []verdictRow, breaker block, check func(s *verdictStage, c *verdictClient, i int, row verdictRow)) {
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			s := startVerdicts(t, rows, breaker, change)
			var all sync.WaitGroup
			places := make(chan struct{}, 24)
			for i, row := range rows {
				if !runsRow(source, i, third) {
					continue
				}
				places <- struct{}{}
				all.Go(func() {
					defer func() { <-places }()
					c := s.client(t, i)
					if row.service != "nobody" && row.service != "garbage" {
						assert.Equal(t, 200, c.get("/ok"), row.name)
					}
					check(s, c, i, row)
				})
			}
			all.Wait()
		})
	}
}

// Five at once all pass before the first has its answer.
func TestHostile_atAHealthyCircuit(t *testing.T) {
	t.Parallel()
	breaker := block{"failureThreshold": 5, "resetTimeout": "1h"}
	checkHostileRows(t, 0, hostileRows, breaker, func(s *verdictStage, c *verdictClient, i int, row verdictRow) {
		if row.opens {
			s.requireOpens(c.t, i, row.name, func() {
				for range 5 {
					row.send(c)
				}
			})
			return
		}
		var five sync.WaitGroup
		for range 5 {
			five.Go(func() { row.send(c) })
		}
		five.Wait()
		time.Sleep(100 * time.Millisecond)
		state, failures := s.state(i)
		assert.Equal(c.t, "closed", state, row.name)
		assert.Contains(c.t, []string{"", "0"}, failures, row.name)
		assert.Equal(c.t, 200, c.get("/ok"), row.name)
	})
}

func harmlessRows() []verdictRow {
	rows := slices.DeleteFunc(slices.Clone(hostileRows), func(row verdictRow) bool { return row.opens })
	return append(rows, pageForABrokenBody)
}

// failOnce has the service fail once, and waits until Redis knows.
func (c *verdictClient) failOnce(s *verdictStage, i int) {
	c.get("/fail")
	assert.Eventually(c.t, func() bool { state, failures := s.state(i); return failures == "1" || state == "open" }, 5*time.Second, time.Millisecond, c.host)
}

// A failure of the service stays the only one in a row, or a good answer ends the row.
func TestHostile_whileAFailureIsPending(t *testing.T) {
	t.Parallel()
	breaker := block{"failureThreshold": 1000, "resetTimeout": "1h"}
	checkHostileRows(t, 1, harmlessRows(), breaker, func(s *verdictStage, c *verdictClient, i int, row verdictRow) {
		c.failOnce(s, i)
		row.send(c)
		time.Sleep(100 * time.Millisecond)
		_, failures := s.state(i)
		assert.Contains(c.t, []string{"0", "1"}, failures, row.name)
	})
}

// A probe gives its place back, or is a good one.
func TestHostile_probes(t *testing.T) {
	t.Parallel()
	breaker := block{"failureThreshold": 1, "resetTimeout": "300ms", "halfOpenSuccessThreshold": 2, "halfOpenMaxProbes": 1}
	checkHostileRows(t, 2, harmlessRows(), breaker, func(s *verdictStage, c *verdictClient, i int, row verdictRow) {
		c.failOnce(s, i)
		time.Sleep(350 * time.Millisecond)
		for range 2 {
			row.send(c)
			time.Sleep(50 * time.Millisecond)
			given := func() bool { return len(s.probes(i)) == 0 } // long before probeTimeout, which is 10 s
			assert.Eventually(c.t, given, soon, time.Millisecond, row.name+": places held")
		}
		c.requireHonest(row.name)
		c.requireHonest(row.name)
		state, _ := s.state(i)
		assert.Equal(c.t, "closed", state, row.name)
	})
}

var hostileHTTP3 = []http3Row{
	{"CONNECT", [][]byte{http3Headers(":method", "CONNECT", ":authority", "shop.example"), http3Data("abc")}},
	{"extended CONNECT", [][]byte{http3Headers(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a", ":path", "/proxy/ws")}},
	{"extended CONNECT, reset", [][]byte{http3Headers(":method", "CONNECT", ":protocol", "x y", ":scheme", "https", ":authority", "a", ":path", "/proxy/ok"), nil}},
	{"a target that is no path", [][]byte{http3Request("GET", "x:/proxy/ok")}},
	{"a method that is none", [][]byte{http3Request("P\"ST", "/proxy/upload"), http3Data("abc")}},
	{"an odd host", [][]byte{http3Headers(":method", "GET", ":scheme", "https", ":authority", "a b<>:80:80", ":path", "/proxy/ok")}},
	{"a host that is no text", [][]byte{http3Headers(":method", "GET", ":scheme", "https", ":authority", "\xff\xfe", ":path", "/proxy/ok")}},
	{"a long cookie", [][]byte{http3Request("GET", "/proxy/ok", "cookie", strings.Repeat("x", 60000))}},
	{"trailers that are none", [][]byte{http3Request("POST", "/proxy/upload", "trailer", "content-length"), http3Data("abc"), http3Headers("content-length", "3")}},
	{"huge trailers", [][]byte{http3Request("POST", "/proxy/upload"), http3Data("abc"), http3Headers("x-a", strings.Repeat("x", 200000))}},
	{"headers that cannot be decoded", [][]byte{http3Request("POST", "/proxy/upload"), http3Data("abc"), {1, 3, 0xff, 0xff, 0xff}}},
	{"a frame that has no place there", [][]byte{http3Request("POST", "/proxy/upload"), http3Data("abc"), http3Frame(4, nil)}},
	{"half a frame", [][]byte{http3Request("POST", "/proxy/upload"), http3Data("abcdef")[:4]}},
	{"a reset at once", [][]byte{http3Request("POST", "/proxy/upload"), nil}},
	{"HEAD with half a body", [][]byte{http3Request("HEAD", "/proxy/upload", "content-length", "5"), http3Data("abc")}},
}

func TestHostile_overHTTP3(t *testing.T) {
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
			for _, row := range hostileHTTP3 {
				require.Equal(t, http.StatusOK, get("/proxy/ok"))
				require.Equal(t, http.StatusInternalServerError, get("/proxy/fail"))
				require.Eventually(t, func() bool { return failures() == "1" }, 5*time.Second, time.Millisecond)
				var five sync.WaitGroup
				for range 5 {
					five.Go(func() { sendHostile(dialHTTP3(t, address), row.frames) })
				}
				five.Wait()
				time.Sleep(80 * time.Millisecond) // for the reports
				require.Contains(t, []string{"0", "1"}, failures(), row.name)
			}
			require.Equal(t, http.StatusOK, get("/proxy/ok"))
			for range 2 {
				dialHTTP3(t, address).send(http3Request("POST", "/proxy/hangup", "content-length", "3"), http3Data("abc"))
				dialHTTP3(t, address).send(http3Request("HEAD", "/proxy/hangup"))
				dialHTTP3(t, address).send(http3Request("GET", "/proxy/hangup"))
			}
			require.Eventually(t, func() bool { return failures() == "6" }, 5*time.Second, time.Millisecond, "a service that hangs up")
		})
	}
}

// sendHostile sends the frames, and waits a little for whatever comes. A last frame that is nil is a reset.
func sendHostile(c *http3Client, frames [][]byte) {
	stream := c.open(frames...)
	stream.SetDeadline(time.Now().Add(time.Second))
	if frames[len(frames)-1] == nil {
		time.Sleep(20 * time.Millisecond)
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	} else {
		stream.Close()
	}
	io.Copy(io.Discard, stream)
}
