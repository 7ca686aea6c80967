package soak

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
	"github.com/resilient-gateway/resilience/harness/gateway"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var attackLength = flag.Duration("attack", 2*time.Minute, "how long malformed and slow clients attack")

const (
	attackReset    = 2 * time.Second             // resetTimeout
	attackProbes   = 2                           // at once, by default
	attackCloses   = attackReset + 2*time.Second // after the service's recovery: two probes at the honest clients' rate
	attackSettles  = 300 * time.Millisecond      // requests under way when the circuit opens
	honestClients  = 4
	honestInterval = 125 * time.Millisecond // 8 a second
	honestLimit    = 10                     // a second, as shipped
	greedyInterval = honestInterval / 3     // of one honest client that asks for more
)

// Two gateways with the shipped dynamic files, one with metrics and access log and one with neither, have one circuit. Malformed
// and slow clients attack both all the time, also as probes. The service fails twice. The circuit must be open then, and at no
// other time, and honest clients must not notice the attackers.
func TestAttack(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	server, service := redistest.Start(t), startAttacked(t)
	fleet := []*attackedGateway{
		startAttackedGateway(t, root, server, service, func(map[string]any) {}),
		startAttackedGateway(t, root, server, service, func(static map[string]any) {
			delete(static, "metrics")
			delete(static, "accessLog")
		}),
	}
	circuit := watchCircuit(t, server)
	begun := time.Now()
	end := begun.Add(*attackLength)
	var clients sync.WaitGroup
	honest, greedy, attacks := &honestAnswers{}, &honestAnswers{}, &attacks{end: end, counts: map[string]map[string]int{}}
	for i := range honestClients {
		clients.Go(func() { honest.ask(loopback(i), fleet, honestInterval, end) })
	}
	clients.Go(func() { greedy.ask(loopback(honestClients), fleet, greedyInterval, end) })
	next := honestClients + 1
	for _, g := range fleet {
		next = attacks.run(g.web, next, &clients)
	}
	outages := service.failTwice(begun, *attackLength)
	clients.Wait()
	changes := circuit.until(end)

	calm, limited, calmSeconds := honest.outside(outages), greedy.outside(outages), attackLength.Seconds()
	for _, o := range outages {
		calmSeconds -= o.to.Add(attackCloses).Sub(o.from).Seconds()
	}
	t.Logf("attacks, with the answers\n%s", attacks)
	t.Logf("the service was reached %v, and cut %d answers", service.reached, service.cut)
	t.Logf("honest clients' answers: %v while the service was well, %v in all", calm, honest.all())
	t.Logf("a greedy client's answers: %v in %.0f s while the service was well, %v in all", limited, calmSeconds, greedy.all())
	t.Logf("the circuit: %s", since(begun, changes))
	for _, g := range fleet {
		t.Logf("a gateway took Redis to be away %d times", strings.Count(g.log.String(), `"redis unavailable"`))
		assert.NotContains(t, g.log.String(), "anic")
	}
	for _, one := range attackers {
		assert.Greater(t, sum(attacks.counts[one.title()]), 4, one.title())
	}
	for _, o := range outages {
		o.judge(t, begun, changes, service)
	}
	assert.Empty(t, strays(begun, outages, changes), "states of the circuit while the service was well")
	assert.Equal(t, map[string]int{"200": calm["200"]}, calm, "honest clients' answers while the service was well")
	for status := range limited { // without 429 if a busy machine let the client send too little
		assert.Contains(t, []string{"200", "429"}, status, "a greedy client's answers while the service was well")
	}
	assert.GreaterOrEqual(t, float64(limited["200"]), 0.9*honestLimit*calmSeconds, "a greedy client's share")
	assert.Positive(t, service.cut, "answers that the service cut")
}

// attackedGateway is a Traefik with the shipped files.
type attackedGateway struct {
	web string
	log *gateway.Log
}

func startAttackedGateway(t *testing.T, root string, server *redistest.Server, service *attacked, change func(static map[string]any)) *attackedGateway {
	t.Helper()
	address := func() string {
		free, err := gateway.FreeAddress()
		require.NoError(t, err)
		return free
	}
	g := &attackedGateway{web: address(), log: &gateway.Log{}}
	starter := &gateway.Traefik{
		Root: root, Dir: t.TempDir(), Web: g.web, API: address(), Log: g.log, Change: change,
		Env: []string{
			"REDIS_HOST=127.0.0.1", "REDIS_PORT=" + server.Port(), "UPSTREAM_URL=http://" + service.address,
			fmt.Sprint("CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS=", attackReset.Seconds()),
		},
	}
	process, err := starter.Start()
	require.NoError(t, err, g.log)
	t.Cleanup(process.Stop)
	require.NoError(t, starter.Serves("/proxy/ok", "gateway@file"), g.log)
	return g
}

// honestAnswers are the answers that honest clients had. It is safe for concurrent use.
type honestAnswers struct {
	mu   sync.Mutex // guards seen
	seen []honestAnswer
}

type honestAnswer struct {
	sent, came time.Time
	status     string // or the error
}

