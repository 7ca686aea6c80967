package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// waitingStage is a gateway before a service that is in this process, with a circuit that opens after five failures.
type waitingStage struct {
	*traefik
	server *redistest.Server
}

func startWaiting(t *testing.T, service *http.Server, breaker block, change func(static map[string]any)) *waitingStage {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go service.Serve(listener)
	t.Cleanup(func() { service.Close() })
	s := &waitingStage{server: redistest.Start(t)}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"redis": redisBlock(s.server), "circuitBreaker": breaker})
	writeYAML(t, filepath.Join(dynamic, "waiting.yml"), block{"http": block{
		"routers": block{"waiting": block{
			"rule": "PathPrefix(`/waiting/`)", "entryPoints": []string{"web"}, "middlewares": []string{"gateway"}, "service": "waiting",
		}},
		"services":          block{"waiting": block{"loadBalancer": block{"serversTransport": "patient", "servers": []block{{"url": "http://" + listener.Addr().String()}}}}},
		"serversTransports": block{"patient": block{"forwardingTimeouts": block{"responseHeaderTimeout": "30s"}}},
	}})
	s.traefik = startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, change: change})
	return s
}

func (s *waitingStage) state() string { return s.server.Hash(breakerKey)["state"] }

func (s *waitingStage) calm(t *testing.T) {
	t.Helper()
	require.Equal(t, 200, s.get("/waiting/ok").status)
	require.Equal(t, 200, s.get("/waiting/ok").status)
}

// bigAnswer is an answer that no buffers hold.
func bigAnswer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/waiting/big" {
		return
	}
	piece := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// slowly reads a piece now and then for so long, and then all that is left. It tells whether the answer was cut.
func slowly(t *testing.T, client *http.Client, url string, during time.Duration) (cut bool) {
	t.Helper()
	response, err := client.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	piece := make([]byte, 1000)
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := io.ReadFull(response.Body, piece); err != nil {
			return true
		}
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err != nil
}

// http1Slow has a connection of its own for each request, which the kernel buffers little of.
func http1Slow() *http.Client {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			c.(*net.TCPConn).SetReadBuffer(16 << 10)
		}
		return c, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, ReadBufferSize: 4096}, Timeout: 30 * time.Second}
}

// A service ends the connection after its own send timeout, because the client reads slowly: it has not failed.
func TestVerdict_aClientThatWasWaitedForIsNoFailure(t *testing.T) {
	for way, change := range statusSources {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			for protocol, client := range map[string]*http.Client{"HTTP/1": http1Slow(), "HTTP/2": http2} {
				t.Run(protocol, func(t *testing.T) {
					t.Parallel()
					s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(bigAnswer), WriteTimeout: 2 * time.Second}, block{"failureThreshold": 5, "resetTimeout": "1h"}, change)
					s.calm(t)
					for range 5 {
						require.True(t, slowly(t, client, s.url("/waiting/big"), 2500*time.Millisecond), "the answer was cut")
					}
					require.Equal(t, "closed", s.state())
					s.calm(t)
				})
			}
		})
	}
}

