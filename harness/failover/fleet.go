package failover

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const (
	timeout  = 300 * time.Millisecond // redis.timeout
	capacity = 60                     // of the bucket that its clients empty
	rate     = 5                      // a second
)

const clientHeader = "X-Client"

type block = map[string]any

// names are the middlewares': of a limit that its clients reach, of one that they do not reach and a closed circuit, of a circuit that is open, and of
// a limit for each of many clients, who come at the same time; and of one with standing leases for as many, whose calls have several keys.
type names struct{ scarce, plenty, open, many, wide string }

// origin is the service: /fail fails, all else succeeds.
func startOrigin(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/fail") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String()
}

// member is one gateway.
type member struct {
	web string
	log *eventLog
}

// startMember starts a gateway whose middlewares have their state at the Redis that the connection describes.
func startMember(t testing.TB, root, origin string, connection block, n names) *member {
	t.Helper()
	m := &member{web: freeAddress(t), log: &eventLog{}}
	starter := &gateway.Traefik{
		Root: root, Dir: t.TempDir(), Web: m.web, API: freeAddress(t), Dynamic: writeDynamic(t, origin, connection, n), Log: m.log,
		Change: func(static map[string]any) { delete(static, "accessLog") },
	}
	process, err := starter.Start()
	require.NoError(t, err, m.log)
	t.Cleanup(process.Stop)
	require.Eventually(t, func() bool {
		response, err := http.Get("http://" + m.web + "/" + n.plenty)
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	}, 20*time.Second, 20*time.Millisecond, m.log)
	return m
}

func freeAddress(t testing.TB) string {
	address, err := gateway.FreeAddress()
	require.NoError(t, err)
	return address
}

// writeDynamic writes a gateway's dynamic configuration: a route for each middleware, by its name, and /plain without any.
func writeDynamic(t testing.TB, origin string, connection block, n names) string {
	t.Helper()
	plugin := func(parts block) block {
		parts["redis"] = connection
		return block{"plugin": block{"resilience": parts}}
	}
	middlewares := block{
		n.scarce: plugin(block{"rateLimit": block{"capacity": capacity, "refillRate": rate}}),
		n.plenty: plugin(block{"rateLimit": block{"capacity": 1000000, "refillRate": 1000000}, "circuitBreaker": block{"failureThreshold": 5}}),
		n.many: plugin(block{"rateLimit": block{
			"capacity": 90, "refillRate": 2, "sourceCriterion": block{"requestHeaderName": clientHeader}, // without leases
		}}),
		n.wide: plugin(block{"rateLimit": block{
			"capacity": 200, "refillRate": 20, "sourceCriterion": block{"requestHeaderName": clientHeader},
		}}),
		n.open: plugin(block{"circuitBreaker": block{"failureThreshold": 1, "resetTimeout": "1h"}}),
	}
	routers := block{"plain": block{"rule": "PathPrefix(`/plain`)", "entryPoints": []string{"web"}, "service": "origin"}}
	for name := range middlewares {
		routers[name] = block{"rule": "PathPrefix(`/" + name + "`)", "entryPoints": []string{"web"}, "middlewares": []string{name}, "service": "origin"}
	}
	content, err := yaml.Marshal(block{"http": block{
		"routers": routers, "middlewares": middlewares,
		"services": block{"origin": block{"loadBalancer": block{"servers": []block{{"url": origin}}}}},
	}})
	require.NoError(t, err)
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "dynamic.yml"), content, 0o644))
	return folder
}

// event is a line of a gateway's log about Redis or a circuit.
type event struct {
	at                  time.Time
	middleware, message string
}

// eventLog is a gateway's log. It is safe for concurrent use.
type eventLog struct {
	mu     sync.Mutex // guards what follows
	rest   []byte
	events []event
	panics int
	text   bytes.Buffer
}

func (l *eventLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	l.rest = append(l.rest, p...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		l.note(l.rest[:end])
		l.rest = l.rest[end+1:]
	}
}

// note notes a line. mu is held.
func (l *eventLog) note(line []byte) {
	if bytes.Contains(line, []byte("panic:")) {
		l.panics++
	}
	var fields struct{ Message, Middleware, Level string }
	if json.Unmarshal(line, &fields) != nil || fields.Middleware == "" || fields.Level == "info" || fields.Level == "debug" {
		return
	}
	if !strings.HasPrefix(fields.Message, "refused") {
		l.events = append(l.events, event{time.Now(), fields.Middleware, fields.Message})
	}
}

// since returns the events since a time.
func (l *eventLog) since(begun time.Time) []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []event
	for _, e := range l.events {
		if !e.at.Before(begun) {
			found = append(found, e)
		}
	}
	return found
}

// available reports whether no store of the gateway is marked unavailable.
func (l *eventLog) available() bool {
	open := map[string]int{}
	for _, e := range l.since(time.Time{}) {
		switch e.message {
		case "redis unavailable":
			open[e.middleware]++
		case "redis is back":
			open[e.middleware]--
		}
	}
	for _, n := range open {
		if n > 0 {
			return false
		}
	}
	return true
}

func (l *eventLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// unavailableAt reports whether the gateway had no Redis at a time, or within a second of it.
func (l *eventLog) unavailableAt(at time.Time) bool {
	open := map[string]time.Time{}
	for _, e := range l.since(time.Time{}) {
		if e.message == "redis unavailable" {
			open[e.middleware] = e.at
		}
		begun, isOpen := open[e.middleware]
		if e.message == "redis is back" && isOpen {
			delete(open, e.middleware)
			if at.After(begun.Add(-time.Second)) && at.Before(e.at.Add(time.Second)) {
				return true
			}
		}
	}
	for _, begun := range open {
		if at.After(begun.Add(-time.Second)) {
			return true
		}
	}
	return false
}
