package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// pair is one Traefik with the same routes behind two entry points: at one through the middleware, at the other without it.
type pair struct {
	*traefik
	plain   string // host and port of the entry point without
	dynamic string // folder
	up      *upstream
	server  *redistest.Server
}

// verdict is what the breaker must make of an answer, by the failures that it has seen in a row: one before each answer.
type verdict string

const (
	succeeded verdict = "0" // ends the row
	unknown   verdict = "1" // says nothing
	failed    verdict = "2" // is one more
)

func startPair(t *testing.T, change func(static map[string]any)) *pair {
	t.Helper()
	p := &pair{plain: freeAddress(t), dynamic: t.TempDir(), up: startUpstream(t), server: redistest.Start(t)}
	writeDynamic(t, p.dynamic, block{
		"redis":          redisBlock(p.server),
		"rateLimit":      block{"capacity": 1000000},
		"circuitBreaker": block{"failureThreshold": 1000},
	})
	routers := block{}
	below := []string{"redirect", "strip-proxy", "panics"}
	for entryPoint, middlewares := range map[string][]string{"web": append([]string{"gateway"}, below...), "plain": below} {
		for service, rule := range map[string]string{"upstream": "PathPrefix(`/proxy/`)", "nobody": "Path(`/proxy/nobody`)"} {
			routers[service+"-"+entryPoint] = block{
				"rule": rule, "priority": 1000 - len(service), "entryPoints": []string{entryPoint}, "middlewares": middlewares,
				"service": service,
			}
		}
	}
	writeYAML(t, filepath.Join(p.dynamic, "pair.yml"), block{"http": block{
		"routers": routers,
		"middlewares": block{
			"panics":   block{"plugin": block{"panics": block{"any": 1}}},
			"redirect": block{"redirectRegex": block{"regex": ".*/moved", "replacement": "http://shop.example/new"}},
		},
		"services": block{"nobody": block{"loadBalancer": block{"servers": []block{}}}},
	}})
	withGauges := gauges(t, p.dynamic)
	p.traefik = startTraefik(t, options{
		upstream: p.up, dynamic: p.dynamic, workDir: withPanics(t), panics: true,
		change: func(static map[string]any) {
			withGauges(static)
			gateway.Set(static, p.plain, "entryPoints", "plain", "address")
			gateway.Set(static, "github.com/resilient-gateway/panics", "experimental", "localPlugins", "panics", "moduleName")
			if change != nil {
				change(static)
			}
		},
	})
	return p
}

// withPanics makes a working directory with our bundle, and the plugin that panics beside it.
func withPanics(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "plugins-local", "src", "github.com", "resilient-gateway")
	bundle := filepath.Join(root(t), "dist", "plugins-local", "src", "github.com", "resilient-gateway", "resilience")
	require.NoError(t, os.CopyFS(filepath.Join(source, "resilience"), os.DirFS(bundle)))
	require.NoError(t, os.CopyFS(filepath.Join(source, "panics"), os.DirFS("testdata/panics")))
	return dir
}

// failures returns how many failures in a row Redis knows of.
func (p *pair) failures() string { return p.server.Hash(breakerKey)["failures"] }

// judge has one failure stand in Redis, lets an answer come, and requires the breaker's verdict on it.
func (p *pair) judge(t *testing.T, want verdict, answer func()) {
	t.Helper()
	p.fail(t)
	answer()
	if want == unknown {
		require.Eventually(t, func() bool { return p.up.stats().InFlight.Now == 0 }, 5*time.Second, time.Millisecond)
		time.Sleep(100 * time.Millisecond)
	}
	require.Eventually(t, func() bool { return p.failures() == string(want) }, 5*time.Second, time.Millisecond,
		"the breaker has seen %s failures in a row", verdict(p.failures()))
}

