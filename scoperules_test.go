package resilience

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/identity"
	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// scopeEvent is something that happens to a fleet in which each host has a circuit, and what must follow.
type scopeEvent struct {
	name     string
	after    time.Duration // that passes before
	by       int           // the gateway
	host     string        // "bad" or "good"; "": the request has no scope
	fails    bool          // the service, for this gateway
	times    int           // the number of requests; 0: one
	operator string        // instead of a request, an operator makes the state for ten hours: open or closed; auto ends that
	want     []int         // the answers that may come; the last of them must come at last
	state    string        // of the host's circuit in Redis afterwards; "": any
}

func (e *scopeEvent) happens(t *testing.T, server *redistest.Server, all []*Middleware, ups []*upstream) {
	m, up := all[e.by], ups[e.by]
	if e.after > 0 {
		elapse(t, at(server.Addr()), e.after)
	}
	if e.operator != "" {
		for _, one := range all {
			one := one
			waitFor(t, func() bool { return !anyReportPending(one) })
		}
		e.operate(t, m)
	} else {
		up.will(status(map[bool]int{false: 200, true: 500}[e.fails]))
		e.ask(t, m)
	}
	if e.state != "" {
		waitFor(t, func() bool { return server.Hash(breakerOf(t) + e.keyPart())["state"] == e.state }, e.name)
	}
}

func (e *scopeEvent) keyPart() string {
	if e.host == "" {
		return ""
	}
	return ":host:" + identity.Hash(e.host+".example")
}

func (e *scopeEvent) ask(t *testing.T, m *Middleware) {
	for i := 0; i == 0 || i < e.times; i++ {
		got := 0
		waitFor(t, func() bool {
			got = getHost(m, e.host)
			require.Contains(t, e.want, got, e.name)
			return got == e.want[len(e.want)-1]
		}, e.name)
	}
}

// getHost sends a request to a host, or to none.
func getHost(m *Middleware, host string) int {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = ""
	if host != "" {
		r.Host = host + ".example"
	}
	w := httptest.NewRecorder()
	m.handler.ServeHTTP(w, r)
	return w.Code
}

func (e *scopeEvent) operate(t *testing.T, m *Middleware) {
	key := ""
	if e.host != "" {
		key = "host:" + e.host + ".example"
	}
	m.mu.Lock()
	circuit := m.circuits.findLocked(key, m.now()).breaker
	m.mu.Unlock()
	deadline := time.Now().Add(5 * time.Second)
	var err error
	switch e.operator {
	case "open":
		err = circuit.ForceOpen(10*time.Hour, "", m.policy, deadline)
	case "closed":
		err = circuit.ForceClosed(10*time.Hour, "", m.policy, deadline)
	default:
		err = circuit.EndForce(m.policy, deadline)
	}
	require.NoError(t, err, e.name)
}

