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

// statusTextSize is the length of the body that Traefik writes for a status.
func statusTextSize(status int) int64 { return int64(len(http.StatusText(status))) }

func TestExchange_outcome(t *testing.T) {
	const unknown, success, failure = breaker.Unknown, breaker.Success, breaker.Failure
	aMinuteAgo := time.Now().Add(-time.Minute)
	byTraefik := func(code int) exchange { return exchange{status: code, size: statusTextSize(code), finished: true} }
	byService := func(code int) exchange { return exchange{status: code, dated: true, finished: true} }
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
	whole := func(text string) *http.Request {
		r := requestWith("POST", strings.NewReader(text))
		trackOnce(r)
		io.Copy(io.Discard, r.Body)
		return r
	}
	overHTTP3 := func(r *http.Request, length int64) *http.Request {
		r.ProtoMajor, r.ContentLength = 3, length
		return r
	}
	for _, row := range []struct {
		name   string
		r      *http.Request
		x      exchange
		want   breaker.Outcome
		doubts bool
	}{
		{"200", get(nil), byService(200), success, false},
		{"the service's 500", get(nil), byService(500), failure, false},
		{"a 500 without a date", get(nil), exchange{status: 500, size: 5, finished: true}, failure, false},
		{"Traefik's 500", get(nil), byTraefik(500), failure, false},
		{"Traefik's 500 to half a body", post(io.ErrUnexpectedEOF), byTraefik(500), unknown, false},
		{"Traefik's 502 to half a body", post(io.ErrUnexpectedEOF), byTraefik(502), unknown, false},
		{"Traefik's 504 to a body that came too slowly", post(os.ErrDeadlineExceeded), byTraefik(504), unknown, false},
		{"Traefik's 502 to a whole body", post(io.EOF), byTraefik(502), failure, false},
		{"the service's 502 to half a body", post(io.ErrUnexpectedEOF), byService(502), failure, false},
		{"a middleware's 500, by http.Error", post(io.ErrUnexpectedEOF), exchange{status: 500, size: 30, finished: true,
			header: http.Header{"X-Content-Type-Options": {"nosniff"}}}, unknown, false},
		{"a middleware's 500, empty", post(io.ErrUnexpectedEOF), exchange{status: 500, finished: true}, unknown, false},
		{"an empty 500 without a date, to a request without a body", get(nil), exchange{status: 500, finished: true}, failure, false},
		{"a service's 500 with a length", post(io.ErrUnexpectedEOF), exchange{status: 500, finished: true,
			header: http.Header{"Content-Length": {"0"}}}, failure, false},
		{"the 503 of Traefik's load balancer", get(nil), exchange{status: 503, size: 30, finished: true}, failure, false},
		{"CONNECT", get(func(r *http.Request) { r.Method = "CONNECT" }), exchange{status: 501, finished: true}, unknown, false},
		{"CONNECT over HTTP/2, answered", get(func(r *http.Request) { r.Method, r.ProtoMajor = "CONNECT", 2 }), byService(500), failure, false},
		{"CONNECT over HTTP/2, not answered", get(func(r *http.Request) { r.Method, r.ProtoMajor = "CONNECT", 2 }),
			byTraefik(502), unknown, false},
		{"an invalid method", get(func(r *http.Request) { r.Method = "G T" }), byTraefik(500), unknown, false},
		{"an invalid host", get(func(r *http.Request) { r.Host = "\xff" }), byTraefik(500), unknown, false},
		{"long headers", get(func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 5000)) }),
			byTraefik(500), unknown, false},
		{"long headers, and no service listens", get(func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 5000)) }),
			byTraefik(502), failure, false},
		{"an upgrade that is not answered", get(func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}), byTraefik(502), unknown, false},
		{"an upgrade that is not answered by a service that has switched protocols", get(func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}), exchange{status: 502, size: statusTextSize(502), finished: true, switches: true}, failure, false},
		{"a cut", get(nil), exchange{status: 200, dated: true}, failure, false},
		{"a late cut", get(nil), exchange{status: 200, dated: true, arrived: aMinuteAgo}, unknown, true},
		{"a late cut, watched", get(nil), exchange{status: 200, arrived: aMinuteAgo,
			watched: &watch{recorder: &recorder.Recorder{Waited: 400 * time.Millisecond}}}, failure, false},
		{"a late cut, of a slow client", get(nil), exchange{status: 200, arrived: aMinuteAgo,
			watched: &watch{recorder: &recorder.Recorder{Waited: 600 * time.Millisecond}}}, unknown, false},
		{"a cut of a POST", post(io.EOF), exchange{status: 200}, unknown, true},
		{"a cut of a POST, watched", post(io.EOF), exchange{status: 200,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.EOF}}}, failure, false},
		{"a cut of half a POST, watched", post(nil), exchange{status: 200,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{}}}, unknown, false},
		{"502 in the middle of an upload", post(nil), byTraefik(502), failure, false},
		{"502 late in an upload", post(nil), exchange{status: 502, size: statusTextSize(502), finished: true, arrived: aMinuteAgo}, unknown, true},
		{"502 late in an upload of a prompt client", post(nil), exchange{status: 502, size: statusTextSize(502), finished: true, arrived: aMinuteAgo,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{}}}, failure, false},
		{"502 late in an upload of a slow client", post(nil), exchange{status: 502, size: statusTextSize(502), finished: true, arrived: aMinuteAgo,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{took: time.Second}}}, unknown, false},
		{"the service's 500 of a POST", post(nil), byService(500), failure, false},
		{"the service's 500 of a POST, late", post(nil), exchange{status: 500, dated: true, finished: true, arrived: aMinuteAgo}, unknown, true},
		{"the service's 500 of a POST, late, to a whole body", post(nil), exchange{status: 500, dated: true, finished: true, arrived: aMinuteAgo,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.EOF, took: time.Second}}}, failure, false},
		{"the service's 500 of a POST, late, to a slow client", post(nil), exchange{status: 500, dated: true, finished: true, arrived: aMinuteAgo,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{took: time.Second}}}, unknown, false},
		{"a page for a broken body, watched", post(nil), exchange{status: 502, dated: true, finished: true,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.ErrUnexpectedEOF}}}, unknown, false},
		{"Traefik's 500, in the middle of an upload", post(nil), byTraefik(500), failure, false},
		{"a 500 for a body that another middleware has decoded", func() *http.Request {
			r := post(nil)
			r.Body = io.NopCloser(&failing{errors.New("illegal base64 data")})
			return r
		}(), exchange{status: 500, size: 36, finished: true}, unknown, false},
		{"a target that is not a path", get(func(r *http.Request) { r.URL.Opaque = "y" }), byTraefik(500), unknown, false},
		{"an uncommon method", get(func(r *http.Request) { r.Method = "PROPFIND" }), byTraefik(500), failure, false},
		{"a header in UTF-8", get(func(r *http.Request) { r.Header.Set("X-Name", "caf\xc3\xa9") }), byTraefik(500), failure, false},
		{"a header with a control character", get(func(r *http.Request) { r.Header.Set("X-Name", "\x7f") }), byTraefik(500), unknown, false},
		{"headers that most services refuse", get(func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", 9000)) }),
			byTraefik(502), unknown, false},
		{"trailers that no transport sends", overHTTP3(get(func(r *http.Request) { r.Trailer = http.Header{"Content-Length": nil} }), 0),
			byTraefik(500), unknown, false},
		{"the same, where the end of the connection is noticed first", overHTTP3(get(func(r *http.Request) { r.Trailer = http.Header{"Content-Length": nil} }), 0),
			byTraefik(502), unknown, false},
		{"trailers, and the service hangs up", overHTTP3(get(func(r *http.Request) { r.Trailer = http.Header{"X-Sum": nil} }), 0),
			byTraefik(502), failure, false},
		{"a body that is shorter than announced", overHTTP3(whole("abc"), 10), byTraefik(502), unknown, false},
		{"a body that is shorter than announced, watched", overHTTP3(whole("abc"), 10), exchange{status: 502, size: statusTextSize(502), finished: true,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.EOF, size: 3}}}, unknown, false},
		{"one that is as long, and the service hangs up", overHTTP3(whole("abc"), 3), byTraefik(502), failure, false},
		{"one that is as long, watched, and the service hangs up", overHTTP3(whole("abc"), 3), exchange{status: 502, size: statusTextSize(502), finished: true,
			watched: &watch{recorder: &recorder.Recorder{}, body: &watchedBody{err: io.EOF, size: 3}}}, failure, false},
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

