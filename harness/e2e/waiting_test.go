package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// waitingStage is a gateway before a service that is in this process, with a circuit for each scope.
type waitingStage struct {
	*traefik
	server *redistest.Server
}

func startWaiting(t *testing.T, service *http.Server, breaker block, change func(static map[string]any), scopes ...string) *waitingStage {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go service.Serve(listener)
	t.Cleanup(func() { service.Close() })
	s := &waitingStage{server: redistest.Start(t)}
	dynamic := t.TempDir()
	writeDynamic(t, dynamic, block{"redis": redisBlock(s.server), "circuitBreaker": breaker})
	routers, middlewares := block{}, block{}
	for _, name := range scopes {
		prefix := "/" + name + "/"
		routers[name] = block{
			"rule": "PathPrefix(`" + prefix + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "waiting",
		}
		middlewares[name] = block{"plugin": block{"resilience": block{"redis": redisBlock(s.server), "circuitBreaker": breaker}}}
	}
	writeYAML(t, filepath.Join(dynamic, "waiting.yml"), block{"http": block{
		"routers": routers, "middlewares": middlewares,
		"services":          block{"waiting": block{"loadBalancer": block{"serversTransport": "patient", "servers": []block{{"url": "http://" + listener.Addr().String()}}}}},
		"serversTransports": block{"patient": block{"forwardingTimeouts": block{"responseHeaderTimeout": "30s"}}},
	}})
	s.traefik = startTraefik(t, options{upstream: startUpstream(t), dynamic: dynamic, change: change})
	return s
}

func (s *waitingStage) state(scope string) string {
	return s.server.Hash("resilience:{" + scope + "}:breaker")["state"]
}

// makeHealthy makes the circuit of a scope healthy and refreshes the gateway's view of it.
func (s *waitingStage) makeHealthy(t *testing.T, scope string) {
	t.Helper()
	require.Equal(t, 200, s.get("/"+scope+"/ok").status)
	require.Equal(t, 200, s.get("/"+scope+"/ok").status)
}

// bigAnswer is an answer that no buffers hold.
func bigAnswer(w http.ResponseWriter, r *http.Request) {
	if path.Base(r.URL.Path) != "big" {
		return
	}
	piece := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// slowly reads a piece now and then for a while, and then all that is left. It reports whether the answer was cut.
func slowly(t *testing.T, client *http.Client, url string, during time.Duration) (cut bool) {
	t.Helper()
	response, err := client.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	piece := make([]byte, 1000)
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := io.ReadFull(response.Body, piece); err != nil {
			return err != io.EOF
		}
	}
	_, err = io.Copy(io.Discard, response.Body)
	return errors.Is(err, io.ErrUnexpectedEOF) || err != nil && !os.IsTimeout(err)
}

// http1 opens a connection for each request.
func http1() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
}

// A service ends the connection after its own send timeout, because the client reads slowly: it has not failed.
func TestVerdict_aClientThatWasWaitedForIsNoFailure(t *testing.T) {
	t.Parallel()
	protocols := map[string]*http.Client{"http1": http1(), "http2": http2}
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			service := &http.Server{Handler: http.HandlerFunc(bigAnswer), WriteTimeout: 2 * time.Second}
			s := startWaiting(t, service, block{"failureThreshold": 5, "resetTimeout": "1h"}, change, "http1", "http2")
			var both sync.WaitGroup
			for scope, client := range protocols {
				both.Go(func() {
					s.makeHealthy(t, scope)
					for range 5 {
						cut := slowly(t, client, s.url("/"+scope+"/big"), 2500*time.Millisecond)
						assert.True(t, cut, "the answer was cut")
					}
					assert.Equal(t, "closed", s.state(scope), scope)
					s.makeHealthy(t, scope)
				})
			}
			both.Wait()
		})
	}
}

// A service that ends the connection in the middle of an answer, before a client that takes all at once, has failed. Of the first
// such answer it is not known whom it waited for.
func TestVerdict_anAnswerThatIsCutLateIsAFailure(t *testing.T) {
	t.Parallel()
	methods := map[string]func(s *waitingStage){
		"get":  func(s *waitingStage) { demand(s, "/get/cut", "GET", nil, 5*time.Second) },
		"post": func(s *waitingStage) { demand(s, "/post/cut", "POST", io.LimitReader(zeros{}, 100000), 5*time.Second) },
	}
	cut := func(w http.ResponseWriter, r *http.Request) {
		if path.Base(r.URL.Path) != "cut" {
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "half of it")
		http.NewResponseController(w).Flush()
		time.Sleep(1500 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(cut)}, block{"failureThreshold": 5, "resetTimeout": "1h"}, change, "get", "post")
			var both sync.WaitGroup
			for scope, ask := range methods {
				both.Go(func() {
					s.makeHealthy(t, scope)
					for range 6 {
						assert.NotEqual(t, "open", s.state(scope))
						ask(s)
					}
					assert.Eventually(t, func() bool { return s.state(scope) == "open" }, soon, time.Millisecond, scope)
				})
			}
			both.Wait()
		})
	}
}