// fail has one failure stand in Redis. The success of a connection that was upgraded before may arrive late, and end the failure: then it
// tries again.
func (p *pair) fail(t *testing.T) {
	t.Helper()
	for range 5 {
		require.Equal(t, http.StatusOK, p.get("/proxy/ok").status)
		require.Equal(t, http.StatusInternalServerError, p.get("/proxy/fail").status)
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if p.failures() == "1" {
				return
			}
		}
	}
	require.Equal(t, "1", p.failures())
}

// makeHealthy makes the circuit healthy and refreshes the gateway's view of it: only then does the middleware pass on Traefik's own writer.
func (p *pair) makeHealthy(t *testing.T) {
	t.Helper()
	require.Equal(t, http.StatusOK, p.get("/proxy/ok").status)
	require.Equal(t, http.StatusOK, p.get("/proxy/ok").status)
}

// step is what a client sends, and what it then waits for before it goes on.
type step struct{ send, until string }

// talk takes the steps on a new connection, and returns all that came until the other side closed it.
func talk(t *testing.T, address string, steps ...step) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	var got bytes.Buffer
	piece := make([]byte, 64<<10)
	for _, s := range steps {
		_, err := io.WriteString(c, s.send)
		require.NoError(t, err)
		for s.until != "" && !strings.Contains(got.String(), s.until) {
			n, err := c.Read(piece)
			require.NoError(t, err, got.String())
			got.Write(piece[:n])
		}
	}
	_, err = io.Copy(&got, c)
	require.NoError(t, err, got.String())
	return got.String()
}

// varying is what differs between any two answers: of 400 on the route without us, three said twice to go on.
var varying = regexp.MustCompile(`(?m)^(Date): .*$|("remoteAddr"):"[^"]*"|(HTTP/1.1 100 Continue\r\n\r\n)+`)

func masked(answer string) string {
	return varying.ReplaceAllString(answer, "$1$2$3")
}

// requireSame shows no more of two long texts than where they begin to differ.
func requireSame(t *testing.T, want, got string) {
	t.Helper()
	at := 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	const around = 300
	show := func(text string) string { return text[max(0, at-around):min(len(text), at+around)] }
	require.Equal(t, show(want), show(got), "at byte %d of %d and %d", at, len(want), len(got))
}

// request is the text of one that is the last on its connection.
func request(line string, headers ...string) string {
	return line + "\r\nHost: shop.example\r\nConnection: close\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func get(path string, headers ...string) []step {
	return []step{{send: request("GET /proxy"+path+" HTTP/1.1", headers...)}}
}

func socket(path string, frames ...string) []step {
	handshake := "GET /proxy" + path + " HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	return []step{{handshake, "\r\n\r\n"}, {send: strings.Join(frames, "")}}
}

// frame is a client's WebSocket frame, under a mask of zeros.
func frame(opcode byte, payload string) string {
	return string([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}) + payload
}

const (
	textFrame, binaryFrame = 1, 2
	closeFrame, ping       = 8, 9
)

