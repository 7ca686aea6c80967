package resilience

import (
	"errors"
	"io"
	"math"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/recorder"
)

// How the body of a request ended, as far as it was read.
const (
	bodyWhole      = iota // all of it was read, or there is none
	bodyUnfinished        // not all of it was read, for whatever reason
	bodyUnknown           // another middleware has replaced the reader, and may itself have failed
	bodyBroken            // the client broke it off, was too slow for one of Traefik's timeouts, or sent a malformed body
)

// A constant or selector in a call is a local, a variable of the package is not (R1, R3).
var (
	maxBytesReader = http.MaxBytesReader
	noWriter       http.ResponseWriter // would be told of a body above the limit, which no body is
	noLimit        int64               = math.MaxInt64

	trackedBody = reflect.TypeOf(http.MaxBytesReader(nil, nil, 0))
	nopCloser   = reflect.TypeOf(io.NopCloser(http.MaxBytesReader(nil, nil, 0)))
)

// trackBody puts a reader around the body of a request that remembers how the body ended. It is a compiled one of net/http: an interpreted
// reader would cost more than the rest of the request.
func trackBody(r *http.Request) {
	r.Body = maxBytesReader(noWriter, r.Body, noLimit)
}

// trackOnce is trackBody, unless the fast path has called that already.
func trackOnce(r *http.Request) {
	if r.ContentLength != 0 && r.Body != nil && reflect.TypeOf(r.Body) != trackedBody {
		trackBody(r)
	}
}

// bodyOf returns how the body of a request ended. Nothing else may read the body meanwhile. If another middleware has replaced the tracking
// reader, its own is not asked, because it may block.
func bodyOf(r *http.Request) int {
	if r.ContentLength == 0 || r.Body == nil {
		return bodyWhole
	}
	body := unwrapped(r.Body)
	if reflect.TypeOf(body) != trackedBody {
		return bodyUnknown
	}
	_, err := body.Read(nil) // the error that it ended with, or none: an empty slice never blocks
	return endOf(err)
}

// lengthOf returns how many bytes of a tracked body were read.
func lengthOf(r *http.Request) int64 {
	if r.Body == nil {
		return 0
	}
	left := reflect.ValueOf(unwrapped(r.Body)).Elem().FieldByName("n") // what remains of the limit
	if !left.IsValid() || left.Kind() != reflect.Int64 {
		return 0
	}
	return noLimit - left.Int()
}

// unwrapped returns the reader inside those that only keep it from being closed.
func unwrapped(body io.Reader) io.Reader {
	for reflect.TypeOf(body) == nopCloser {
		body, _ = reflect.ValueOf(body).Field(0).Interface().(io.Reader)
	}
	return body
}

// endOf returns how a body ended, from the error of its last read. A body that was closed and then read says nothing about the client: the
// proxy closes it when the service has answered.
func endOf(err error) int {
	if errors.Is(err, io.EOF) {
		return bodyWhole
	}
	if err == nil || errors.Is(err, http.ErrBodyReadAfterClose) || err.Error() == "body closed by handler" {
		return bodyUnfinished
	}
	return bodyBroken
}

// watch measures how long the gateway waited for a client to read its answer and to send its body.
type watch struct {
	recorder *recorder.Recorder
	body     *watchedBody // nil: there is none
	reader   reflect.Type // the body's, as compiled code sees it
}

// watchClosely makes a recorder and the body of a request measure how long the client is waited for.
func watchClosely(recorder *recorder.Recorder, r *http.Request) *watch {
	recorder.Timed = true
	w := &watch{recorder: recorder, body: watchBody(r)}
	if w.body != nil {
		w.reader = reflect.TypeOf(r.Body)
	}
	return w
}

func (w *watch) waited() time.Duration {
	waited := w.recorder.Waited
	if w.body != nil {
		waited += w.body.waitedFor()
	}
	return waited
}

// watchedBody is the body of a request that is watched closely. Unlike a tracked body it may be asked while it is being read, and it measures
// how long reading takes. But it is interpreted, so reading it is expensive.
type watchedBody struct {
	body io.ReadCloser

	mu     sync.Mutex
	err    error
	whole  func()        // called when all of the body was read, or nil
	size   int64         // bytes that were read
	took   time.Duration // how long all reads took
	begun  time.Time     // when the last read began
	during bool          // that read has not returned
}

// watchBody replaces the body of a request by a watched one; nil: there is no body.
func watchBody(r *http.Request) *watchedBody {
	if r.ContentLength == 0 || r.Body == nil {
		return nil
	}
	b := &watchedBody{body: r.Body}
	r.Body = b
	return b
}

// Read reads, and measures how long that took.
func (b *watchedBody) Read(piece []byte) (int, error) {
	b.mu.Lock()
	b.begun = time.Now()
	b.during = true
	b.mu.Unlock()
	n, err := b.body.Read(piece)
	b.mu.Lock()
	b.during = false
	b.size += int64(n)
	b.took += time.Since(b.begun)
	whole := b.whole
	if err != nil && b.err == nil {
		b.err = err
	}
	ended := whole != nil && endOf(b.err) == bodyWhole
	if ended {
		b.whole = nil
	}
	b.mu.Unlock()
	if ended {
		callSafely(whole)
	}
	return n, err
}

// callSafely calls a function and recovers from its panic, which would end Traefik: a transport reads bodies in a goroutine that does not
// recover (R12).
func callSafely(f func()) {
	defer func() { recover() }()
	f()
}

// onWhole sets the function to call once all of the body was read. It must be called before the first read.
func (b *watchedBody) onWhole(whole func()) {
	b.mu.Lock()
	b.whole = whole
	b.mu.Unlock()
}

// Close closes the body.
func (b *watchedBody) Close() error {
	return b.body.Close()
}

func (b *watchedBody) end() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return endOf(b.err)
}

func (b *watchedBody) length() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

func (b *watchedBody) waitedFor() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.during {
		return b.took + time.Since(b.begun)
	}
	return b.took
}
