package resilience

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// proxyTo returns a proxy to a service, which answers as Traefik does if the service says nothing in time.
func proxyTo(t *testing.T, address string, timeout time.Duration) http.Handler {
	target, err := url.Parse("http://" + address)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{ResponseHeaderTimeout: timeout, MaxIdleConnsPerHost: 10}
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		w.WriteHeader(http.StatusGatewayTimeout)
		io.WriteString(w, http.StatusText(http.StatusGatewayTimeout))
	}
	return proxy
}

// nowhere returns an address that takes connections and never answers.
func nowhere(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

// asker is a client of one gateway, and the answers that it got by status.
type asker struct {
	url  string
	done chan struct{} // closed at the end

	mu     sync.Mutex // guards what follows
	counts map[int]int
	errs   []error
}

func (a *asker) note(code int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.errs = append(a.errs, err)
		return
	}
	a.counts[code]++
}

func (a *asker) count(code int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[code]
}

// askWhile sends requests one after another until the end.
func askWhile(a *asker, ended *atomic.Bool) {
	defer close(a.done)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for !ended.Load() {
		response, err := client.Get(a.url)
		code := 0
		if err == nil {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			code = response.StatusCode
		}
		a.note(code, err)
		time.Sleep(2 * time.Millisecond)
	}
}

// One of ten gateways is cut off from the service, and keeps sending probes into nothing. The other nine serve without one refusal, all the
// time: real sockets, and a service that answers each of them.
func TestMinGateways_oneOfTenIsBlackholed(t *testing.T) {
	const gateways, broken = 10, 3
	server := redistest.Start(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	t.Cleanup(service.Close)
	address := service.Listener.Addr().String()
	all, ups := fleetOf(t, server, gateways, func(c *CircuitBreakerConfig) {
		c.FailureThreshold = "5"
		c.MinGateways = "3"
		c.ResetTimeout = "200ms"
	})
	var askers []*asker
	for i, m := range all {
		if i == broken {
			ups[i].will(proxyTo(t, nowhere(t), 50*time.Millisecond))
		} else {
			ups[i].will(proxyTo(t, address, 5*time.Second))
		}
		gateway := httptest.NewServer(m.handler)
		t.Cleanup(gateway.Close)
		askers = append(askers, &asker{url: gateway.URL, done: make(chan struct{}), counts: map[int]int{}})
	}
	ended := &atomic.Bool{}
	for _, one := range askers {
		go askWhile(one, ended)
	}
	waitFor(t, func() bool { return askers[broken].count(504) >= 5+3 }, "it opens after five failures, and sends probes")
	ended.Store(true)
	for _, one := range askers {
		<-one.done
	}
	for i, one := range askers {
		require.Empty(t, one.errs)
		if i == broken {
			require.NotZero(t, one.counts[503])
			continue
		}
		require.NotZero(t, one.counts[200], "gateway %d: %v", i, one.counts)
		require.Len(t, one.counts, 1, "gateway %d: %v", i, one.counts)
	}
	require.True(t, all[broken].ownCircuit.Probing())
	require.Equal(t, "closed", server.Hash(breakerOf(t))["state"])
	t.Logf("the broken one: %v; another: %v", askers[broken].counts, askers[0].counts)
}
