package recorder

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience = 5 * time.Second

// proxied puts a recorder before a reverse proxy before the upstream, each on its own socket, and returns the address of
// the recorder.
func proxied(t *testing.T, upstream http.HandlerFunc) string {
	origin := httptest.NewServer(upstream)
	t.Cleanup(origin.Close)
	address, err := url.Parse(origin.URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(address)
	recording := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(&Recorder{ResponseWriter: w}, r)
	}))
	t.Cleanup(recording.Close)
	return recording.URL
}

func TestRecorder_deliversPiecesOneByOne(t *testing.T) {
	for _, row := range []struct {
		name        string
		contentType string
		length      string
	}{
		{"events", "text/event-stream", ""},
		{"an answer of unknown length", "text/plain", ""},
		{"an answer of a known length", "text/plain", "3"},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			received := make(chan bool)
			at := proxied(t, func(w http.ResponseWriter, r *http.Request) {
				setUnlessEmpty(w.Header(), "Content-Type", row.contentType)
				setUnlessEmpty(w.Header(), "Content-Length", row.length)
				for _, piece := range []string{"a", "b", "c"} {
					io.WriteString(w, piece)
					w.(http.Flusher).Flush()
					<-received
				}
			})
			defer close(received)
			client := &http.Client{Timeout: patience}
			answer, err := client.Get(at)
			require.NoError(t, err)
			defer answer.Body.Close()

			for _, piece := range []string{"a", "b", "c"} {
				next := make([]byte, 1)
				_, err := io.ReadFull(answer.Body, next)
				require.NoError(t, err)
				require.Equal(t, piece, string(next))
				received <- true
			}
			_, err = answer.Body.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
		})
	}
}

func TestRecorder_deliversHeadersBeforeTheFirstPiece(t *testing.T) {
	received := make(chan bool)
	at := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-received
	})
	defer close(received)
	client := &http.Client{Timeout: patience}
	answer, err := client.Get(at)

	require.NoError(t, err)
	require.Equal(t, "text/event-stream", answer.Header.Get("Content-Type"))
	answer.Body.Close()
}

func TestRecorder_deliversTrailers(t *testing.T) {
	at := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "a")
		w.Header().Set("X-Sum", "97")
	})
	client := &http.Client{Timeout: patience}
	answer, err := client.Get(at)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)

	require.NoError(t, err)
	require.Equal(t, "a", string(body))
	require.Equal(t, "97", answer.Trailer.Get("X-Sum"))
}

func TestRecorder_deliversEarlyHints(t *testing.T) {
	at := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	})
	hints := 0
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		hints = code
		return nil
	}}
	r, err := http.NewRequest(http.MethodGet, at, http.NoBody)
	require.NoError(t, err)
	client := &http.Client{Timeout: patience}
	answer, err := client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))

	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, http.StatusEarlyHints, hints)
	require.Equal(t, http.StatusTeapot, answer.StatusCode)
}

func TestRecorder_deliversAConnectionThatSwitchesProtocols(t *testing.T) {
	at := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		connection, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer connection.Close()
		io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		io.WriteString(connection, line)
	})
	address, err := url.Parse(at)
	require.NoError(t, err)
	connection, err := net.DialTimeout("tcp", address.Host, patience)
	require.NoError(t, err)
	defer connection.Close()
	require.NoError(t, connection.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	require.NoError(t, err)
	reader := bufio.NewReader(connection)
	answer, err := http.ReadResponse(reader, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)

	_, err = io.WriteString(connection, "hello\n")
	require.NoError(t, err)
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "hello\n", line)
}

// A proxy that loses its upstream in the middle of a body panics with http.ErrAbortHandler, and the server must see just that.
func TestRecorder_letsAPanicPass(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "abc")
	}))
	t.Cleanup(origin.Close)
	address, err := url.Parse(origin.URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(address)
	r, err := http.NewRequest(http.MethodGet, "/", http.NoBody)
	require.NoError(t, err)
	r = r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, &http.Server{}))
	w := httptest.NewRecorder()

	value := caught(func() { proxy.ServeHTTP(&Recorder{ResponseWriter: w}, r) })
	require.Equal(t, http.ErrAbortHandler, value)
	require.Equal(t, "abc", w.Body.String())
}

func caught(do func()) (value interface{}) {
	defer func() { value = recover() }()
	do()
	return nil
}
