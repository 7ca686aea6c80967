package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// verdictRow is a kind of requests, and what five of them do to a circuit that opens after five failures.
type verdictRow struct {
	name    string
	service string // that is asked; "": the upstream
	below   []string
	first   func(c *verdictClient) // before all else
	send    func(c *verdictClient)
	opens   bool
	answers bool // the service does, well
	late    bool // after the response headers, which are all that is asked of a probe
}

// verdictClient sends to one row's route: the host is its name.
type verdictClient struct {
	t    *testing.T
	web  string
	host string
}

// raw sends the text over HTTP/1, and reads until the other side ends the connection. {host} stands for the route's.
func (c *verdictClient) raw(text string, then func(connection *net.TCPConn)) string {
	connection, err := net.Dial("tcp", c.web)
	require.NoError(c.t, err)
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(connection, strings.ReplaceAll(text, "{host}", c.host))
	if then != nil {
		then(connection.(*net.TCPConn))
	}
	answer, _ := io.ReadAll(connection)
	return string(answer)
}

// many returns header lines of a format, with their numbers.
func many(format string, n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf(format, i))
	}
	return lines
}

func h1(line string, headers ...string) string {
	return line + " HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func rawly(text string) func(c *verdictClient) {
	return func(c *verdictClient) { c.raw(text, nil) }
}

// brokenOff sends the text, and says that no more will come.
func brokenOff(text string) func(c *verdictClient) {
	return func(c *verdictClient) { c.raw(text, func(connection *net.TCPConn) { connection.CloseWrite() }) }
}

// chunked is a request whose chunks are the text.
func chunked(path, chunks string) func(c *verdictClient) {
	return rawly(h1("POST "+path, "Connection: close", "Transfer-Encoding: chunked") + chunks)
}

// framed sends frames over HTTP/2, and reads until there is an answer, or none.
func framed(fields []string, send func(f *xhttp2.Framer)) func(c *verdictClient) {
	return func(c *verdictClient) {
		connection, err := net.Dial("tcp", c.web)
		require.NoError(c.t, err)
		defer connection.Close()
		connection.SetDeadline(time.Now().Add(3 * time.Second))
		io.WriteString(connection, xhttp2.ClientPreface)
		f := xhttp2.NewFramer(connection, connection)
		f.WriteSettings()
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for i := 0; i < len(fields); i += 2 {
			encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: strings.ReplaceAll(fields[i+1], "{host}", c.host)})
		}
		fragment, first := block.Bytes(), true
		for first || len(fragment) > 0 {
			piece := fragment[:min(len(fragment), 16000)]
			fragment = fragment[len(piece):]
			if first {
				f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: piece, EndHeaders: len(fragment) == 0, EndStream: send == nil})
			} else {
				f.WriteContinuation(1, len(fragment) == 0, piece)
			}
			first = false
		}
		if send != nil {
			send(f)
		}
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if frame.Header().StreamID == 1 && (frame.Header().Flags.Has(xhttp2.FlagDataEndStream) || frame.Header().Type == xhttp2.FrameRSTStream) {
				return
			}
			if settings, ok := frame.(*xhttp2.SettingsFrame); ok && !settings.IsAck() {
				f.WriteSettingsAck()
			}
		}
	}
}

func h2(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":authority", "{host}", ":path", path}, more...)
}

// service starts one that answers each connection by the function.
func service(t *testing.T, answer func(c net.Conn)) string {
	return "http://" + listen(t, answer)
}

// listen hands each connection to the function, and returns the address to connect to.
func listen(t *testing.T, answer func(c net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				answer(c)
			}()
		}
	}()
	return listener.Addr().String()
}

// saying is a service that answers GET /ok as it should, and all else with a text, and ends the connection.
func saying(t *testing.T, text string) string {
	return service(t, func(c net.Conn) {
		head := make([]byte, 4096)
		n, _ := c.Read(head)
		if strings.HasPrefix(string(head[:n]), "GET /ok") {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
			return
		}
		io.WriteString(c, text)
	})
}