// conversations are what a client may have with an upstream over HTTP/1, the answer's first words, and the breaker's
// verdict.
var conversations = []struct {
	name    string
	steps   []step
	begins  string
	verdict verdict
	cut     bool // mid-body: where exactly is chance, and the recorder, which holds nothing back, delivers more
}{
	{"a small answer", get("/ok"), "HTTP/1.1 200", succeeded, false},
	{"HEAD", []step{{send: request("HEAD /proxy/download?bytes=1000 HTTP/1.1")}}, "HTTP/1.1 200", succeeded, false},
	{"HEAD of what has no length", []step{{send: request("HEAD /proxy/chunks?interval=0 HTTP/1.1")}}, "HTTP/1.1 200", succeeded, false},
	{"OPTIONS", []step{{send: request("OPTIONS /proxy/echo HTTP/1.1", "Origin: http://a.example")}}, "HTTP/1.1 200", succeeded, false},
	{"a method of its own", []step{{send: request("PROPFIND /proxy/echo HTTP/1.1")}}, "HTTP/1.1 200", succeeded, false},
	{"HTTP/1.0", []step{{send: request("GET /proxy/chunks?interval=0.02 HTTP/1.0")}}, "HTTP/1.0 200", succeeded, false},
	{"headers as they are", get("/echo?a=%2F&b=ü", "X-Custom: ä\t1", "Cookie: a=1", "Cookie: b=2", "Accept-Encoding: gzip"), "HTTP/1.1 200", succeeded, false},
	{"a range", get("/download?bytes=100000", "Range: bytes=1000-1999"), "HTTP/1.1 206", succeeded, false},
	{"a range beyond the end", get("/download?bytes=100000", "Range: bytes=200000-"), "HTTP/1.1 416", succeeded, false},
	{"chunks", get("/chunks?pieces=4&interval=0.05"), "HTTP/1.1 200", succeeded, false},
	{"pieces of a known length", get("/chunks?pieces=4&interval=0.05&length=1"), "HTTP/1.1 200", succeeded, false},
	{"server-sent events", get("/sse?events=4&interval=0.05"), "HTTP/1.1 200", succeeded, false},
	{"early hints", get("/hints"), "HTTP/1.1 103", succeeded, false},
	{"trailers", get("/trailers", "TE: trailers"), "HTTP/1.1 200", succeeded, false},
	{"100-continue", []step{
		{request("POST /proxy/upload HTTP/1.1", "Expect: 100-continue", "Content-Length: 4"), "\r\n\r\n"}, {send: "body"},
	}, "HTTP/1.1 100", succeeded, false},
	{"an upload in chunks, with a trailer", []step{{send: request("POST /proxy/upload HTTP/1.1", "Transfer-Encoding: chunked", "Trailer: X-Sum") +
		"4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n"}}, "HTTP/1.1 200", succeeded, false},
	{"204", get("/status/204"), "HTTP/1.1 204", succeeded, false},
	{"304", get("/status/304"), "HTTP/1.1 304", succeeded, false},
	{"a redirect", get("/status/302"), "HTTP/1.1 302", succeeded, false},
	{"404", get("/nowhere"), "HTTP/1.1 404", succeeded, false},
	{"the upstream's own 429", get("/status/429"), "HTTP/1.1 429", succeeded, false},
	{"500", get("/fail"), "HTTP/1.1 500", failed, false},
	{"the upstream's own 503", get("/status/503?body=closed+for+lunch"), "HTTP/1.1 503", failed, false},
	{"an upstream that hangs up", []step{{send: request("POST /proxy/hangup HTTP/1.1", "Content-Length: 0")}}, "HTTP/1.1 502", failed, false},
	{"a service without a server", get("/nobody"), "HTTP/1.1 503", failed, false},
	{"a redirect of Traefik's own", get("/moved"), "HTTP/1.1 302", succeeded, false},
	{"an upstream gone mid-body", get("/abort?after=100000"), "HTTP/1.1 200", failed, true},
	{"a panic below", get("/panic"), "HTTP/1.1 500", failed, false},
	{"a panic below, mid-body", get("/panic/late"), "", failed, true},
	{"a WebSocket: text, binary, ping, and closed by the client", socket("/ws",
		frame(textFrame, "hello"), frame(binaryFrame, "\x00\xff"), frame(ping, "are you there"), frame(closeFrame, "\x0f\xa1bye")),
		"HTTP/1.1 101", succeeded, false},
	{"a WebSocket closed by the upstream", socket("/ws?close=3001", frame(closeFrame, "\x0b\xb9")), "HTTP/1.1 101", succeeded, false},
	{"a WebSocket that is cut", socket("/ws", frame(3, "no such frame")), "HTTP/1.1 101", succeeded, false},
	{"an upgrade that the upstream refuses", append(socket("/status/403"), get("/ok")...), "HTTP/1.1 403", succeeded, false},
}