// With a real proxy: the body of a request is not examined while the transport may still read it.
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
			ended := make(chan bool, 3)
			gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { ended <- true }()
				handler.ServeHTTP(w, r)
			}))
			defer gateway.Close()
			for i := 0; i < 3; i++ {
				sendText(t, gateway.Listener.Addr().String(), row.text)
				<-ended // the outcome is reported, which may be after the client has its answer
			}
			up.will(status(http.StatusOK))
			want := http.StatusOK
			if row.opens {
				want = http.StatusServiceUnavailable
			}
			require.Equal(t, want, get(handler))
		})
	}
}

// sendText sends a text to the gateway and waits for the end of the answer.
func sendText(t *testing.T, address, text string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	io.WriteString(c, text)
	io.Copy(io.Discard, c)
}

// After an answer that may or may not be the service's failure, the next answers go through a recorder for a while.
func TestWatchClosely_afterAnUnclearOutcome(t *testing.T) {
	newProcess(t, time.Minute)
	m, err := newMiddleware(context.Background(), status(http.StatusOK), &Config{CircuitBreaker: failures("3")}, nameOf(t))
	require.NoError(t, err)
	source := func(now int64) (own, closely bool) {
		found, closely := statusSourceFor(m, statuswriter.New(), now)
		return found == m.source, closely
	}
	now := m.now()
	own, closely := source(now)
	require.True(t, own)
	require.False(t, closely)

	outcome := m.judge(&exchange{r: requestWith("GET", nil), status: http.StatusOK, arrived: time.Now().Add(-time.Minute)})
	require.Equal(t, breaker.Unknown, outcome)
	_, closely = source(now)
	require.True(t, closely)
	require.True(t, m.source.writer == nil, "no request takes the fast path")

	own, closely = source(m.watchUntil)
	require.True(t, own)
	require.False(t, closely)
	require.True(t, m.source.writer != nil)
	other, _ := statusSourceFor(m, statuswriter.NewSized(), m.watchUntil)
	require.True(t, other != m.source && other != nil, "another type of writer has its own status source")
}