// A service that ends the connection while the client is still sending, which is slow, has waited for it.
func TestVerdict_anUploadThatWasWaitedForIsNoFailure(t *testing.T) {
	t.Parallel()
	impatient := func(w http.ResponseWriter, r *http.Request) {
		if path.Base(r.URL.Path) == "close" {
			time.Sleep(time.Second)
			if connection, _, err := http.NewResponseController(w).Hijack(); err == nil {
				connection.Close()
			}
		}
	}
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			breaker := block{"failureThreshold": 5, "resetTimeout": "1h"}
			s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(impatient)}, breaker, change, "slow", "whole")
			s.makeHealthy(t, "slow")
			for range 5 {
				var slow []io.Reader
				for range 12 {
					slow = append(slow, io.LimitReader(zeros{}, 10), &pause{200 * time.Millisecond})
				}
				demand(s, "/slow/close", "POST", io.MultiReader(slow...), 5*time.Second)
			}
			require.Equal(t, "closed", s.state("slow"))
			s.makeHealthy(t, "slow")

			s.makeHealthy(t, "whole")
			for range 5 {
				demand(s, "/whole/close", "POST", io.LimitReader(zeros{}, 10), 5*time.Second)
			}
			require.Eventually(t, func() bool { return s.state("whole") == "open" }, soon, time.Millisecond)
		})
	}
}

// An answer to a POST that is cut at once counts as well, from the second on.
func TestVerdict_anAnswerToAPOSTThatIsCutAtOnceIsAFailure(t *testing.T) {
	t.Parallel()
	for source, change := range statusSources {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			cut := func(w http.ResponseWriter, r *http.Request) {
				if path.Base(r.URL.Path) == "cut" {
					io.Copy(io.Discard, r.Body)
					io.WriteString(w, "half of it")
					http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
			}
			s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(cut)}, block{"failureThreshold": 5, "resetTimeout": "1h"}, change, "post")
			s.makeHealthy(t, "post")
			for range 6 {
				require.NotEqual(t, "open", s.state("post"))
				demand(s, "/post/cut", "POST", io.LimitReader(zeros{}, 1000), 5*time.Second)
			}
			require.Eventually(t, func() bool { return s.state("post") == "open" }, soon, time.Millisecond)
		})
	}
}

// demand sends a request, and reads its answer, but no longer than patience.
func demand(s *waitingStage, path, method string, body io.Reader, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, method, s.url(path), body)
	response, err := http.DefaultClient.Do(request)
	if err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// hanging is a service that hangs, and some that do not.
func hanging(w http.ResponseWriter, r *http.Request) {
	switch path.Base(r.URL.Path) {
	case "hang":
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	case "hints":
		w.WriteHeader(http.StatusEarlyHints)
		<-r.Context().Done()
	case "stream":
		http.NewResponseController(w).Flush()
		time.Sleep(1500 * time.Millisecond)
	case "upload":
		io.Copy(io.Discard, r.Body)
	case "late":
		time.Sleep(1200 * time.Millisecond)
	}
}

// hangs are what five clients do at once, and the state of the circuit afterwards: with a hangTimeout of 1s, and with none.
var hangs = []struct {
	name    string
	ask     func(s *waitingStage, scope string)
	on, off string
}{
	{"get", func(s *waitingStage, scope string) { demand(s, scope+"/hang", "GET", nil, 2*time.Second) }, "open", "closed"},
	{"post", func(s *waitingStage, scope string) {
		demand(s, scope+"/hang", "POST", io.LimitReader(zeros{}, 100000), 2*time.Second)
	}, "open", "closed"},
	{"hints", func(s *waitingStage, scope string) { demand(s, scope+"/hints", "GET", nil, 2*time.Second) }, "open", "closed"},
	{"late", func(s *waitingStage, scope string) { demand(s, scope+"/late", "GET", nil, 5*time.Second) }, "open", "closed"},
	{"impatient", func(s *waitingStage, scope string) { demand(s, scope+"/hang", "GET", nil, 500*time.Millisecond) }, "closed", "closed"},
	{"slow-upload", func(s *waitingStage, scope string) {
		slow := io.MultiReader(io.LimitReader(zeros{}, 10), &pause{1500 * time.Millisecond}, io.LimitReader(zeros{}, 10))
		demand(s, scope+"/upload", "POST", slow, 5*time.Second)
	}, "closed", "closed"},
	{"endless-upload", func(s *waitingStage, scope string) {
		demand(s, scope+"/upload", "POST", io.MultiReader(io.LimitReader(zeros{}, 10), &pause{2500 * time.Millisecond}), 2*time.Second)
	}, "closed", "closed"},
	{"stream", func(s *waitingStage, scope string) { demand(s, scope+"/stream", "GET", nil, 5*time.Second) }, "closed", "closed"},
}

// A service that hangs is a failure, although its clients give up after 2 s.
func TestVerdict_aServiceThatHangs(t *testing.T) {
	t.Parallel()
	var scopes []string
	for _, row := range hangs {
		scopes = append(scopes, row.name)
	}
	for source, change := range statusSources {
		for _, timeout := range []string{"1s", "0s"} {
			t.Run(source+", "+timeout, func(t *testing.T) {
				t.Parallel()
				breaker := block{"failureThreshold": 5, "resetTimeout": "1h", "hangTimeout": timeout}
				s := startWaiting(t, &http.Server{Handler: http.HandlerFunc(hanging)}, breaker, change, scopes...)
				var all sync.WaitGroup
				for _, row := range hangs {
					s.makeHealthy(t, row.name)
					for range 5 {
						all.Go(func() { row.ask(s, "/"+row.name) })
					}
				}
				all.Wait()
				time.Sleep(200 * time.Millisecond) // for reports that must not come
				for _, row := range hangs {
					want := row.off
					if timeout == "1s" {
						want = row.on
					}
					assert.Eventually(t, func() bool { return s.state(row.name) == want }, soon, time.Millisecond, row.name)
				}
			})
		}
	}
}

// pause is a reader that keeps waiting for so long, and then has nothing.
type pause struct{ long time.Duration }

func (p *pause) Read([]byte) (int, error) {
	time.Sleep(p.long)
	return 0, io.EOF
}
