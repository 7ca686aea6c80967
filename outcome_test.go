package resilience

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/resilient-gateway/resilience/internal/recorder"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/stretchr/testify/require"
)

// failing is a reader that ends with an error.
type failing struct{ err error }

func (f *failing) Read(p []byte) (int, error) { return 0, f.err }

func requestWith(method string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, "/", body)
	if body != nil {
		r.ContentLength = -1
	}
	return r
}

func TestBodyOf(t *testing.T) {
	for _, row := range []struct {
		name string
		body io.Reader
		read bool
		want int
	}{
		{"none", nil, false, bodyWhole},
		{"read to its end", strings.NewReader("abc"), true, bodyWhole},
		{"not read", strings.NewReader("abc"), false, bodyUnfinished},
		{"malformed", &failing{errors.New("malformed chunked encoding")}, true, bodyBroken},
		{"broken off", &failing{io.ErrUnexpectedEOF}, true, bodyBroken},
		{"too slow for the server", &failing{os.ErrDeadlineExceeded}, true, bodyBroken},
		{"read after it was closed", &failing{http.ErrBodyReadAfterClose}, true, bodyUnfinished},
		{"closed by the handler, over HTTP/2", &failing{errors.New("body closed by handler")}, true, bodyUnfinished},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			r := requestWith("POST", row.body)
			trackOnce(r)
			trackOnce(r) // the slow path may come after the fast one
			if row.read {
				io.Copy(io.Discard, r.Body)
			}
			require.Equal(t, row.want, bodyOf(r))
			r.Body = io.NopCloser(r.Body)
			require.Equal(t, row.want, bodyOf(r), "behind another reader that does nothing")

			watched := requestWith("POST", row.body)
			if row.body == nil {
				return
			}
			body := watchBody(watched)
			if row.read {
				io.Copy(io.Discard, watched.Body)
			}
			if _, isText := row.body.(*strings.Reader); !isText {
				require.Equal(t, row.want, body.end(), "watched closely")
			}
		})
	}
}

// words are Traefik's own for a status.
func words(status int) int64 { return int64(len(http.StatusText(status))) }

