package statuswriter

import (
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/resilient-gateway/resilience/internal/statuswriter/recovery"
)

// Serve sends a request to a server of net/http's over HTTP/1.1 or HTTP/2.0, and has a function answer it, whose writer is as Traefik's
// where it watches no answers itself. It returns when the answer has ended, and what the function panicked with, which cuts the answer.
func Serve(proto, method string, answer func(w http.ResponseWriter, r *http.Request)) (fault interface{}) {
	done := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		defer func() {
			if fault = recover(); fault != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		answer(recovery.Wrap(w), r)
	}))
	server.EnableHTTP2 = proto == "HTTP/2.0"
	server.StartTLS()
	defer server.Close()
	request, err := http.NewRequest(method, server.URL, nil)
	if err != nil {
		return err
	}
	response, err := server.Client().Do(request)
	if err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	<-done
	return fault
}