func TestTransparency_http1IsTheSameByteForByte(t *testing.T) {
	t.Parallel()
	eachSource(t, func(t *testing.T, p *pair) {
		for _, row := range conversations {
			t.Run(row.name, func(t *testing.T) {
				want := masked(talk(t, p.plain, row.steps...))
				require.Equal(t, row.begins, want[:min(len(want), len(row.begins))])
				requireLike := func() {
					got := masked(talk(t, p.web, row.steps...))
					if row.cut {
						require.GreaterOrEqual(t, len(got), len(want)*9/10)
						common := min(len(got), len(want))
						want, got = want[:common], got[:common]
					}
					requireSame(t, want, got)
				}
				p.makeHealthy(t)
				requireLike()
				p.judge(t, row.verdict, requireLike)
			})
		}
	})
}

// told is an answer over HTTP/2 as the client sees it.
type told struct {
	proto    string
	hints    []string
	status   int
	header   http.Header
	length   int64
	body     string
	trailer  http.Header
	cutShort bool
}

// http2 speaks HTTP/2 without TLS, as the entry points do.
var http2 = func() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Protocols: protocols}, CheckRedirect: noRedirect}
}()

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func ask(t *testing.T, address, method, path, body string) told {
	t.Helper()
	var heard told
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		heard.hints = append(heard.hints, fmt.Sprint(code, header))
		return nil
	}}
	ctx := httptrace.WithClientTrace(t.Context(), trace)
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/proxy"+path, strings.NewReader(body))
	require.NoError(t, err)
	request.Host = "shop.example"
	request.Header.Set("Range", "bytes=10-19")
	response, err := http2.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	heard.proto, heard.status, heard.length = response.Proto, response.StatusCode, response.ContentLength
	heard.header, heard.trailer, heard.body = response.Header, response.Trailer, masked(string(content))
	if err != nil {
		heard.cutShort, heard.body = true, "" // where it was cut is chance
	}
	delete(heard.header, "Date")
	return heard
}

func TestTransparency_http2IsTheSame(t *testing.T) {
	t.Parallel()
	eachSource(t, func(t *testing.T, p *pair) {
		for _, row := range []struct {
			method, path, body string
			status             int
			verdict            verdict
		}{
			{"GET", "/ok", "", 200, succeeded},
			{"HEAD", "/download?bytes=1000", "", 206, succeeded},
			{"HEAD", "/chunks?interval=0", "", 200, succeeded},
			{"GET", "/download?bytes=100000", "", 206, succeeded},
			{"POST", "/echo?a=%2F", "a body", 200, succeeded},
			{"POST", "/upload", strings.Repeat("a body", 100000), 200, succeeded},
			{"GET", "/chunks?interval=0.05", "", 200, succeeded},
			{"GET", "/chunks?interval=0.05&length=1", "", 200, succeeded},
			{"GET", "/sse?interval=0.05", "", 200, succeeded},
			{"GET", "/hints", "", 200, succeeded},
			{"GET", "/trailers", "", 200, succeeded},
			{"GET", "/status/204", "", 204, succeeded},
			{"GET", "/status/404", "", 404, succeeded},
			{"GET", "/moved", "", 302, succeeded},
			{"GET", "/fail", "", 500, failed},
			{"HEAD", "/fail", "", 500, failed},
			{"GET", "/nobody", "", 503, failed},
			{"POST", "/hangup", "", 502, failed},
			{"GET", "/abort?after=100000", "", 200, failed},
			{"GET", "/panic", "", 500, failed},
		} {
			t.Run(row.method+" "+row.path, func(t *testing.T) {
				want := ask(t, p.plain, row.method, row.path, row.body)
				require.Equal(t, "HTTP/2.0", want.proto)
				require.Equal(t, row.status, want.status)
				p.makeHealthy(t)
				require.Equal(t, want, ask(t, p.web, row.method, row.path, row.body))
				p.judge(t, row.verdict, func() {
					require.Equal(t, want, ask(t, p.web, row.method, row.path, row.body))
				})
			})
		}
	})
}

const gigabyte = 1 << 30

// pattern is the upstream's body: the byte at offset i is i modulo 251.
func pattern(size int64) io.Reader {
	period := make([]byte, 251)
	for i := range period {
		period[i] = byte(i)
	}
	return io.LimitReader(&endless{piece: bytes.Repeat(period, 256)}, size)
}

