//go:build !yaegi

package resilience

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// endless is the context of a copy, as Traefik gives it to a mirror.
type endless struct{ context.Context }

func (e endless) Done() <-chan struct{} { return make(chan struct{}) }

// The answer to a copy goes nowhere: it may come at any time, and decides nothing.
func TestNesting_aCopyForAMirrorDecidesNothing(t *testing.T) {
	for _, row := range []struct {
		name    string
		service int
		mirror  *RateLimitConfig
		counts  bool
	}{
		{"the service fails, the mirror refuses", 500, tokens("1"), true},
		{"the service refuses, the mirror answers", 503, tokens("1000"), false},
	} {
		ctx, _ := inOrder(t)
		service := status(row.service)
		if row.service == 503 {
			open := newMember(t, ctx, status(500), "open", nil, failures("1"))
			require.Equal(t, 500, get(open.handler))
			service = open.handler
		}
		mirror := newMember(t, ctx, status(200), "mirror", row.mirror, nil)
		outer := newMember(t, ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			service.ServeHTTP(w, r)
			mirror.handler.ServeHTTP(httptest.NewRecorder(), r.WithContext(endless{r.Context()}))
		}), "outer", nil, failures("5"))
		for i := 0; i < 5; i++ {
			require.Equal(t, row.service, get(outer.handler), row.name)
		}
		_, refuses := outer.breaker.MustRefuse(false, outer.now())
		require.Equal(t, row.counts, refuses, row.name)
	}
}
