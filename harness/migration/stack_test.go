package migration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// startService starts a service that answers with the status in the query, or 200. It reads the whole body first.
func startService(t *testing.T) string {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		status, err := strconv.Atoi(r.URL.Query().Get("status"))
		if err != nil {
			status = http.StatusOK
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(service.Close)
	return service.URL
}

// stack is one Redis, one service and gateways, all of which have the same middlewares. /<middleware>/a and /<middleware>/b are two
// routers with the middleware.
type stack struct {
	redis    *redistest.Server
	service  string
	dynamic  string // folder
	gateways []string
}

func startStack(t *testing.T, gateways int, middlewares map[string]block) *stack {
	t.Helper()
	s := &stack{redis: redistest.Start(t), service: startService(t), dynamic: t.TempDir()}
	routers, used := block{}, block{}
	for name, middleware := range middlewares {
		used[name] = at(middleware, s.redis.Addr())
		for _, end := range []string{"a", "b"} {
			routers[name+"-"+end] = block{"rule": "Path(`/" + name + "/" + end + "`)", "middlewares": []string{name}, "service": "shop"}
		}
	}
	s.write(t, "middlewares.yml", block{
		"routers": routers, "middlewares": used,
		"services": block{"shop": block{"loadBalancer": block{"servers": []block{{"url": s.service}}}}},
	})
	s.write(t, "ready.yml", block{"routers": block{"ready": block{"rule": "Path(`/ready`)", "service": "shop@file"}}})
	for range gateways {
		s.gateways = append(s.gateways, s.startGateway(t))
	}
	return s
}

func (s *stack) startGateway(t *testing.T) string {
	t.Helper()
	web, err := gateway.FreeAddress()
	require.NoError(t, err)
	api, err := gateway.FreeAddress()
	require.NoError(t, err)
	log := &gateway.Log{}
	starter := &gateway.Traefik{Root: root, Dir: t.TempDir(), Web: web, API: api, Dynamic: s.dynamic, Log: log, Change: reloadAtOnce}
	process, err := starter.Start()
	require.NoError(t, err, log.String())
	t.Cleanup(func() {
		process.Stop()
		require.NotContains(t, log.String(), "panic:", "the gateway's log")
		require.NotContains(t, log.String(), "invalid middleware", "the gateway's log")
	})
	awaitStatus(t, "http://"+web+"/ready", http.StatusOK)
	return "http://" + web
}

func reloadAtOnce(static map[string]any) {
	gateway.Set(static, "100ms", "providers", "providersThrottleDuration")
}

// reload changes the dynamic configuration and waits until all gateways have it.
func (s *stack) reload(t *testing.T, path string) {
	t.Helper()
	s.write(t, path+".yml", block{"routers": block{path: block{"rule": "Path(`/" + path + "`)", "service": "shop@file"}}})
	for _, gateway := range s.gateways {
		awaitStatus(t, gateway+"/"+path, http.StatusOK)
	}
}

func (s *stack) write(t *testing.T, name string, http block) {
	t.Helper()
	content, err := yaml.Marshal(block{"http": http})
	require.NoError(t, err)
	whole := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(whole, content, 0o644))
	require.NoError(t, os.Rename(whole, filepath.Join(s.dynamic, name)))
}

func awaitStatus(t *testing.T, url string, status int) {
	t.Helper()
	require.Eventually(t, func() bool { return ask(url) == status }, 20*time.Second, 20*time.Millisecond, url)
}

// at returns the middleware with the Redis of the pages' examples replaced by one at an address.
func at(middleware block, redis string) block {
	changed, err := yaml.Marshal(middleware)
	if err != nil {
		panic(err)
	}
	var all block
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(changed), "redis:6379", redis)), &all); err != nil {
		panic(err)
	}
	return all
}

// with returns a copy of a configuration in which the values at the paths, keys with dots between, are others. nil removes a key.
func with(config block, values block) block {
	changed := at(config, "redis:6379")
	for path, value := range values {
		keys := strings.Split(path, ".")
		here := changed
		for _, key := range keys[:len(keys)-1] {
			next, ok := here[key].(block)
			if !ok {
				next = block{}
				here[key] = next
			}
			here = next
		}
		if value == nil {
			delete(here, keys[len(keys)-1])
		} else {
			here[keys[len(keys)-1]] = value
		}
	}
	return changed
}

// under returns the values with a prefix to their paths.
func under(prefix string, values block) block {
	all := block{}
	for path, value := range values {
		all[prefix+"."+path] = value
	}
	return all
}

var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 200},
}

// ask sends a request and returns the status of the answer, or 0 if there is none.
func ask(url string) int {
	response, err := client.Get(url)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// answers counts answers by their status, and keeps the longest time that one took.
type answers struct {
	mu      sync.Mutex // guards the rest
	status  map[int]int
	slowest time.Duration
	latest  time.Duration // how late a request was sent
}

func (a *answers) passed() float64 { return float64(a.status[http.StatusOK]) }

func (a *answers) String() string { return fmt.Sprintf("%v in at most %s", a.status, a.slowest) }

// send sends a request to each URL, at its time after the start, whether earlier ones are answered or not.
func send(times []time.Duration, url func(i int) string) *answers {
	all := &answers{status: map[int]int{}}
	begun := time.Now()
	var done sync.WaitGroup
	for i, due := range times {
		time.Sleep(time.Until(begun.Add(due)))
		done.Go(func() {
			sent := time.Now()
			status := ask(url(i))
			took := time.Since(sent)
			all.mu.Lock()
			defer all.mu.Unlock()
			all.status[status]++
			all.slowest = max(all.slowest, took)
			all.latest = max(all.latest, sent.Sub(begun)-due)
		})
	}
	done.Wait()
	return all
}

func same(url string) func(int) string { return func(int) string { return url } }

// atOnce is n requests at the same time.
func atOnce(n int) []time.Duration { return make([]time.Duration, n) }

// evenly is n requests with the same time between them.
func evenly(n int, every time.Duration) []time.Duration {
	times := make([]time.Duration, n)
	for i := range times {
		times[i] = time.Duration(i) * every
	}
	return times
}

// unevenly is evenly, but each second request is early.
func unevenly(n int, every, early time.Duration) []time.Duration {
	times := evenly(n, every)
	for i := 1; i < n; i += 2 {
		times[i] -= early
	}
	return times
}
