//lint:file-ignore U1000 the fields are looked up by reflection

package statuswriter

import (
	"net/http"
	"net/http/httptest"
	"reflect"

	"github.com/resilient-gateway/resilience/internal/statuswriter/recovery"
)

// Notifying returns a writer of the same type as one around net/http's own, around another one.
func Notifying() http.ResponseWriter { return recovery.Wrap(&notifier{httptest.NewRecorder()}) }

type notifier struct{ *httptest.ResponseRecorder }

func (*notifier) CloseNotify() <-chan bool { return nil }

// Answers are pointers to structs that look nearly as those in which net/http keeps an answer: the two that are named http1 and http2
// look as they do, the others have one thing that is not as expected.
func Answers() map[string]reflect.Type {
	return map[string]reflect.Type{
		"http1": reflect.TypeOf(&struct {
			before      string
			status      int
			wroteHeader bool
			written     int64
		}{}),
		"http2": reflect.TypeOf(&struct{ rws *http2Answer }{}),
		"no status": reflect.TypeOf(&struct {
			wroteHeader bool
			written     int64
		}{}),
		"a status of another type": reflect.TypeOf(&struct {
			status      uint16
			wroteHeader bool
			written     int64
		}{}),
		"a status in words": reflect.TypeOf(&struct {
			status      string
			wroteHeader bool
			written     int64
		}{}),
		"no size": reflect.TypeOf(&struct {
			status      int
			wroteHeader bool
		}{}),
		"a size of another type": reflect.TypeOf(&struct {
			status      int
			wroteHeader bool
			written     float64
		}{}),
		"nothing that says whether there is a status": reflect.TypeOf(&struct {
			status  int
			written int64
		}{}),
		"a state that is no pointer":  reflect.TypeOf(&struct{ rws http2Answer }{}),
		"a state that is no struct":   reflect.TypeOf(&struct{ rws *int }{}),
		"a state with another's size": reflect.TypeOf(&struct{ rws *http1Answer }{}),
		"a state that is embedded":    reflect.TypeOf(&struct{ *http2Answer }{}),
		"no struct":                   reflect.TypeOf(new(int)),
	}
}

type http1Answer struct {
	status      int
	wroteHeader bool
	written     int64
}

type http2Answer struct {
	status      int
	wroteHeader bool
	wroteBytes  int64
}

// Wrappers are structs that look nearly as those in which Traefik's recovery middleware wraps a writer: the two that are named plain and
// notifying look as they do, the others have one thing that is not as expected.
func Wrappers() map[string]reflect.Type {
	return map[string]reflect.Type{
		"plain":     reflect.TypeOf(recovery.Wrap(httptest.NewRecorder())).Elem(),
		"notifying": reflect.TypeOf(Notifying()).Elem(),
		"one field more": reflect.TypeOf(struct {
			rw          http.ResponseWriter
			headersSent bool
			status      int
		}{}),
		"a field of another name": reflect.TypeOf(struct {
			w           http.ResponseWriter
			headersSent bool
		}{}),
		"a flag of another type": reflect.TypeOf(struct {
			rw          http.ResponseWriter
			headersSent int
		}{}),
		"a writer of another type": reflect.TypeOf(struct {
			rw          *httptest.ResponseRecorder
			headersSent bool
		}{}),
		"one field":                            reflect.TypeOf(struct{ rw http.ResponseWriter }{}),
		"one that is embedded, and no pointer": reflect.TypeOf(struct{ wrapper }{}),
		"one that embeds no struct":            reflect.TypeOf(struct{ *number }{}),
		"no struct":                            reflect.TypeOf(0),
	}
}

type number int

type wrapper struct {
	rw          http.ResponseWriter
	headersSent bool
}
