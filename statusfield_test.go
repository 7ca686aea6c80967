package resilience

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/resilient-gateway/resilience/internal/statuswriter/recovery"
	"github.com/stretchr/testify/require"
)

func TestDbg(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w = recovery.Wrap(w)
			f := newFieldSource(w)
			t.Log(r.Proto, f)
			if f != nil {
				t.Log(f.first)
			}
		}))
		s.EnableHTTP2 = h2
		s.StartTLS()
		s.Client().Get(s.URL)
		s.Close()
	}
	require.True(t, true)
}