// ask sends a request each interval from its own address to the gateways in turn, one in four with a body, until the end.
func (h *honestAnswers) ask(from net.IP, fleet []*attackedGateway, interval time.Duration, end time.Time) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).DialContext,
	}}
	defer client.CloseIdleConnections()
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for i := 0; time.Now().Before(end); i++ {
		<-ticks.C
		method, path, body := http.MethodGet, "/proxy/ok", io.Reader(nil)
		if i%4 == 3 {
			method, path, body = http.MethodPost, "/proxy/upload", strings.NewReader("an honest body")
		}
		request, err := http.NewRequest(method, "http://"+fleet[i/2%len(fleet)].web+path, body)
		if err != nil {
			panic(err)
		}
		request.Header.Set("X-Honest", "yes")
		answer := honestAnswer{sent: time.Now()}
		if response, err := client.Do(request); err != nil {
			answer.status = err.Error()
		} else {
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			answer.status = fmt.Sprint(response.StatusCode)
			if response.StatusCode == http.StatusInternalServerError {
				answer.status = fmt.Sprintf("500 %s to %s", strings.TrimSpace(string(body)), method)
			}
		}
		answer.came = time.Now()
		h.mu.Lock()
		h.seen = append(h.seen, answer)
		h.mu.Unlock()
	}
}

// outside returns the answers to requests that were never under way while the circuit might be open, by status.
func (h *honestAnswers) outside(outages []*outage) map[string]int {
	counts := map[string]int{}
	for _, a := range h.seen {
		touched := false
		for _, o := range outages {
			touched = touched || a.came.After(o.from) && a.sent.Before(o.to.Add(attackCloses))
		}
		if !touched {
			counts[a.status]++
		}
	}
	return counts
}

func (h *honestAnswers) all() map[string]int { return h.outside(nil) }

// change is a state that the circuit was seen in, first at a time.
type change struct {
	at    time.Time
	state string
}

// circuitWatch looks at the circuit's hash in Redis all the time.
type circuitWatch struct {
	stop    chan struct{}
	done    sync.WaitGroup
	changes []change
	err     error
}

func watchCircuit(t *testing.T, server *redistest.Server) *circuitWatch {
	c, err := redis.Dial("tcp", server.Addr())
	require.NoError(t, err)
	w := &circuitWatch{stop: make(chan struct{}), changes: []change{{time.Now(), "closed"}}}
	w.done.Go(func() {
		defer c.Close()
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			state, err := redis.String(c.Do("HGET", "resilience:{gateway}:breaker", "state"))
			if err != nil && err != redis.ErrNil {
				w.err = err
				return
			}
			if err == nil && state != w.changes[len(w.changes)-1].state {
				w.changes = append(w.changes, change{time.Now(), state})
			}
		}
	})
	return w
}

// until stops watching, and returns what was seen until a time.
func (w *circuitWatch) until(end time.Time) []change {
	close(w.stop)
	w.done.Wait()
	for i, c := range w.changes {
		if c.at.After(end) {
			return w.changes[:i]
		}
	}
	return w.changes
}

// since tells the changes by the seconds since the beginning.
func since(begun time.Time, changes []change) string {
	var texts []string
	for _, c := range changes[1:] {
		texts = append(texts, fmt.Sprintf("%s at %.2f s", c.state, c.at.Sub(begun).Seconds()))
	}
	return strings.Join(texts, ", ")
}

// outage is a time in which the service failed.
type outage struct{ from, to time.Time }

// failTwice has the service fail for a while in the first half of the time, and in the second, and returns after its length.
func (s *attacked) failTwice(begun time.Time, length time.Duration) (outages []*outage) {
	for _, at := range []time.Duration{length / 4, length * 5 / 8} {
		time.Sleep(time.Until(begun.Add(at)))
		o := &outage{from: s.fail(true)}
		time.Sleep(min(10*time.Second, length/6))
		o.to = s.fail(false)
		outages = append(outages, o)
	}
	time.Sleep(time.Until(begun.Add(length)))
	return outages
}

// judge requires that the circuit opened soon, let no more honest requests through than probes, and closed after the recovery.
func (o *outage) judge(t *testing.T, begun time.Time, changes []change, service *attacked) {
	t.Helper()
	var opened, closed time.Time
	for _, c := range changes {
		if c.state == "open" && opened.IsZero() && c.at.After(o.from) {
			opened = c.at
		}
		if c.state == "closed" && closed.IsZero() && c.at.After(o.to) {
			closed = c.at
		}
	}
	reached := service.honestBetween(opened.Add(attackSettles), o.to)
	due := attackProbes * int(1+o.to.Sub(opened)/attackReset)
	t.Logf("the service failed from %.2f s to %.2f s: open after %s, closed %s after the recovery, %d honest requests reached it meanwhile, at most %d due",
		o.from.Sub(begun).Seconds(), o.to.Sub(begun).Seconds(), opened.Sub(o.from).Round(time.Millisecond),
		closed.Sub(o.to).Round(time.Millisecond), reached, due)
	assert.False(t, opened.IsZero() || opened.Sub(o.from) > 2*time.Second, "the circuit did not open when the service failed")
	assert.LessOrEqual(t, reached, due, "honest requests that reached the failing service")
	assert.False(t, closed.IsZero() || closed.Sub(o.to) > attackCloses, "the circuit did not close after the service's recovery")
}

// strays are the changes of the circuit to another state than closed while the service was well.
func strays(begun time.Time, outages []*outage, changes []change) (strays []string) {
	for _, c := range changes {
		due := c.state == "closed"
		for _, o := range outages {
			end := o.to.Add(attackCloses)
			if c.state == "open" {
				end = o.to.Add(attackSettles) // a failure from before the recovery
			}
			due = due || c.at.After(o.from) && c.at.Before(end)
		}
		if !due {
			strays = append(strays, fmt.Sprintf("%s at %.2f s", c.state, c.at.Sub(begun).Seconds()))
		}
	}
	return strays
}

func sum(counts map[string]int) (n int) {
	for _, count := range counts {
		n += count
	}
	return n
}