// Each host has a circuit of the fleet's and, with minGateways, one of each gateway's. What rules and operators do to one host's changes no
// other's.
func TestScope_withOtherRules(t *testing.T) {
	const reset = time.Hour
	soon := 200 * time.Millisecond // what a change of state takes to be known to all gateways
	gateways := func(c *CircuitBreakerConfig) { c.MinGateways = "2" }
	ratio := func(c *CircuitBreakerConfig) {
		c.FailureThreshold = "0"
		c.FailureRatio = "50"
		c.Window = "10m"
		c.MinimumRequests = "10"
	}
	ratioOfGateways := func(c *CircuitBreakerConfig) {
		ratio(c)
		c.MinGateways = "2"
	}
	nothing := func(c *CircuitBreakerConfig) {}
	ok, failed, refused := []int{200}, []int{500}, []int{503}
	for _, row := range []struct {
		name   string
		change func(c *CircuitBreakerConfig)
		events []scopeEvent
	}{
		{"minGateways: a gateway cuts itself off from one host", gateways, []scopeEvent{
			{name: "fails", by: 0, host: "bad", fails: true, times: 2, want: failed, state: "closed"},
			{name: "it refuses", by: 0, host: "bad", fails: true, want: refused, state: "closed"},
			{name: "not another host", by: 0, host: "good", want: ok},
			{name: "others do not", by: 1, host: "bad", times: 5, want: ok},
			{name: "nor a request without a host", by: 0, want: ok},
			{name: "its own circuit of the host sends probes", after: reset, by: 0, host: "bad", times: 2, want: ok},
			{name: "and closes", by: 0, host: "bad", times: 5, want: ok},
		}},
		{"minGateways: two open the circuit of one host for all", gateways, []scopeEvent{
			{name: "one fails", by: 0, host: "bad", fails: true, times: 2, want: failed, state: "closed"},
			{name: "another host fails for another gateway", by: 1, host: "good", fails: true, want: failed, state: "closed"},
			{name: "the second", by: 1, host: "bad", fails: true, want: failed, state: "open"},
			{name: "which a third knows", by: 2, host: "bad", want: refused, state: "open"},
			{name: "the other host is open for nobody", by: 2, host: "good", want: ok, state: "closed"},
			{name: "nor for the gateway that saw a failure", by: 1, host: "good", want: ok, state: "closed"},
			{name: "a probe fails", after: reset, by: 1, host: "bad", fails: true, want: failed, state: "half-open"},
			{name: "that of another succeeds", by: 2, host: "bad", want: ok, times: 2, state: "closed"},
		}},
		{"a ratio is that of a host", ratio, []scopeEvent{
			{name: "successes of another host", by: 0, host: "good", times: 50, want: ok, state: "closed"},
			{name: "five failures", by: 0, host: "bad", fails: true, times: 5, want: failed, state: "closed"},
			{name: "five more of another gateway", by: 1, host: "bad", fails: true, times: 5, want: failed, state: "open"},
			{name: "refused", after: soon, by: 0, host: "bad", want: refused},
			{name: "the other host is not", by: 0, host: "good", want: ok, state: "closed"},
		}},
		{"a ratio and minGateways: one alone cuts itself off from one host", ratioOfGateways, []scopeEvent{
			{name: "successes of another host", by: 0, host: "good", times: 50, want: ok, state: "closed"},
			{name: "ten failures", by: 0, host: "bad", fails: true, times: 10, want: failed, state: "closed"},
			{name: "refused", by: 0, host: "bad", fails: true, want: []int{500, 503}, state: "closed"},
			{name: "the other host is not", by: 0, host: "good", want: ok},
			{name: "others are not", by: 1, host: "bad", times: 5, want: ok, state: "closed"},
			{name: "until another fails", by: 1, host: "bad", fails: true, times: 1, want: failed, state: "open"},
			{name: "the fleet's, then", after: soon, by: 2, host: "bad", want: refused},
		}},
		{"opened by hand", nothing, []scopeEvent{
			{name: "used", by: 1, host: "bad", want: ok},
			{name: "by hand", by: 0, host: "bad", operator: "open", state: "open"},
			{name: "all know it", after: soon, by: 1, host: "bad", want: refused},
			{name: "no other host", by: 0, host: "good", want: ok},
			{name: "no request without a host", by: 0, want: ok},
			{name: "no probe after the resetTimeout", after: 2 * reset, by: 1, host: "bad", want: refused, state: "open"},
			{name: "ended by hand, on another gateway", by: 2, host: "bad", operator: "auto", state: "open"},
			{name: "probes", after: soon, by: 1, host: "bad", times: 2, want: []int{503, 200}, state: "closed"},
		}},
		{"closed by hand, with minGateways", gateways, []scopeEvent{
			{name: "its own circuit opens", by: 0, host: "bad", fails: true, times: 2, want: failed},
			{name: "it refuses", by: 0, host: "bad", fails: true, want: refused},
			{name: "closed by hand, on another gateway", by: 1, host: "bad", operator: "closed", state: "closed"},
			{name: "its own circuit refuses no more", after: soon, by: 0, host: "bad", fails: true, times: 5, want: []int{503, 500}, state: "closed"},
			{name: "nor does the fleet's", by: 1, host: "bad", fails: true, times: 5, want: failed, state: "closed"},
			{name: "another host is not closed by hand", by: 0, host: "good", fails: true, times: 2, want: failed},
			{name: "for this gateway", by: 0, host: "good", fails: true, want: refused, state: "closed"},
			{name: "ended", by: 1, host: "bad", operator: "auto", state: "closed"},
			{name: "one fails", after: soon, by: 2, host: "bad", fails: true, times: 2, want: failed, state: "closed"},
			{name: "then the second", by: 1, host: "bad", fails: true, times: 1, want: failed, state: "open"},
		}},
		{"the middleware's own circuit, by hand", nothing, []scopeEvent{
			{name: "used", by: 0, host: "good", want: ok},
			{name: "by hand", by: 0, operator: "open", state: "open"},
			{name: "requests without a scope are refused", after: soon, by: 1, want: refused},
			{name: "a host has another circuit", by: 1, host: "good", want: ok},
			{name: "closed by hand", by: 0, operator: "closed", state: "closed"},
			{name: "all know it", after: soon, by: 1, want: []int{503, 200}},
			{name: "a host opens all the same", by: 1, host: "bad", fails: true, times: 2, want: failed, state: "open"},
		}},
		{"closed by hand, with a ratio", ratio, []scopeEvent{
			{name: "by hand", by: 0, host: "bad", operator: "closed", state: "closed"},
			{name: "failures do not count", after: soon, by: 1, host: "bad", fails: true, times: 30, want: failed, state: "closed"},
			{name: "ended", by: 0, host: "bad", operator: "auto", state: "closed"},
			{name: "those from before do not count either", after: soon, by: 1, host: "bad", fails: true, times: 5, want: failed, state: "closed"},
			{name: "enough others do", by: 1, host: "bad", fails: true, times: 5, want: failed, state: "open"},
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server := redistest.Start(t)
			all, ups := fleetOf(t, server, 3, func(c *CircuitBreakerConfig) {
				c.Scope = "host"
				row.change(c)
			})
			for i := range row.events {
				e := &row.events[i]
				e.happens(t, server, all, ups)
			}
		})
	}
}
