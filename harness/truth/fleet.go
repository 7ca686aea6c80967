package truth

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/harness/wire"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const (
	timeout        = 250 * time.Millisecond // redis.timeout of every middleware
	maxConnections = 20                     // 16 that are kept and 4 that are being made

	settled = 300 * time.Millisecond // after a change was logged, until it holds for requests under way, too
)

// member is one gateway of the fleet, with a wire of its own to Redis.
type member struct {
	number   int
	wire     *wire.Wire
	web, api string
	starter  *gateway.Traefik
	process  *gateway.Process

	mu     sync.Mutex // guards what follows
	log    bytes.Buffer
	away   bool
	panics int
	lines  int           // about Redis's coming and going
	since  time.Duration // since when it has been away, or back
	h      *history
}

// Write takes a part of the gateway's log and notes what it says of Redis.
func (m *member) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log.Write(p)
	for {
		line, err := m.log.ReadString('\n')
		if err != nil {
			m.log.WriteString(line)
			return len(p), nil
		}
		m.read(line)
	}
}

// read takes one line. mu is held.
func (m *member) read(line string) {
	if strings.Contains(line, "panic:") {
		m.panics++
	}
	away := strings.Contains(line, `"redis unavailable"`)
	if !away && !strings.Contains(line, `"redis is back"`) {
		return
	}
	now := m.h.now()
	if m.away && !away {
		// It had been away for a request's time-out when it said so.
		m.h.cloud(span{gateway: m.number, from: m.since - timeout - settled, to: now + settled})
	}
	m.away, m.since = away, now
	m.lines++
}

// calm tells whether the gateway has Redis, and for how long.
func (m *member) calm() (bool, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.away, m.h.now() - m.since
}

// fleet is all gateways, their Redis and their upstream.
type fleet struct {
	t       testing.TB
	h       *history
	redis   *redistest.Server
	origin  *origin
	members []*member
}

func startFleet(t testing.TB, root string, gateways int) *fleet {
	f := &fleet{t: t, h: &history{begun: time.Now()}, redis: redistest.Start(t)}
	f.origin = startOrigin(t, f.h)
	for i := range gateways {
		w, err := wire.New(f.redis.Addr(), timeout+50*time.Millisecond)
		require.NoError(t, err)
		t.Cleanup(w.Close)
		m := &member{number: i, wire: w, web: freeAddress(t), api: freeAddress(t), h: f.h}
		m.starter = &gateway.Traefik{
			Root: root, Dir: t.TempDir(), Web: m.web, API: m.api, Dynamic: f.dynamic(w.Addr()), Log: m,
			Change: func(static map[string]any) { delete(static, "accessLog") },
		}
		f.members = append(f.members, m)
		f.start(m)
		t.Cleanup(func() { m.process.Kill() })
	}
	return f
}

func freeAddress(t testing.TB) string {
	address, err := gateway.FreeAddress()
	require.NoError(t, err)
	return address
}

func (f *fleet) start(m *member) {
	process, err := m.starter.Start()
	require.NoError(f.t, err)
	m.process = process
	served := func() bool {
		response, err := http.Get("http://" + m.web + "/" + string(plenty))
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	require.Eventually(f.t, served, 20*time.Second, 20*time.Millisecond)
}

// dynamic writes the dynamic configuration of one gateway and returns its folder.
func (f *fleet) dynamic(redis string) string {
	type block = map[string]any
	connection := block{"address": redis, "timeout": timeout.String()}
	middlewares := block{
		string(circuit): block{"redis": connection, "circuitBreaker": block{
			"failureThreshold": 1, "resetTimeout": resetTimeout.String(), "halfOpenSuccessThreshold": successes,
			"halfOpenMaxProbes": maxProbes, "probeTimeout": probeTimeout.String(),
		}},
	}
	for kind, l := range limits {
		middlewares[string(kind)] = block{"redis": connection, "rateLimit": block{
			"capacity": int(l.capacity), "refillRate": int(l.rate), "sourceCriterion": block{"requestHeaderName": "X-Key"},
		}}
	}
	routers := block{}
	for name, plugin := range middlewares {
		middlewares[name] = block{"plugin": block{"resilience": plugin}}
		routers[name] = block{"rule": "PathPrefix(`/" + name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "upstream"}
	}
	routers[string(plain)] = block{"rule": "Path(`/plain`)", "entryPoints": []string{"web"}, "service": "upstream"}
	content, err := yaml.Marshal(block{"http": block{"routers": routers, "middlewares": middlewares, "services": block{
		"upstream": block{"loadBalancer": block{"servers": []block{{"url": "http://" + f.origin.address}}}},
	}}})
	require.NoError(f.t, err)
	folder := f.t.TempDir()
	require.NoError(f.t, os.WriteFile(filepath.Join(folder, "fleet.yml"), content, 0o644))
	return folder
}

// figures are what a gateway's own metrics say of it, memory in MB, and its connections to Redis.
type figures struct{ goroutines, files, memory, connections float64 }

func (m *member) figures() (f figures) {
	f.connections = float64(m.wire.Seen().Open)
	response, err := http.Get("http://" + m.api + "/metrics")
	if err != nil {
		return f
	}
	defer response.Body.Close()
	var text bytes.Buffer
	text.ReadFrom(response.Body)
	for _, line := range strings.Split(text.String(), "\n") {
		name, value, _ := strings.Cut(line, " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			f.goroutines = n
		case "process_open_fds":
			f.files = n
		case "process_resident_memory_bytes":
			f.memory = n / 1e6
		}
	}
	return f
}

func (f figures) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f files, %.0f MB, %.0f connections to Redis", f.goroutines, f.files, f.memory, f.connections)
}

// grown tells whether there is more than what a gateway that is in use a little longer needs.
func (f figures) grown(first figures) bool {
	return f.goroutines > first.goroutines+50 || f.files > first.files+50 || f.memory > 1.5*first.memory || f.connections > maxConnections
}

// origin is the upstream. It writes down what reaches it.
type origin struct {
	address string
	h       *history

	mu      sync.Mutex   // guards failing
	failing map[int]bool // for requests of these gateways
}

func startOrigin(t testing.TB, h *history) *origin {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o := &origin{address: listener.Addr().String(), h: h}
	server := &http.Server{Handler: o}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return o
}

func (o *origin) fail(gateways ...int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failing = map[int]bool{}
	for _, g := range gateways {
		o.failing[g] = true
	}
}

func (o *origin) fails(gateway int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing[gateway]
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(r.Header.Get("X-Gateway"))
	if err != nil {
		return // not a client of ours: the gateway is being waited for
	}
	p := passage{kind: kind(r.URL.Path[1:]), key: r.Header.Get("X-Key"), gateway: number, at: o.h.now(), status: http.StatusOK}
	defer func() { o.h.pass(p) }()
	if p.kind != circuit {
		p.done = p.at
		return
	}
	wait, _ := time.ParseDuration(r.Header.Get("X-Wait"))
	select {
	case <-r.Context().Done():
		p.done, p.status = o.h.now(), 0
		return
	case <-time.After(wait):
	}
	if o.fails(number) {
		p.status = http.StatusInternalServerError
	} else if r.Header.Get("X-Missing") != "" {
		p.status = http.StatusNotFound
	}
	p.done = o.h.now()
	w.WriteHeader(p.status)
}