// A service that ends the connection in the middle of an answer, before a client that takes all at once, has failed. Of the first
// such answer it is not known whom it waited for.
func TestVerdict_anAnswerThatIsCutLateIsAFailure(t *testing.T) {
	for _, row := range []struct {
		name string
		body io.Reader
		most int
	}{{"GET", nil, 6}, {"POST", nil, 6}} {
		for way, change := range statusSources {
			t.Run(row.name+" "+way, func(t *testing.T) {
				t.Parallel()
				cut := func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/waiting/cut" {
						return
					}
					io.Copy(io.Discard, r.Body)
					io.WriteString(w, "half of it")
					http.NewResponseController(w).Flush()
					time.Sleep(1500 * time.Millisecond)
					panic(http.ErrAbortHandler)
				}
				s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(cut)}, block{"failureThreshold": 5, "resetTimeout": "1h"}, change)
				s.calm(t)
				for i := range row.most {
					if row.name == "GET" {
						s.get("/waiting/cut")
					} else {
						response, err := http.Post(s.url("/waiting/cut"), "", io.MultiReader(io.LimitReader(zeros{}, 100000)))
						require.NoError(t, err, i)
						_, err = io.Copy(io.Discard, response.Body)
						require.Error(t, err)
						response.Body.Close()
					}
				}
				require.Eventually(t, func() bool { return s.state() == "open" }, 2*time.Second, time.Millisecond)
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A service that hangs while its clients give up after 2 s fails, though nobody is there to hear it.
func TestVerdict_aServiceThatHangs(t *testing.T) {
	for way, change := range statusSources {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			stay := make(chan struct{})
			t.Cleanup(func() { close(stay) })
			hangs := func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/waiting/hang":
					io.Copy(io.Discard, r.Body)
					select {
					case <-stay:
					case <-r.Context().Done():
					}
				case "/waiting/hints":
					w.WriteHeader(http.StatusEarlyHints)
					io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				case "/waiting/stream":
					http.NewResponseController(w).Flush()
					time.Sleep(1500 * time.Millisecond)
				case "/waiting/upload":
					io.Copy(io.Discard, r.Body)
				case "/waiting/late":
					time.Sleep(1200 * time.Millisecond)
				}
			}
			start := func(t *testing.T, breaker block) *waitingStage {
				s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(hangs)}, breaker, func(static map[string]any) {
					change(static)
					gateway.Set(static, "0s", "entryPoints", "web", "transport", "respondingTimeouts", "readTimeout")
				})
				s.calm(t)
				return s
			}
			ask := func(s *waitingStage, path, method string, body io.Reader, patience time.Duration) {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				request, _ := http.NewRequestWithContext(ctx, method, s.url(path), body)
				response, err := http.DefaultClient.Do(request)
				if err == nil {
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			}
			five := func(do func()) {
				var all sync.WaitGroup
				for range 5 {
					all.Go(do)
				}
				all.Wait()
				time.Sleep(100 * time.Millisecond)
			}
			on := block{"failureThreshold": 5, "resetTimeout": "1h", "hangTimeout": "1s"}
			for _, row := range []struct {
				name    string
				breaker block
				do      func(s *waitingStage)
				state   string
			}{
				{"GET", on, func(s *waitingStage) { ask(s, "/waiting/hang", "GET", nil, 2*time.Second) }, "open"},
				{"POST", on, func(s *waitingStage) { ask(s, "/waiting/hang", "POST", io.LimitReader(zeros{}, 100000), 2*time.Second) }, "open"},
				{"after early hints", on, func(s *waitingStage) { ask(s, "/waiting/hints", "GET", nil, 2*time.Second) }, "open"},
				{"late, and then well", on, func(s *waitingStage) { ask(s, "/waiting/late", "GET", nil, 5*time.Second) }, "open"},
				{"clients that do not wait", on, func(s *waitingStage) { ask(s, "/waiting/hang", "GET", nil, 500*time.Millisecond) }, "closed"},
				{"a slow upload", on, func(s *waitingStage) {
					ask(s, "/waiting/upload", "POST", io.MultiReader(io.LimitReader(zeros{}, 10), &pause{1500 * time.Millisecond}, io.LimitReader(zeros{}, 10)), 5*time.Second)
				}, "closed"},
				{"an upload that does not end", on, func(s *waitingStage) {
					ask(s, "/waiting/upload", "POST", io.MultiReader(io.LimitReader(zeros{}, 10), &pause{2500 * time.Millisecond}), 2*time.Second)
				}, "closed"},
				{"a stream", on, func(s *waitingStage) { ask(s, "/waiting/stream", "GET", nil, 5*time.Second) }, "closed"},
				{"it is off", block{"failureThreshold": 5, "resetTimeout": "1h"}, func(s *waitingStage) { ask(s, "/waiting/hang", "GET", nil, 2*time.Second) }, "closed"},
			} {
				t.Run(row.name, func(t *testing.T) {
					s := start(t, row.breaker)
					five(func() { row.do(s) })
					require.Equal(t, row.state, s.state())
				})
			}
		})
	}
}

// pause is a reader that keeps waiting for so long, and then has nothing.
type pause struct{ long time.Duration }

func (p *pause) Read([]byte) (int, error) {
	time.Sleep(p.long)
	return 0, io.EOF
}