func TestExchange_outcome(t *testing.T) {
	const unknown, success, failure = breaker.Unknown, breaker.Success, breaker.Failure
	get := func(change func(r *http.Request)) *http.Request {
		r := requestWith("GET", nil)
		if change != nil {
			change(r)
		}
		return r
	}
	post := func(err error) *http.Request {
		r := requestWith("POST", &failing{err})
		trackOnce(r)
		if err != nil {
			io.Copy(io.Discard, r.Body)
		}
		return r
	}
	for _, row := range []struct {
		name   string
		r      *http.Request
		x      exchange
		want   breaker.Outcome
		doubts bool
	}{
		{"200", get(nil), exchange{status: 200, dated: true, finished: true}, success, false},
		{"the service's 500", get(nil), exchange{status: 500, dated: true, finished: true}, failure, false},
		{"one without a date", get(nil), exchange{status: 500, size: 5, finished: true}, failure, false},
		{"Traefik's own", get(nil), exchange{status: 500, size: words(500), finished: true}, failure, false},
		{"Traefik's own, to half a body", post(io.ErrUnexpectedEOF), exchange{status: 500, size: words(500), finished: true}, unknown, false},
		{"its 502, to half a body", post(io.ErrUnexpectedEOF), exchange{status: 502, size: words(502), finished: true}, unknown, false},
		{"its 504, to a body that came too slowly", post(os.ErrDeadlineExceeded), exchange{status: 504, size: words(504), finished: true}, unknown, false},
		{"its 502, to a whole body", post(io.EOF), exchange{status: 502, size: words(502), finished: true}, failure, false},
		{"the service's 502, to half a body", post(io.ErrUnexpectedEOF), exchange{status: 502, dated: true, finished: true}, failure, false},
		{"a middleware's, by http.Error", post(io.ErrUnexpectedEOF), exchange{status: 500, size: 30, finished: true,
			header: http.Header{"X-Content-Type-Options": {"nosniff"}}}, unknown, false},
		{"a middleware's, empty", post(io.ErrUnexpectedEOF), exchange{status: 500, finished: true}, unknown, false},
		{"an empty one of a service without a date", get(nil), exchange{status: 500, finished: true}, failure, false},
		{"of one that tells the length", post(io.ErrUnexpectedEOF), exchange{status: 500, finished: true,
			header: http.Header{"Content-Length": {"0"}}}, failure, false},
		{"503 of its balancer", get(nil), exchange{status: 503, size: 30, finished: true}, failure, false},
		{"CONNECT", get(func(r *http.Request) { r.Method = "CONNECT" }), exchange{status: 501, finished: true}, unknown, false},
		{"CONNECT over HTTP/2, answered", get(func(r *http.Request) { r.Method, r.ProtoMajor = "CONNECT", 2 }), exchange{status: 500, dated: true, finished: true}, failure, false},
		{"CONNECT over HTTP/2, not answered", get(func(r *http.Request) { r.Method, r.ProtoMajor = "CONNECT", 2 }),
			exchange{status: 502, size: words(502), finished: true}, unknown, false},
		{"a method that is none", get(func(r *http.Request) { r.Method = "G T" }), exchange{status: 500, size: words(500), finished: true}, unknown, false},
		{"a host that cannot be", get(func(r *http.Request) { r.Host = "\xff" }), exchange{status: 500, size: words(500), finished: true}, unknown, false},
		{"long headers", get(func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 5000)) }),
			exchange{status: 500, size: words(500), finished: true}, unknown, false},
		{"long headers, and nobody listens", get(func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 5000)) }),
			exchange{status: 502, size: words(502), finished: true}, failure, false},
		{"an upgrade that is not answered", get(func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}), exchange{status: 502, size: words(502), finished: true}, unknown, false},
		{"by a service that knows upgrades", get(func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}), exchange{status: 502, size: words(502), finished: true, switches: true}, failure, false},
		{"a cut", get(nil), exchange{status: 200, dated: true}, failure, false},
		{"a late cut", get(nil), exchange{status: 200, dated: true, arrived: time.Now().Add(-time.Minute)}, unknown, true},
		{"a late cut, watched", get(nil), exchange{status: 200, arrived: time.Now().Add(-time.Minute),
			watched: &watch{recorder: &recorder.Recorder{Waited: 400 * time.Millisecond}}}, failure, false},
		{"a late cut, of a client that was waited for", get(nil), exchange{status: 200, arrived: time.Now().Add(-time.Minute),
			watched: &watch{recorder: &recorder.Recorder{Waited: 600 * time.Millisecond}}}, unknown, false},
		{"a cut of a POST", post(io.EOF), exchange{status: 200}, unknown, true},
		{"a cut of a POST, watched", post(io.EOF), exchange{status: 200,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.EOF}}}, failure, false},
		{"a cut of half a POST, watched", post(nil), exchange{status: 200,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{}}}, unknown, false},
		{"502 in the middle of an upload", post(nil), exchange{status: 502, size: words(502), finished: true}, failure, false},
		{"502 late in an upload", post(nil), exchange{status: 502, size: words(502), finished: true, arrived: time.Now().Add(-time.Minute)}, unknown, true},
		{"502 late in an upload of a prompt client", post(nil), exchange{status: 502, size: words(502), finished: true, arrived: time.Now().Add(-time.Minute),
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{}}}, failure, false},
		{"502 late in an upload of a slow client", post(nil), exchange{status: 502, size: words(502), finished: true, arrived: time.Now().Add(-time.Minute),
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{took: time.Second}}}, unknown, false},
		{"the service's 500 of a POST", post(nil), exchange{status: 500, dated: true, finished: true}, failure, false},
		{"the same, late", post(nil), exchange{status: 500, dated: true, finished: true, arrived: time.Now().Add(-time.Minute)}, unknown, true},
		{"late, to a whole body", post(nil), exchange{status: 500, dated: true, finished: true, arrived: time.Now().Add(-time.Minute),
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.EOF, took: time.Second}}}, failure, false},
		{"late, to a client that was waited for", post(nil), exchange{status: 500, dated: true, finished: true, arrived: time.Now().Add(-time.Minute),
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{took: time.Second}}}, unknown, false},
		{"a page for a broken body, watched", post(nil), exchange{status: 502, dated: true, finished: true,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.ErrUnexpectedEOF}}}, unknown, false},
		{"Traefik's 500, in the middle of an upload", post(nil), exchange{status: 500, size: words(500), finished: true}, failure, false},
		{"one for a body that another middleware has decoded", func() *http.Request {
			r := post(nil)
			r.Body = io.NopCloser(&failing{errors.New("illegal base64 data")})
			return r
		}(), exchange{status: 500, size: 36, finished: true}, unknown, false},
		{"a target that is no path", get(func(r *http.Request) { r.URL.Opaque = "y" }), exchange{status: 500, size: words(500), finished: true}, unknown, false},
		{"a method that few know", get(func(r *http.Request) { r.Method = "PROPFIND" }), exchange{status: 500, size: words(500), finished: true}, failure, false},
		{"a header in UTF-8", get(func(r *http.Request) { r.Header.Set("X-Name", "caf\xc3\xa9") }), exchange{status: 500, size: words(500), finished: true}, failure, false},
		{"a header with a control character", get(func(r *http.Request) { r.Header.Set("X-Name", "\x7f") }), exchange{status: 500, size: words(500), finished: true}, unknown, false},
		{"headers that most services refuse", get(func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 9000)) }),
			exchange{status: 502, size: words(502), finished: true}, unknown, false},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			x := row.x
			x.r = row.r
			if x.arrived.IsZero() {
				x.arrived = time.Now()
			}
			x.now = time.Now()
			require.Equal(t, row.want, x.outcome())
			require.Equal(t, row.doubts, x.doubtful)
		})
	}
}

