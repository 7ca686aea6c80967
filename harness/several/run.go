// Package several lets two real gateways decide under three limits while their Redis fails, and holds what they admitted against each of the
// limits.
package several

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/wire"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// The limits: of each client, and of all together. That of a client for an hour depends on the length of the run.
const (
	capacity, rate = 10, 10
	everyone       = 200

	gateways = 2
	greedy   = 12  // clients that always ask for twice their rate
	crowd    = 300 // clients that are far below theirs, and together far above everyone's
	timeout  = 500 * time.Millisecond
	patience = 40 * time.Second       // with a slow machine, which finds Redis unavailable now and then
	settled  = 300 * time.Millisecond // after a fault, until the gateways have noticed its end
)

// Options of a run. It has three phases: the greedy clients ask, then the crowd, and then the greedy ones again until their hour is spent.
type Options struct {
	Root  string // of the project
	Seed  uint64 // of everything that is left to chance
	Phase time.Duration
	Gap   time.Duration // between one fault and the next, about; there is none in the last third of a phase
}

// hourly returns the limit of a client for an hour, which it reaches in the middle of the last phase.
func (o Options) hourly() int64 { return int64(1.5 * rate * o.Phase.Seconds()) }

// Run lets the gateways and their Redis run, and judges what happened.
func Run(t testing.TB, o Options) *Report {
	t.Helper()
	f := startFleet(t, o)
	h := &f.history
	random := rand.New(rand.NewPCG(o.Seed, 1))
	for i, name := range []string{"client", "everyone", "hour"} {
		h.phases = append(h.phases, phase{name: name, from: h.now()})
		kind, number, every := "greedy", greedy, time.Second/(2*rate)
		if name == "everyone" {
			kind, number, every = "crowd", crowd, time.Second*crowd/(2*everyone)
		}
		ask := func(length time.Duration, during func(until time.Duration)) {
			until := h.now() + length
			var asking sync.WaitGroup
			for c := range number {
				random := rand.New(rand.NewPCG(random.Uint64(), uint64(c)))
				asking.Go(func() { f.ask(fmt.Sprint(kind, c), random, every, until) })
			}
			during(until)
			asking.Wait()
		}
		ask(o.Phase, func(until time.Duration) { f.fail(random, o.Gap, until-o.Phase/3) })
		for latest := h.now() + patience; name == "everyone" && !h.wasCalm(h.phases[i].from) && h.now() < latest; {
			ask(o.Phase/3, func(time.Duration) {})
		}
		h.phases[i].to = h.now()
	}
	report := h.judge(o)
	f.readHours(report, o)
	return report
}

// fleet is the gateways, their Redis and their service.
type fleet struct {
	t       testing.TB
	redis   *redistest.Server
	wires   []*wire.Wire
	webs    []string
	history history
}

func startFleet(t testing.TB, o Options) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: redistest.Start(t)}
	f.history.begun = time.Now()
	service := serve(t, &f.history)
	for range gateways {
		w, err := wire.New(f.redis.Addr(), timeout+50*time.Millisecond)
		require.NoError(t, err)
		t.Cleanup(w.Close)
		web, err := gateway.FreeAddress()
		require.NoError(t, err)
		api, err := gateway.FreeAddress()
		require.NoError(t, err)
		log := &gateway.Log{}
		starter := &gateway.Traefik{
			Root: o.Root, Dir: t.TempDir(), Web: web, API: api, Dynamic: dynamic(t, o, w.Addr(), service), Log: log,
			Change: func(static map[string]any) { delete(static, "accessLog") },
		}
		process, err := starter.Start()
		require.NoError(t, err)
		t.Cleanup(func() {
			process.Kill()
			require.NotContains(t, log.String(), "panic:")
		})
		f.wires, f.webs = append(f.wires, w), append(f.webs, web)
	}
	for _, web := range f.webs {
		require.Eventually(t, func() bool { status, _ := get(web, "ready"); return status == http.StatusOK }, 20*time.Second, 20*time.Millisecond)
	}
	f.redis.Do("FLUSHALL")
	time.Sleep(time.Second) // what the gateways have leased ends
	return f
}

// dynamic writes the dynamic configuration of one gateway and returns its folder. A gateway without Redis refuses: then each limit holds at
// all times, for all gateways together.
func dynamic(t testing.TB, o Options, redis, service string) string {
	t.Helper()
	type block = map[string]any
	content, err := yaml.Marshal(block{"http": block{
		"middlewares": block{"limited": block{"plugin": block{"resilience": block{
			"redis": block{"address": redis, "timeout": timeout.String(), "onError": "deny"},
			"rateLimit": block{
				"capacity": capacity, "refillRate": rate, "sourceCriterion": block{"requestHeaderName": "X-Key"},
				"limits": block{
					"hour":     block{"capacity": o.hourly(), "refillRate": o.hourly(), "refillPeriod": "1h"},
					"everyone": block{"capacity": everyone, "refillRate": everyone, "sourceCriterion": block{"all": true}},
				},
			},
		}}}},
		"routers":  block{"limited": block{"rule": "Path(`/`)", "entryPoints": []string{"web"}, "middlewares": []string{"limited"}, "service": "service"}},
		"services": block{"service": block{"loadBalancer": block{"servers": []block{{"url": service}}}}},
	}})
	require.NoError(t, err)
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "several.yml"), content, 0o644))
	return folder
}

// serve starts a service that says when a request arrived.
func serve(t testing.TB, h *history) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Arrived", strconv.FormatInt(int64(h.now()), 10))
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 500}, Timeout: 30 * time.Second}

// get asks as a client and returns the status, and when the request arrived at the service. 0: there was no answer.
func get(web, key string) (status int, arrived time.Duration) {
	request, err := http.NewRequest(http.MethodGet, "http://"+web+"/", nil)
	if err != nil {
		return 0, 0
	}
	request.Header.Set("X-Key", key)
	response, err := client.Do(request)
	if err != nil {
		return 0, 0
	}
	response.Body.Close()
	n, _ := strconv.ParseInt(response.Header.Get("X-Arrived"), 10, 64)
	return response.StatusCode, time.Duration(n)
}

// ask asks as one client, any of the gateways each time.
func (f *fleet) ask(key string, random *rand.Rand, every, until time.Duration) {
	next := f.history.now() + time.Duration(random.Int64N(int64(every)))
	for {
		time.Sleep(next - f.history.now())
		sent := f.history.now()
		if sent >= until {
			return
		}
		status, arrived := get(f.webs[random.IntN(len(f.webs))], key)
		f.history.answer(answer{key: key, status: status, sent: sent, arrived: arrived, ended: f.history.now()})
		next = max(next+every, f.history.now())
	}
}
