package resilience

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/recorder"
	"github.com/resilient-gateway/resilience/internal/statuswriter"
	"github.com/resilient-gateway/resilience/internal/statuswriter/recovery"
	"github.com/stretchr/testify/require"
)

const (
	http1 = "HTTP/1.1"
	http2 = "HTTP/2.0"
)

// kindOf says how the middleware learns the status from a writer.
func kindOf(m *Middleware, w http.ResponseWriter) string {
	own, _ := statusSourceFor(m, w, m.now())
	if own == nil {
		return "recorder"
	}
	if own.fields != nil {
		return "field"
	}
	return "method"
}

func breakerOnly(t *testing.T, change func(c *CircuitBreakerConfig)) *Middleware {
	circuit := failures("3")
	if change != nil {
		change(circuit)
	}
	m, err := newMiddleware(context.Background(), status(http.StatusOK), &Config{CircuitBreaker: circuit}, nameOf(t))
	require.NoError(t, err)
	return m
}

func TestStatusSource_ofEachWriter(t *testing.T) {
	newProcess(t, time.Minute)
	alone := func(w http.ResponseWriter) func(use func(w http.ResponseWriter)) {
		return func(use func(w http.ResponseWriter)) { use(w) }
	}
	served := func(proto string) func(use func(w http.ResponseWriter)) {
		return func(use func(w http.ResponseWriter)) {
			statuswriter.Serve(proto, "GET", func(w http.ResponseWriter, r *http.Request) { use(w) })
		}
	}
	for _, row := range []struct {
		name   string
		writer func(use func(w http.ResponseWriter))
		change func(c *CircuitBreakerConfig)
		want   string
	}{
		{"Traefik's own", alone(statuswriter.New()), nil, "method"},
		{"net/http's own for HTTP/1, behind Traefik's recovery", served(http1), nil, "field"},
		{"net/http's own for HTTP/2, behind Traefik's recovery", served(http2), nil, "field"},
		{"another behind Traefik's recovery, as for HTTP/3", alone(recovery.Wrap(httptest.NewRecorder())), nil, "recorder"},
		{"another that is wrapped as net/http's own is", alone(statuswriter.Notifying()), nil, "recorder"},
		{"another middleware's", alone(httptest.NewRecorder()), nil, "recorder"},
		{"net/http's own, where there is a hangTimeout", served(http1), func(c *CircuitBreakerConfig) { c.HangTimeout = "1h" }, "recorder"},
		{"Traefik's own, where there is a hangTimeout", alone(statuswriter.New()), func(c *CircuitBreakerConfig) { c.HangTimeout = "1h" }, "recorder"},
	} {
		m := breakerOnly(t, row.change)
		kind := ""
		row.writer(func(w http.ResponseWriter) { kind = kindOf(m, w) })
		require.Equal(t, row.want, kind, row.name)
	}
}

// answers are what a handler does with a writer.
var answers = []struct {
	name   string
	method string
	answer http.HandlerFunc
	only   string // protocol
}{
	{"nothing", "GET", func(w http.ResponseWriter, r *http.Request) {}, ""},
	{"a body without a status", "GET", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }, ""},
	{"204", "GET", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, ""},
	{"404 with a body", "GET", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not here", 404) }, ""},
	{"503 in pieces", "GET", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(503)
		io.WriteString(w, "closed ")
		w.(http.Flusher).Flush()
		io.WriteString(w, "for lunch")
	}, ""},
	{"the first of two statuses", "GET", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		w.WriteHeader(200)
	}, ""},
	{"early hints, and nothing else", "GET", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(103) }, ""},
	{"early hints, then 502", "GET", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(502)
	}, ""},
	{"HEAD", "HEAD", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		io.WriteString(w, "Internal Server Error")
	}, ""},
	{"a length and a date", "GET", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
		w.WriteHeader(500)
		io.WriteString(w, "hello")
	}, ""},
	{"trailers", "GET", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(504)
		io.WriteString(w, "hello")
		w.Header().Set("X-Sum", "1")
	}, ""},
	{"a panic at once", "GET", func(w http.ResponseWriter, r *http.Request) { panic("stumbled") }, ""},
	{"a panic in the body", "GET", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	}, ""},
	{"101, and the connection taken over", "GET", func(w http.ResponseWriter, r *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			connection.Close()
		}
	}, http1},
}