func verdictServices(t *testing.T) map[string]string {
	const words = "Internal Server Error"
	plain := "HTTP/1.1 500 Internal Server Error\r\n"
	small := &http.Server{MaxHeaderBytes: 4096, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/fail" {
			w.WriteHeader(500)
		}
	})}
	small.Protocols.SetUnencryptedHTTP2(true)
	small.HTTP2 = &http.HTTP2Config{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go small.Serve(listener)
	t.Cleanup(func() { small.Close() })
	return map[string]string{
		"early":                   saying(t, plain+"Date: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 5\r\n\r\nsorry"),
		"dateless, empty":         saying(t, plain+"\r\n"),
		"dateless":                saying(t, plain+"Content-Length: 5\r\n\r\nsorry"),
		"dateless, chunked":       saying(t, plain+"Transfer-Encoding: chunked\r\n\r\n5\r\nsorry\r\n0\r\n\r\n"),
		"dateless, closed":        saying(t, plain+"\r\nsorry"),
		"dateless, words":         saying(t, plain+"Content-Length: 21\r\n\r\n"+words),
		"dateless, chunked words": saying(t, plain+"Transfer-Encoding: chunked\r\n\r\n15\r\n"+words+"\r\n0\r\n\r\n"),
		"dateless, closed words":  saying(t, plain+"\r\n"+words),
		"garbage":                 saying(t, "no such protocol\r\n\r\n"),
		"silent":                  saying(t, ""),
		"nobody":                  "http://127.0.0.1:1",
		"small h2c":               "h2c://" + listener.Addr().String(),
	}
}