// rawly sends a text to the gateway, and waits for the end of the answer.
func rawly(t *testing.T, address, text string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	io.WriteString(c, text)
	io.Copy(io.Discard, c)
}

// Around a real proxy: nobody asks a body that the transport may still be reading.
func TestExchange_behindAProxy(t *testing.T) {
	const head = "POST /%s HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	post := func(path, chunks string) string { return strings.Replace(head, "%s", path, 1) + chunks }
	for _, row := range []struct {
		name, text string
		opens      bool
	}{
		{"a bad chunk", post("read", "3\r\nabc\r\nzz\r\n"), false},
		{"a bad chunk after an answer has begun", post("early", "3\r\nabc\r\nzz\r\n"), false},
		{"an answer that is cut while the client sends", post("cut", "3\r\nabc\r\n"+strings.Repeat("3\r\nabc\r\n", 20000)+"0\r\n\r\n"), false},
		{"a service that hangs up", post("hangup", "3\r\nabc\r\n0\r\n\r\n"), true},
		{"500", post("500", "3\r\nabc\r\n0\r\n\r\n"), true},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/early":
					io.WriteString(w, "early")
					http.NewResponseController(w).EnableFullDuplex()
					http.NewResponseController(w).Flush()
					io.Copy(io.Discard, r.Body)
				case "/cut":
					io.WriteString(w, "half of it")
					http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				case "/hangup":
					io.Copy(io.Discard, r.Body)
					panic(http.ErrAbortHandler)
				case "/500":
					io.Copy(io.Discard, r.Body)
					w.WriteHeader(http.StatusInternalServerError)
				default:
					io.Copy(io.Discard, r.Body)
				}
			}))
			defer origin.Close()
			address, err := url.Parse(origin.URL)
			require.NoError(t, err)
			proxy := httputil.NewSingleHostReverseProxy(address)
			proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
				w.WriteHeader(http.StatusBadGateway)
				io.WriteString(w, http.StatusText(http.StatusBadGateway))
			}
			newProcess(t, time.Minute)
			handler, up := newGateway(t, &Config{CircuitBreaker: failures("3")})
			up.will(proxy)
			front := httptest.NewServer(handler)
			defer front.Close()
			for i := 0; i < 3; i++ {
				rawly(t, front.Listener.Addr().String(), row.text)
			}
			time.Sleep(20 * time.Millisecond)
			up.will(status(http.StatusOK))
			want := http.StatusOK
			if row.opens {
				want = http.StatusServiceUnavailable
			}
			require.Equal(t, want, get(handler))
		})
	}
}

func TestHang(t *testing.T) {
	reports := make(chan bool, 10)
	report := func() { reports <- true }
	m := &Middleware{settings: &settings{}}
	require.True(t, m.newHang(report) == nil, "off")
	m.hangTimeout = 30 * time.Millisecond

	late := m.newHang(report)
	late.begin()
	late.begin()
	<-reports
	require.True(t, late.end())

	prompt := m.newHang(report)
	prompt.begin()
	require.False(t, prompt.end())

	r := requestWith("POST", strings.NewReader("abc"))
	uploading := m.newHang(report)
	uploading.beginWith(watchBody(r))
	io.ReadFull(r.Body, make([]byte, 3))
	time.Sleep(60 * time.Millisecond)
	require.Len(t, reports, 0, "the body has not ended")
	io.Copy(io.Discard, r.Body)
	<-reports

	broken := requestWith("POST", &failing{io.ErrUnexpectedEOF})
	never := m.newHang(report)
	never.beginWith(watchBody(broken))
	io.Copy(io.Discard, broken.Body)
	time.Sleep(60 * time.Millisecond)
	require.False(t, never.end(), "the body has not ended well")
	require.Len(t, reports, 0)
}

// Where it cannot be told whose failure an answer is, the next ones go through a recorder for a while, and then past it again.
func TestWatchClosely(t *testing.T) {
	newProcess(t, time.Minute)
	m, err := newMiddleware(context.Background(), status(http.StatusOK), &Config{CircuitBreaker: failures("3")}, nameOf(t))
	require.NoError(t, err)
	source := func(now int64) (known, closely bool) {
		own, closely := statusSourceFor(m, statuswriter.New(), now)
		return own == m.source, closely
	}
	now := m.now()
	known, closely := source(now)
	require.True(t, known)
	require.False(t, closely)

	outcome := m.judge(&exchange{r: requestWith("GET", nil), status: http.StatusOK, arrived: time.Now().Add(-time.Minute)})
	require.Equal(t, breaker.Unknown, outcome)
	_, closely = source(now)
	require.True(t, closely)
	require.True(t, m.source.writer == nil, "no request goes the fast way")

	known, closely = source(m.watchUntil)
	require.True(t, known)
	require.False(t, closely)
	require.True(t, m.source.writer != nil)
	other, _ := statusSourceFor(m, statuswriter.NewSized(), m.watchUntil)
	require.True(t, other != m.source && other != nil, "another writer is not the route's own")
}
