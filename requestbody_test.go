package resilience

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

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