var verdictRows = []verdictRow{
	{name: "CONNECT", send: rawly(h1("CONNECT /", "Connection: close"))},
	{name: "CONNECT of a host", send: rawly("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\nConnection: close\r\n\r\n")},
	{name: "an upgrade to what cannot be printed", send: rawly(h1("GET /ok", "Connection: Upgrade", "Upgrade: caf\xc3\xa9"))},
	{name: "one of several tokens", send: rawly(h1("GET /ok", "Connection: keep-alive, upgrade", "Upgrade: \xff"))},
	{name: "the same by POST", send: rawly(h1("POST /ok", "Connection: Upgrade", "Upgrade: \xff", "Content-Length: 2") + "ab")},
	{name: "a bad chunk size", send: chunked("/upload", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "a chunk without its end", send: chunked("/upload", "3\r\nabcdef\r\n0\r\n\r\n")},
	{name: "a chunk that is broken off", send: brokenOff(h1("POST /upload", "Transfer-Encoding: chunked") + "5\r\nab")},
	{name: "bad only after good chunks", send: chunked("/upload", strings.Repeat("3\r\nabc\r\n", 50)+"zz\r\n")},
	{name: "bad only after many good chunks", send: chunked("/upload", strings.Repeat("ffff\r\n"+strings.Repeat("x", 0xffff)+"\r\n", 4)+"zz\r\n")},
	{name: "bad after good chunks that are echoed", send: chunked("/echo", strings.Repeat("3\r\nabc\r\n", 50)+"zz\r\n")},
	{name: "a malformed trailer", send: chunked("/upload", "3\r\nabc\r\n0\r\nno trailer\r\n\r\n")},
	{name: "a trailer that does not end", send: brokenOff(h1("POST /upload", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\nX-Sum: 1\r\n")},
	{name: "less than the content-length", send: brokenOff(h1("POST /upload", "Content-Length: 10") + "abc")},
	{name: "headers for no such trailers", send: chunked("/upload", "3\r\nabc\r\n0\r\nContent-Length: 7\r\n\r\n"), answers: true},
	{name: "h2: less than the content-length", send: framed(h2("POST", "/upload", "content-length", "10"), func(f *xhttp2.Framer) {
		f.WriteData(1, true, []byte("abc"))
	})},
	{name: "h2: no data, and a content-length", send: framed(h2("POST", "/upload", "content-length", "10"), nil), answers: true},
	{name: "h2: more than the content-length", send: framed(h2("POST", "/upload", "content-length", "3"), func(f *xhttp2.Framer) {
		f.WriteData(1, true, []byte("abcdef"))
	})},
	{name: "h2: a reset", send: framed(h2("POST", "/upload", "content-length", "10"), func(f *xhttp2.Framer) {
		f.WriteData(1, false, []byte("abc"))
		time.Sleep(20 * time.Millisecond)
		f.WriteRSTStream(1, xhttp2.ErrCodeCancel)
	})},
	{name: "h2: a method that is none", send: framed(h2("G T", "/ok"), nil)},
	{name: "h2: a method that is none, with a body", send: framed(h2("P\"ST", "/ok"), func(f *xhttp2.Framer) { f.WriteData(1, true, []byte("abc")) })},
	{name: "h2: CONNECT", send: framed([]string{":method", "CONNECT", ":authority", "{host}:80"}, nil), answers: true},
	{name: "h2: headers in a trailer", send: framed(h2("POST", "/upload", "trailer", "content-length, x-sum"), func(f *xhttp2.Framer) {
		f.WriteData(1, true, []byte("abc"))
	}), answers: true},
	{name: "h2c service: headers that are too long", service: "small h2c", send: framed(h2("GET", "/ok", "x-long", strings.Repeat("x", 20000)), nil)},
	{name: "h2c service: short headers that are too many", service: "small h2c", send: rawly(h1("GET /ok", append(many("X-%d: 1", 130), "Connection: close")...))},
	{name: "h2c service: headers that are too long, over HTTP/1", service: "small h2c", send: rawly(h1("GET /ok", "Connection: close", "X-Long: "+strings.Repeat("x", 20000)))},
	{name: "h2c service: an upgrade", service: "small h2c", send: rawly(h1("GET /ok", "Connection: close, Upgrade", "Upgrade: websocket"))},
	{name: "h2c service: less than the content-length", service: "small h2c", send: framed(h2("POST", "/ok", "content-length", "10"), func(f *xhttp2.Framer) {
		f.WriteData(1, true, []byte("abc"))
	})},
	{name: "h2c service: a bad chunk size", service: "small h2c", send: chunked("/ok", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "buffering: a bad chunk size", below: []string{"buffering"}, send: chunked("/upload", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "retry: a bad chunk size", below: []string{"retry"}, send: chunked("/upload", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "retry on status: a bad chunk size", below: []string{"retry-status"}, send: chunked("/upload", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "compress: a bad chunk size", below: []string{"compress"}, send: chunked("/upload", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "auth: a bad chunk size", below: []string{"auth"}, send: chunked("/upload", "zz\r\nabc\r\n0\r\n\r\n")},
	{name: "compress: CONNECT", below: []string{"compress"}, send: rawly(h1("CONNECT /", "Connection: close"))},

	{name: "the service's 500", send: rawly(h1("GET /fail", "Connection: close")), opens: true},
	{name: "the service's 500 of a POST", send: rawly(h1("POST /fail", "Connection: close", "Content-Length: 3") + "abc"), opens: true},
	{name: "h2: the service's 500 of half a POST", service: "early", send: framed(h2("POST", "/fail", "content-length", "30000"), func(f *xhttp2.Framer) {
		f.WriteData(1, false, []byte("abc"))
	}), opens: true},
	{name: "a service that hangs up", send: rawly(h1("GET /hangup", "Connection: close")), opens: true},
	{name: "a service that hangs up on a POST", send: rawly(h1("POST /hangup", "Connection: close", "Content-Length: 3") + "abc"), opens: true},
	{name: "a service that hangs up on chunks", send: chunked("/hangup", "3\r\nabc\r\n0\r\n\r\n"), opens: true},
	{name: "retry: a service that hangs up on a POST", below: []string{"retry"}, send: rawly(h1("POST /hangup", "Connection: close", "Content-Length: 3") + "abc"), opens: true},
	{name: "buffering: a service that hangs up on a POST", below: []string{"buffering"}, send: rawly(h1("POST /hangup", "Connection: close", "Content-Length: 3") + "abc"), opens: true},
	{name: "compress: a service that hangs up on a POST", below: []string{"compress"}, send: rawly(h1("POST /hangup", "Connection: close", "Content-Length: 3") + "abc"), opens: true},
	{name: "nobody listens", service: "nobody", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "nobody listens to a POST", service: "nobody", send: rawly(h1("POST /", "Connection: close", "Content-Length: 3") + "abc"), opens: true},
	{name: "an upgrade that nobody answers, of a service that switches protocols", first: func(c *verdictClient) {
		c.raw(h1("GET /ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
			func(connection *net.TCPConn) {
				answer := make([]byte, 12)
				io.ReadFull(connection, answer)
				require.Equal(c.t, "HTTP/1.1 101", string(answer))
				connection.Close()
			})
	}, send: rawly(h1("GET /hangup", "Connection: close, Upgrade", "Upgrade: websocket")), opens: true},
	{name: "an answer that the service cuts", send: rawly(h1("GET /abort?after=100000", "Connection: close")), opens: true, late: true},
	{name: "without a date", service: "dateless", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "without a date, in chunks", service: "dateless, chunked", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "without a date, and empty", service: "dateless, empty", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "without a date, until the end", service: "dateless, closed", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "without a date, Traefik's words", service: "dateless, words", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "without a date, Traefik's words in chunks", service: "dateless, chunked words", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "without a date, Traefik's words until the end", service: "dateless, closed words", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "no answer that HTTP knows", service: "garbage", send: rawly(h1("GET /", "Connection: close")), opens: true},
	{name: "no answer at all", service: "silent", send: rawly(h1("GET /", "Connection: close")), opens: true},
}

// verdictStage is a gateway with a route and a circuit for each row.
type verdictStage struct {
	*traefik
	server *redistest.Server
}

func startVerdicts(t *testing.T, rows []verdictRow, breaker block, change func(static map[string]any)) *verdictStage {
	t.Helper()
	s := &verdictStage{server: redistest.Start(t)}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"rateLimit": block{"capacity": 1000}})
	up := startUpstream(t)
	services := block{}
	urls := verdictServices(t)
	maps.Copy(urls, hostileServices(t))
	for name, url := range urls {
		services[serviceName(name)] = block{"loadBalancer": block{"servers": []block{{"url": url}}}}
	}
	routers := block{}
	middlewares := block{
		"buffering":    block{"buffering": block{"memRequestBodyBytes": 1000000}},
		"retry":        block{"retry": block{"attempts": 3}},
		"retry-status": block{"retry": block{"attempts": 3, "status": []string{"503"}, "retryNonIdempotentMethod": true}},
		"compress":     block{"compress": block{}},
		"errors":       block{"errors": block{"status": []string{"500-599"}, "service": "upstream", "query": "/ok"}},
		"grpc-web":     block{"grpcWeb": block{"allowOrigins": []string{"*"}}},
		"headers":      block{"headers": block{"customResponseHeaders": block{"X-Shop": "yes"}}},
		"auth":         block{"forwardAuth": block{"address": up.url() + "/ok", "forwardBody": true}},
	}
	for i, row := range rows {
		name := fmt.Sprintf("row-%d", i)
		middlewares[name] = block{"plugin": block{"resilience": block{"redis": redisBlock(s.server), "circuitBreaker": breaker}}}
		service := "upstream"
		if row.service != "" {
			service = serviceName(row.service)
		}
		routers[name] = block{
			"rule": "Host(`" + name + ".example`)", "entryPoints": []string{"web"}, "middlewares": append([]string{name}, row.below...), "service": service,
		}
	}
	writeYAML(t, filepath.Join(dynamic, "verdicts.yml"), block{"http": block{"routers": routers, "middlewares": middlewares, "services": services}})
	s.traefik = startTraefik(t, options{upstream: up, dynamic: dynamic, change: change})
	return s
}

func serviceName(name string) string { return strings.NewReplacer(" ", "-", ",", "").Replace(name) }

func (s *verdictStage) client(t *testing.T, i int) *verdictClient {
	return &verdictClient{t: t, web: s.web, host: fmt.Sprintf("row-%d.example", i)}
}

// state returns the state of a row's circuit, and the failures in a row that it has seen.
func (s *verdictStage) state(i int) (state, failures string) {
	hash := s.server.Hash(fmt.Sprintf("resilience:{row-%d}:breaker", i))
	return hash["state"], hash["failures"]
}

func (c *verdictClient) get(path string) int {
	request, err := http.NewRequest("GET", "http://"+c.web+path, nil)
	require.NoError(c.t, err)
	request.Host = c.host
	return send(request).status
}

// afterAFailure returns the client of a row whose service has answered well and then failed once, when Redis knows.
func (s *verdictStage) afterAFailure(t *testing.T, i int, row verdictRow, known func(state, failures string) bool) *verdictClient {
	t.Helper()
	c := s.client(t, i)
	if row.first != nil {
		row.first(c)
	}
	require.Equal(t, 200, c.get("/ok"))
	c.get("/fail")
	require.Eventually(t, func() bool { return known(s.state(i)) }, 5*time.Second, time.Millisecond)
	return c
}

// One failure of the service is pending, so that each request needs a permit: of those that say nothing it is still the only one in a row.
func TestVerdict_whileAFailureIsPending(t *testing.T) {
	t.Parallel()
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			s := startVerdicts(t, verdictRows, block{"failureThreshold": 1000, "resetTimeout": "1h"}, change)
			for i, row := range verdictRows {
				if row.service == "nobody" || !runsRow(source, i, 0) {
					continue
				}
				t.Run(row.name, func(t *testing.T) {
					c := s.afterAFailure(t, i, row, func(state, failures string) bool { return failures == "1" })
					row.send(c)
					if row.opens {
						require.Eventually(t, func() bool { _, failures := s.state(i); return failures > "1" }, soon, time.Millisecond)
						return
					}
					row.send(c)
					if row.answers {
						require.Eventually(t, func() bool { _, failures := s.state(i); return failures == "0" }, soon, time.Millisecond)
						return
					}
					time.Sleep(100 * time.Millisecond) // for a report that must not come
					_, failures := s.state(i)
					require.Equal(t, "1", failures, "failures in a row")
				})
			}
		})
	}
}

// A request that says nothing gives the place of a probe back: the circuit stays half-open, and the next honest ones close it.
// The recorder learns the status of every probe, so each row runs with one of the static files only.
func TestVerdict_ofProbes(t *testing.T) {
	t.Parallel()
	third := 0
	for source, change := range statusSources {
		third++
		part := third
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			breaker := block{"failureThreshold": 1, "resetTimeout": "300ms", "halfOpenSuccessThreshold": 2, "halfOpenMaxProbes": 1}
			s := startVerdicts(t, verdictRows, breaker, change)
			for i, row := range verdictRows {
				if row.service == "nobody" || row.late || i%len(statusSources) != part%len(statusSources) {
					continue
				}
				t.Run(row.name, func(t *testing.T) {
					c := s.afterAFailure(t, i, row, func(state, failures string) bool { return state == "open" })
					time.Sleep(350 * time.Millisecond)
					if row.opens {
						before := s.generation(i)
						row.send(c)
						require.Eventually(t, func() bool {
							state, _ := s.state(i)
							return state == "open" && s.generation(i) != before
						}, soon, time.Millisecond)
						return
					}
					if row.answers {
						row.send(c)
						row.send(c)
						state, _ := s.state(i)
						require.Equal(t, "closed", state)
						return
					}
					for range 3 {
						row.send(c)
						time.Sleep(50 * time.Millisecond)
						arrived := func() bool { state, _ := s.state(i); return state == "half-open" }
						require.Eventually(t, arrived, soon, time.Millisecond)
						given := func() bool { return len(s.probes(i)) == 0 } // long before probeTimeout, which is 10 s
						require.Eventually(t, given, soon, time.Millisecond, "places held")
					}
					c.requireHonest(row.name)
					c.requireHonest(row.name)
					state, _ := s.state(i)
					require.Equal(t, "closed", state)
				})
			}
		})
	}
}

// requireHonest requires that an honest request passes. On a busy machine one that was reset may arrive only now, and hold the only place
// for a moment: for less than probeTimeout, which is 10 s.
func (c *verdictClient) requireHonest(name string) {
	c.t.Helper()
	passes := func() bool { return c.get("/ok") == 200 }
	assert.Eventually(c.t, passes, 5*time.Second, 10*time.Millisecond, name)
}

// generation returns the number of the state that a row's circuit is in.
func (s *verdictStage) generation(i int) string {
	return s.server.Hash(fmt.Sprintf("resilience:{row-%d}:breaker", i))["generation"]
}

// probes returns the places that probes hold.
func (s *verdictStage) probes(i int) []string {
	return probesIn(s.server.Hash(fmt.Sprintf("resilience:{row-%d}:breaker", i)))
}

func probesIn(breaker map[string]string) []string {
	var held []string
	for field := range breaker {
		if strings.HasPrefix(field, "probe:") {
			held = append(held, field)
		}
	}
	return held
}

// requireOpens requires that five failures open a row's circuit. A failure that took half a second may be the client's: it counts only
// where requests are watched closely, as they are from then on. Only where the machine was that slow, five more are sent.
func (s *verdictStage) requireOpens(t *testing.T, i int, name string, five func()) {
	t.Helper()
	for {
		begun := time.Now()
		five()
		slow := time.Since(begun) > 500*time.Millisecond
		isOpen := func() bool { state, _ := s.state(i); return state == "open" }
		for end := time.Now().Add(5 * time.Second); !isOpen() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		if !slow || isOpen() {
			_, failures := s.state(i)
			assert.True(t, isOpen(), "%s: %s failures", name, failures)
			return
		}
		t.Logf("%s: five more, because five took %s", name, time.Since(begun))
	}
}

func TestVerdict_ofAHealthyCircuit(t *testing.T) {
	t.Parallel()
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			s := startVerdicts(t, verdictRows, block{"failureThreshold": 5, "resetTimeout": "1h"}, change)
			for i, row := range verdictRows {
				if !runsRow(source, i, 1) {
					continue
				}
				t.Run(row.name, func(t *testing.T) {
					c := s.client(t, i)
					if row.first != nil {
						row.first(c)
					}
					honest := row.service != "nobody"
					if honest {
						require.Equal(t, 200, c.get("/ok"))
						require.Equal(t, 200, c.get("/ok"))
					}
					five := func() {
						var sent sync.WaitGroup
						for range 5 {
							sent.Go(func() { row.send(c) })
						}
						sent.Wait()
					}
					if row.opens {
						s.requireOpens(t, i, row.name, five)
						return
					}
					five()
					time.Sleep(100 * time.Millisecond) // for a report that must not come
					state, failures := s.state(i)
					require.Equal(t, "closed", state)
					require.Contains(t, []string{"", "0"}, failures)
					require.Equal(t, 200, c.get("/ok"))
				})
			}
		})
	}
}
