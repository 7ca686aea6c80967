package resilience

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/resilient-gateway/resilience/breaker"
	"github.com/stretchr/testify/require"
)

func TestFront_isTurnedByARequestOfTheOther(t *testing.T) {
	view := &breaker.View{Refusing: make(chan struct{}, 1), Seconds: make(chan struct{}, breaker.MaxRefusing)}
	m := &Middleware{view: view}
	front := new(http.HandlerFunc)
	var lean http.HandlerFunc
	refuse := m.refuser(front, &lean)
	lean = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }
	*front = refuse
	ask := func() int {
		w := httptest.NewRecorder()
		front.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code
	}

	view.Refusing <- struct{}{}
	require.Equal(t, http.StatusServiceUnavailable, ask(), "it is open")
	<-view.Refusing
	require.Equal(t, http.StatusNoContent, ask(), "it is closed")
	view.Refusing <- struct{}{}
	if turning {
		require.Equal(t, http.StatusNoContent, ask(), "the front is lean, who would look for itself")
	}
	turn(front, refuse, httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, http.StatusServiceUnavailable, ask(), "and was turned back")
}
