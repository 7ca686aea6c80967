package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// startBroken starts a gateway whose circuit has just opened, and whose service is well again.
func startBroken(t *testing.T, server *redistest.Server, breaker block) (*traefik, *upstream) {
	t.Helper()
	up := startUpstream(t)
	plugin := block{"circuitBreaker": breaker}
	if server != nil {
		plugin["redis"] = redisBlock(server)
	}
	g := startTraefik(t, options{upstream: up, plugin: plugin})
	require.Equal(t, 500, g.get("/proxy/fail").status)
	require.Equal(t, 503, g.get("/proxy/ok").status)
	return g, up
}

// withAndWithout runs a test with the state in Redis and in the gateway.
func withAndWithout(t *testing.T, run func(t *testing.T, server *redistest.Server)) {
	t.Run("in Redis", func(t *testing.T) {
		t.Parallel()
		run(t, redistest.Start(t))
	})
	t.Run("in this process", func(t *testing.T) {
		t.Parallel()
		run(t, nil)
	})
}

// openPosts opens a request each few milliseconds whose body never comes, over separate connections, until the test ends.
func openPosts(t *testing.T, g *traefik, head string) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			c, err := net.Dial("tcp", g.web)
			if err != nil {
				continue
			}
			t.Cleanup(func() { c.Close() })
			fmt.Fprintf(c, "POST /proxy/upload HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", head)
		}
	}()
}