// endless repeats its piece.
type endless struct {
	piece []byte
	at    int
}

func (e *endless) Read(into []byte) (int, error) {
	n := copy(into, e.piece[e.at:])
	e.at = (e.at + n) % len(e.piece)
	return n, nil
}

// requireFlat requires that Traefik takes no more than most bytes from the system on the way.
func (p *pair) requireFlat(t *testing.T, most int64, do func()) {
	t.Helper()
	before := p.memory().Sys
	do()
	grown := p.memory().Sys - before
	t.Logf("memory grew by %d KB", grown>>10)
	require.Less(t, grown, most)
}

func TestTransparency_aGigabyteTakesNoMemory(t *testing.T) {
	eachSource(t, func(t *testing.T, p *pair) {
		p.makeHealthy(t)
		t.Run("down", func(t *testing.T) {
			p.judge(t, succeeded, func() {
				p.requireFlat(t, 64<<20, func() {
					response, err := client.Get(p.url(fmt.Sprint("/proxy/download?bytes=", gigabyte)))
					require.NoError(t, err)
					defer response.Body.Close()
					sum := crc32.NewIEEE()
					n, err := io.Copy(sum, response.Body)
					require.NoError(t, err)
					require.Equal(t, int64(gigabyte), n)
					want := crc32.NewIEEE()
					io.Copy(want, pattern(gigabyte))
					require.Equal(t, want.Sum32(), sum.Sum32())
				})
			})
		})
		t.Run("up", func(t *testing.T) {
			p.judge(t, succeeded, func() {
				p.requireFlat(t, 64<<20, func() {
					digest := sha256.New()
					request, err := http.NewRequest(http.MethodPost, p.url("/proxy/upload"), io.TeeReader(pattern(gigabyte), digest))
					require.NoError(t, err)
					request.ContentLength = gigabyte
					r := send(request)
					require.NoError(t, r.err)
					require.Equal(t, fmt.Sprintf(`{"bytes":%d,"sha256":"%x"}`, gigabyte, digest.Sum(nil)), r.body)
				})
			})
		})
	})
}

func TestTransparency_aSlowReaderIsWaitedFor(t *testing.T) {
	const size = 64 << 20
	eachSource(t, func(t *testing.T, p *pair) {
		p.judge(t, succeeded, func() {
			p.requireFlat(t, 32<<20, func() {
				response, err := client.Get(p.url(fmt.Sprint("/proxy/download?bytes=", size)))
				require.NoError(t, err)
				defer response.Body.Close()
				sum, want := crc32.NewIEEE(), crc32.NewIEEE()
				for range 20 {
					_, err := io.CopyN(sum, response.Body, 100<<10)
					require.NoError(t, err)
					time.Sleep(25 * time.Millisecond)
				}
				require.Equal(t, 1, p.up.stats().InFlight.Now, "the upstream waits, too")
				_, err = io.Copy(sum, response.Body)
				require.NoError(t, err)
				io.Copy(want, pattern(size))
				require.Equal(t, want.Sum32(), sum.Sum32())
			})
		})
	})
}

// leave sends a request, reads the first bytes of its answer, and goes away.
func leave(t *testing.T, address, path string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, request("GET /proxy"+path+" HTTP/1.1"))
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
	io.CopyN(io.Discard, c, 1000)
}

func TestTransparency_theUpstreamNoticesADisconnect(t *testing.T) {
	t.Parallel()
	eachSource(t, func(t *testing.T, p *pair) {
		for _, path := range []string{"/slow?seconds=30", "/sse?events=100&interval=0.2", "/download?bytes=1073741824"} {
			t.Run(path, func(t *testing.T) {
				for _, address := range []string{p.plain, p.web} {
					p.judge(t, unknown, func() {
						leave(t, address, path)
						gone := func() bool { return p.up.stats().InFlight.Now == 0 }
						require.Eventually(t, gone, soon, time.Millisecond)
					})
				}
			})
		}
	})
}