// What is read of net/http's own writer is what a recorder would have recorded. Only of a connection that was taken over it knows no status.
func TestStatusSource_readsWhatARecorderRecords(t *testing.T) {
	for _, proto := range []string{http1, http2} {
		for _, row := range answers {
			if row.only != "" && row.only != proto {
				continue
			}
			name := row.name + " over " + proto
			var kept *recorder.Recorder
			read, found := &exchange{}, false
			statuswriter.Serve(proto, row.method, func(w http.ResponseWriter, r *http.Request) {
				kept = &recorder.Recorder{ResponseWriter: w}
				defer func() {
					source := newFieldSource(w)
					found = source != nil && source.readFields(w, read)
					read.dated = len(w.Header()["Date"]) > 0
				}()
				row.answer(kept, r)
			})
			require.True(t, found, name)
			if kept.Status == http.StatusSwitchingProtocols {
				kept.Status = 0
			}
			require.Equal(t, kept.Status, read.status, name)
			require.Equal(t, kept.Size, read.size, name)
			require.Equal(t, kept.Dated, read.dated, name)
		}
	}
}

// The breaker counts the same for each writer, whichever came first.
func TestStatusSource_theBreakerCountsTheSame(t *testing.T) {
	failed := map[string]bool{
		"503 in pieces": true, "the first of two statuses": true, "early hints, then 502": true, "HEAD": true, "a length and a date": true,
		"trailers": true, "a panic at once": true, "a panic in the body": true,
	}
	for _, first := range []string{http1, http2} {
		for _, proto := range []string{http1, http2} {
			for _, row := range answers {
				if row.only != "" && row.only != proto {
					continue
				}
				newProcess(t, time.Minute)
				var answer http.Handler
				ok := status(http.StatusOK)
				next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if answer == nil {
						ok.ServeHTTP(w, r)
					} else {
						answer.ServeHTTP(w, r)
					}
				})
				m, err := newMiddleware(context.Background(), next, &Config{CircuitBreaker: failures("1")}, nameOf(t))
				require.NoError(t, err)
				m.setChecks(false)
				for i := 0; i < 2; i++ {
					statuswriter.Serve(first, "GET", m.handler.ServeHTTP)
				}
				require.NotNil(t, m.source.fields, "the status is read from a field")
				answer = row.answer
				statuswriter.Serve(proto, row.method, m.handler.ServeHTTP)
				answer = nil
				require.Equal(t, failed[row.name], get(m.handler) == 503, row.name+" over "+proto+" after "+first)
			}
		}
	}
}

// Where structs are not as they are known, their fields are not read.
func TestStatusSource_anotherLayoutIsNotRead(t *testing.T) {
	for name, answer := range statuswriter.Answers() {
		require.Equal(t, name == "http1" || name == "http2", fieldsOf(answer) != nil, name)
		require.Nil(t, fieldsOfNetHTTP(answer), name+" is not net/http's")
	}
	for name, wrapper := range statuswriter.Wrappers() {
		require.Equal(t, name == "plain" || name == "notifying", pathToWriter(wrapper) != nil, name)
	}
}

// A writer of a known type that leads to an unknown one: its request says nothing, and all that follow go through a recorder.
func TestStatusSource_isGivenUpWhereItCannotBeRead(t *testing.T) {
	newProcess(t, time.Minute)
	m, err := newMiddleware(context.Background(), status(http.StatusInternalServerError), &Config{CircuitBreaker: failures("2")}, nameOf(t))
	require.NoError(t, err)
	m.setChecks(false)
	kind := ""
	statuswriter.Serve(http1, "GET", func(w http.ResponseWriter, r *http.Request) { kind = kindOf(m, w) })
	require.Equal(t, "field", kind)
	require.NotNil(t, m.source.writer)

	r := httptest.NewRequest("GET", "/", nil)
	for i := 0; i < 3; i++ {
		m.source.report(&tracked{w: statuswriter.Notifying(), r: r, at: m.now(), finished: true})
	}
	require.True(t, m.source.writer == nil, "no request takes the fast path")
	require.Greater(t, m.view.Healthy, m.now(), "they say nothing")
	statuswriter.Serve(http1, "GET", func(w http.ResponseWriter, r *http.Request) { kind = kindOf(m, w) })
	require.Equal(t, "recorder", kind)
	for i := 0; i < 2; i++ {
		m.handler.ServeHTTP(statuswriter.Notifying(), r)
	}
	require.Equal(t, 503, get(m.handler), "what is recorded counts")
}
