package recorder

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// diary is a ResponseWriter that notes what is done to it, in order.
type diary struct {
	header  http.Header
	entries []string
	fault   error
}

func newDiary() *diary {
	return &diary{header: http.Header{"Content-Length": {"0"}}}
}

func (d *diary) note(entry string) {
	d.entries = append(d.entries, entry)
}

func (d *diary) Header() http.Header {
	return d.header
}

func (d *diary) WriteHeader(status int) {
	d.note("status " + strconv.Itoa(status))
}

func (d *diary) Write(piece []byte) (int, error) {
	d.note("write " + string(piece))
	if d.fault != nil {
		return 1, d.fault
	}
	return len(piece), nil
}

func (d *diary) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	d.note("hijack")
	return nil, nil, d.fault
}

// watch returns a recorder before the diary, which has OnHeader noted too.
func watch(d *diary) *Recorder {
	return &Recorder{ResponseWriter: d, OnHeader: func(status int) { d.note("told " + strconv.Itoa(status)) }}
}

func TestRecorder_status(t *testing.T) {
	for _, row := range []struct {
		name    string
		answer  func(r *Recorder)
		status  int
		entries []string
	}{
		{"none yet", func(r *Recorder) {}, 0, nil},
		{"as the header says", func(r *Recorder) { r.WriteHeader(503) }, 503, []string{"told 503", "status 503"}},
		{"not said before the body", func(r *Recorder) { r.Write([]byte("a")) }, 200, []string{"told 200", "write a"}},
		{"not said before an empty body", func(r *Recorder) { r.Write(nil) }, 200, []string{"told 200", "write "}},
		{"said before the body", func(r *Recorder) {
			r.WriteHeader(404)
			r.Write([]byte("a"))
			r.Write([]byte("b"))
		}, 404, []string{"told 404", "status 404", "write a", "write b"}},
		{"said twice", func(r *Recorder) {
			r.WriteHeader(500)
			r.WriteHeader(200)
		}, 500, []string{"told 500", "status 500", "status 200"}},
		{"said after the body", func(r *Recorder) {
			r.Write([]byte("a"))
			r.WriteHeader(500)
		}, 200, []string{"told 200", "write a", "status 500"}},
		{"continue", func(r *Recorder) { r.WriteHeader(100) }, 0, []string{"status 100"}},
		{"early hints", func(r *Recorder) {
			r.WriteHeader(103)
			r.WriteHeader(103)
			r.WriteHeader(201)
		}, 201, []string{"status 103", "status 103", "told 201", "status 201"}},
		{"switching protocols", func(r *Recorder) { r.WriteHeader(101) }, 101, []string{"told 101", "status 101"}},
		{"a connection taken over", func(r *Recorder) { r.Hijack() }, 101, []string{"hijack", "told 101"}},
		{"a connection taken over after its header", func(r *Recorder) {
			r.WriteHeader(101)
			r.Hijack()
		}, 101, []string{"told 101", "status 101", "hijack"}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			d := newDiary()
			r := watch(d)
			row.answer(r)

			require.Equal(t, row.status, r.Status)
			require.Equal(t, row.entries, d.entries)
		})
	}
}

func TestRecorder_needsNoOnHeader(t *testing.T) {
	r := &Recorder{ResponseWriter: newDiary()}
	r.WriteHeader(204)

	require.Equal(t, 204, r.Status)
}

func TestRecorder_readsTheHeadersAsTheyAreSent(t *testing.T) {
	d := newDiary()
	r := &Recorder{ResponseWriter: d}
	r.OnHeader = func(status int) { d.note(r.Header().Get("X-Set") + " " + strconv.Itoa(r.Status)) }
	r.Header().Set("X-Set", "late")
	r.WriteHeader(200)

	require.Equal(t, []string{"late 200", "status 200"}, d.entries)
}

func TestRecorder_passesAnErrorOn(t *testing.T) {
	fault := errors.New("broken pipe")
	d := newDiary()
	d.fault = fault
	n, err := watch(d).Write([]byte("abc"))

	require.Equal(t, 1, n)
	require.Equal(t, "broken pipe", err.Error())
}

func TestRecorder_countsNoTakeoverThatFailed(t *testing.T) {
	d := newDiary()
	d.fault = errors.New("no")
	r := watch(d)
	_, _, err := r.Hijack()

	require.EqualError(t, err, "no")
	require.Equal(t, 0, r.Status)
	r.WriteHeader(502)
	require.Equal(t, 502, r.Status)
	require.Equal(t, []string{"hijack", "told 502", "status 502"}, d.entries)
}

func TestRecorder_saysThatAConnectionCannotBeTakenOver(t *testing.T) {
	r := &Recorder{ResponseWriter: httptest.NewRecorder()}
	_, _, err := r.Hijack()

	require.EqualError(t, err, "recorder: this connection cannot be taken over: feature not supported")
	require.True(t, errors.Is(err, http.ErrNotSupported))
	require.Equal(t, 0, r.Status)
}