// A client that opens requests and sends no body cannot keep a circuit from closing: neither for requests without a body nor for
// those with a small one.
func TestUpload_missingBodiesDoNotBlockClosing(t *testing.T) {
	t.Parallel()
	heads := map[string]string{
		"a short one": "Content-Length: 1000", "a long one": "Content-Length: 100000", "chunks": "Transfer-Encoding: chunked",
		"a part of one": "Content-Length: 100000\r\n\r\nsome",
	}
	holds := func(t *testing.T, places int, head, method string, server *redistest.Server) {
		g, _ := startBroken(t, server, block{
			"failureThreshold": 1, "resetTimeout": "1s", "halfOpenMaxProbes": places, "probeTimeout": "2s",
		})
		openPosts(t, g, head)
		time.Sleep(1300 * time.Millisecond) // it is half-open, and they have what places they can
		require.Empty(t, g.events("circuit closed"))
		begun, refused := time.Now(), 0
		for time.Since(begun) < 2*time.Second {
			if g.honest(method) != http.StatusOK {
				refused++
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("%d refused", refused)
		require.Less(t, refused, 50, "until it closed")
		require.Len(t, g.events("circuit closed"), 1)
		require.Len(t, g.events("circuit open"), 1)
	}
	for name, head := range heads {
		places, method := 2, http.MethodGet
		if name == "a long one" {
			places = 1
		}
		if name == "a part of one" {
			method = http.MethodPost
		}
		t.Run(fmt.Sprint(name, ", ", places, " places, ", method), func(t *testing.T) {
			t.Parallel()
			holds(t, places, head, method, redistest.Start(t))
		})
	}
	for _, places := range []int{1, 2} {
		t.Run(fmt.Sprint("in this process, ", places, " places"), func(t *testing.T) {
			t.Parallel()
			holds(t, places, heads["chunks"], http.MethodGet, nil)
		})
	}
}

// It is so over each protocol.
func TestUpload_missingBodiesDoNotBlockClosingOverTLS(t *testing.T) {
	t.Parallel()
	insecure := &tls.Config{InsecureSkipVerify: true}
	for name, transport := range map[string]func() http.RoundTripper{
		"HTTP/2": func() http.RoundTripper { return &http.Transport{TLSClientConfig: insecure, ForceAttemptHTTP2: true} },
		"HTTP/3": func() http.RoundTripper { return &http3.Transport{TLSClientConfig: insecure} },
	} {
		t.Run(name, func(t *testing.T) {
			up := startUpstream(t)
			dynamic := t.TempDir()
			writeDynamic(t, dynamic, block{"redis": redisBlock(redistest.Start(t)), "circuitBreaker": block{
				"failureThreshold": 1, "resetTimeout": "1s", "halfOpenMaxProbes": 2, "probeTimeout": "10s",
			}})
			address, change := overHTTP3(t, dynamic)
			g := startTraefik(t, options{upstream: up, dynamic: dynamic, change: change})
			require.Equal(t, 500, g.get("/proxy/fail").status)
			url := "https://" + address
			held := &http.Client{Transport: transport()}
			ctx, stop := context.WithCancel(context.Background())
			t.Cleanup(stop)
			go func() {
				for ctx.Err() == nil {
					body, _ := io.Pipe()
					request, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/proxy/upload", body)
					go func() {
						if response, err := held.Do(request); err == nil {
							response.Body.Close()
						}
					}()
					time.Sleep(20 * time.Millisecond)
				}
			}()
			time.Sleep(1500 * time.Millisecond)
			require.Empty(t, g.events("circuit closed"))
			honest := &http.Client{Transport: transport(), Timeout: 5 * time.Second}
			begun, refused := time.Now(), 0
			for time.Since(begun) < 2*time.Second {
				response, err := honest.Get(url + "/proxy/ok")
				require.NoError(t, err)
				response.Body.Close()
				require.Equal(t, name[:6], response.Proto[:6])
				if response.StatusCode != http.StatusOK {
					refused++
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("%d refused", refused)
			require.Less(t, refused, 50)
			require.Len(t, g.events("circuit closed"), 1)
		})
	}
}

// honest sends a request whose body, if it has one, is small.
func (g *traefik) honest(method string) int {
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(`{"small": true}`)
	}
	request, err := http.NewRequest(method, g.url("/proxy/ok"), body)
	if err != nil {
		return 0
	}
	return send(request).status
}

// upload sends a body in pieces, for so long, and returns the status.
func (g *traefik) upload(length time.Duration) (int, error) {
	reader, writer := io.Pipe()
	go func() {
		defer writer.Close()
		for begun := time.Now(); time.Since(begun) < length; time.Sleep(50 * time.Millisecond) {
			writer.Write([]byte("piece"))
		}
	}()
	request, err := http.NewRequest(http.MethodPost, g.url("/proxy/upload"), reader)
	if err != nil {
		return 0, err
	}
	r := send(request)
	return r.status, r.err
}

// The time of an upload counts from the end of its body.
func TestUpload_aSlowOneCounts(t *testing.T) {
	t.Parallel()
	for _, places := range []int{1, 2} {
		t.Run(fmt.Sprint(places, " places"), func(t *testing.T) {
			withAndWithout(t, func(t *testing.T, server *redistest.Server) {
				g, _ := startBroken(t, server, block{
					"failureThreshold": 1, "resetTimeout": "300ms", "halfOpenMaxProbes": places, "probeTimeout": "1s",
					"halfOpenSuccessThreshold": 1,
				})
				time.Sleep(400 * time.Millisecond)
				status, err := g.upload(1500 * time.Millisecond)
				require.NoError(t, err)
				require.Equal(t, 200, status)
				require.Eventually(t, func() bool { return len(g.events("circuit closed")) == 1 }, soon, 10*time.Millisecond)
				require.Len(t, g.events("circuit open"), 1, "it has not opened again")
				require.Equal(t, 200, g.get("/proxy/ok").status)
			})
		})
	}
}

// One that a service does not answer is lost all the same.
func TestUpload_withoutAnAnswerOpensTheCircuit(t *testing.T) {
	t.Parallel()
	withAndWithout(t, func(t *testing.T, server *redistest.Server) {
		g, _ := startBroken(t, server, block{
			"failureThreshold": 1, "resetTimeout": "2s", "halfOpenMaxProbes": 1, "probeTimeout": "500ms", "halfOpenSuccessThreshold": 1,
		})
		time.Sleep(2100 * time.Millisecond)
		go http.Post(g.url("/proxy/slow?seconds=5"), "text/plain", strings.NewReader("all of it"))
		time.Sleep(time.Second)
		require.Equal(t, 503, g.get("/proxy/ok").status)
		require.Eventually(t, func() bool { return len(g.events("circuit open")) == 2 }, soon, 10*time.Millisecond)
	})
}