func TestRecorder_flushes(t *testing.T) {
	for _, row := range []struct {
		name        string
		status      int
		contentType string
		length      string
		date        string
		pieces      []string
		flushed     []string
	}{
		{"an answer of unknown length", 200, "text/html", "", "", []string{"a", "b"}, []string{"header", "a", "b"}},
		{"an error of unknown length", 500, "text/html", "", "today", []string{"a"}, []string{"header", "a"}},
		{"an error of Traefik's own after its first piece", 502, "", "", "", []string{"a", "b"}, []string{"b"}},
		{"an error that is a stream", 500, "text/event-stream", "", "", []string{"a"}, []string{"header", "a"}},
		{"no redirect of Traefik's own", 302, "", "", "", []string{"a"}, nil},
		{"an answer of a length that is none", 200, "text/html", "x", "", []string{"a"}, []string{"header", "a"}},
		{"events", 200, "text/event-stream", "", "", []string{"a", "b"}, []string{"header", "a", "b"}},
		{"events of a known length", 200, "text/event-stream; charset=utf-8", "2", "", []string{"a", "b"}, []string{"header", "a", "b"}},
		{"gRPC", 200, "application/grpc+proto", "1", "", []string{"a"}, []string{"header", "a"}},
		{"lines of JSON", 200, "application/x-ndjson", "1", "", []string{"a"}, []string{"header", "a"}},
		{"all pieces of a known length but the last", 200, "text/html", "3", "", []string{"a", "b", "c"}, []string{"a", "b"}},
		{"no answer in one piece", 200, "text/html", "1", "", []string{"a"}, nil},
		{"no piece beyond the length", 200, "text/html", "1", "", []string{"a", "b"}, nil},
		{"no answer to HEAD", 200, "text/html", "100", "", nil, nil},
		{"no empty answer", 200, "text/html", "0", "", nil, nil},
		{"no 204", 204, "", "", "", nil, nil},
		{"no 204 of events", 204, "text/event-stream", "", "", nil, nil},
		{"no 304", 304, "text/html", "", "", nil, nil},
		{"no 304 of events", 304, "text/event-stream", "", "", nil, nil},
		{"no switch of protocols", 101, "", "", "", nil, nil},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			setUnlessEmpty(w.Header(), "Content-Type", row.contentType)
			setUnlessEmpty(w.Header(), "Content-Length", row.length)
			setUnlessEmpty(w.Header(), "Date", row.date)
			r := &Recorder{ResponseWriter: w}
			var flushed []string
			note := func(step string) {
				if w.Flushed {
					flushed = append(flushed, step)
				}
				w.Flushed = false
			}
			r.WriteHeader(row.status)
			note("header")
			for _, piece := range row.pieces {
				r.Write([]byte(piece))
				note(piece)
			}

			require.Equal(t, row.flushed, flushed)
		})
	}
}

func setUnlessEmpty(header http.Header, name, value string) {
	if value != "" {
		header.Set(name, value)
	}
}

// The header of a gRPC call that ended without a message must be the end of the stream, too: it holds the trailers.
func TestRecorder_doesNotFlushTrailersInAHeader(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", "12")
	(&Recorder{ResponseWriter: w}).WriteHeader(200)

	require.False(t, w.Flushed)
}

func TestRecorder_flushesAPieceThatCameBeforeAnyHeader(t *testing.T) {
	w := httptest.NewRecorder()
	(&Recorder{ResponseWriter: w}).Write([]byte("a"))

	require.True(t, w.Flushed)
}

func TestRecorder_reportsDateAndSize(t *testing.T) {
	d := newDiary()
	r := watch(d)
	r.Header().Set("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
	r.WriteHeader(http.StatusOK)
	r.Write([]byte("abc"))
	r.Write([]byte("de"))

	require.Equal(t, int64(5), r.Size)
	require.True(t, r.Dated)
	require.Zero(t, r.Waited, "it is not timed")

	undated := watch(newDiary())
	undated.WriteHeader(http.StatusOK)
	require.False(t, undated.Dated)
}

// slowWriter is a writer whose client takes its time.
type slowWriter struct {
	http.ResponseWriter
	each time.Duration
}

func (s *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(s.each)
	return s.ResponseWriter.Write(p)
}

func TestRecorder_reportsHowLongTheClientWasWaitedFor(t *testing.T) {
	r := &Recorder{ResponseWriter: &slowWriter{newDiary(), 10 * time.Millisecond}, Timed: true}
	r.WriteHeader(http.StatusOK)
	r.Write([]byte("a"))
	r.Write([]byte("b"))

	require.GreaterOrEqual(t, r.Waited, 20*time.Millisecond)
	require.Equal(t, int64(2), r.Size)
}
