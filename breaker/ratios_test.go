package breaker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestRatios(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(0, 30*time.Second, 1, 1, 10*time.Second).
		With(Rules{FailureRatio: 50, SlowRatio: 75, Window: 10 * time.Second, MinimumRequests: 4})
	const start = -(epoch % second) // the slots are seconds
	passes := event{name: "let through", do: permitStep, state: "closed"}
	counted := func(name string, at int64, outcomes, state string) event {
		e := event{name: name, at: at, do: reportStep, outcomes: outcomes, state: state}
		if state == "open" {
			e.wait = 30 * second
		}
		return e
	}
	for _, row := range []struct {
		name   string
		policy *Policy
		events []event
	}{
		{"failures, whatever their order", policy, []event{passes,
			counted("a third", 0, "fssfss", "closed"),
			counted("half", second, "fff", "open"),
		}},
		{"below the minimum", policy, []event{passes,
			counted("three of three", 0, "fff", "closed"),
			counted("four of four", second, "f", "open"),
		}},
		{"a success is what opens it, if it makes the minimum", policy, []event{passes,
			counted("three of three", 0, "fff", "closed"),
			counted("three of four", second, "s", "open"),
		}},
		{"exactly the ratio", policy, []event{passes, counted("two of four", 0, "sfsf", "open")}},
		{"a little less", policy, []event{passes, counted("two of five", 0, "sfsfs", "closed")}},
		{"slow successes", policy, []event{passes,
			counted("two of three", 0, "SSs", "closed"),
			counted("three of four", second, "S", "open"),
		}},
		{"slow failures are both", policy, []event{passes, counted("one of four", 0, "Fsss", "closed"), counted("two of four", second, "FFFFFF", "open")}},
		{"the window moves in tenths", policy, []event{passes,
			counted("two of four", 0, "fss", "closed"),
			counted("they count until then", 9*second, "f", "open"),
		}},
		{"and what has left it counts no more", policy, []event{passes,
			counted("three", 0, "fff", "closed"),
			counted("late", 10*second, "fsss", "closed"),
			counted("two of six", 19*second, "sf", "closed"),
		}},
		{"closing it empties the window", policy, []event{passes,
			counted("it opens", 0, "ffff", "open"),
			{name: "a probe", at: 30 * second, do: permitStep, state: "half-open", probe: 1},
			{name: "a success", at: 30 * second, do: reportStep, of: 2, succeeded: true, state: "closed"},
			{name: "a failure", at: 30 * second, do: reportStep, of: 3, outcomes: "fff", state: "closed"},
		}},
		{"failures in a row open it, too", NewPolicy(3, 30*time.Second, 1, 1, 10*time.Second).
			With(Rules{FailureRatio: 100, Window: 10 * time.Second, MinimumRequests: 100}), []event{passes,
			counted("two, then a success", 0, "ffs", "closed"),
			counted("two, before a success", 0, "ffs", "closed"),
			counted("two at the end", 0, "sff", "closed"),
			counted("and the third, before a success", 0, "fs", "open"),
		}},
		{"also within one report", NewPolicy(3, 30*time.Second, 1, 1, 10*time.Second).
			With(Rules{FailureRatio: 100, Window: 10 * time.Second, MinimumRequests: 100}), []event{passes,
			counted("three between successes", 0, "sfffs", "open"),
		}},
	} {
		row := row
		t.Run(row.name, func(t *testing.T) {
			var events []event
			for _, e := range row.events {
				e.at += start
				events = append(events, e)
			}
			walk(t, server, row.policy, events)
		})
	}
}

func counting(ratio, minimum int64) *Policy {
	return NewPolicy(0, time.Hour, 1, 1, time.Minute).With(Rules{FailureRatio: ratio, Window: time.Minute, MinimumRequests: minimum})
}

// pass counts successes as the fast path does.
func (g *gateway) pass(n int64, policy *Policy) {
	at := g.clock()
	g.Mu.Lock()
	defer g.Mu.Unlock()
	for ; n > 0; n-- {
		if at < g.View.PassesSince {
			g.CountPassLocked(at, policy)
		} else {
			g.View.Passes++
		}
	}
}

// What gateways have counted is reported in the background, although no other request comes, and all of it decides.
func TestRatios_areTheFleets(t *testing.T) {
	server := redistest.Start(t)
	policy := counting(30, 20)
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	first, second := one.admit(t, policy), two.admit(t, policy)
	one.pass(14, policy)
	two.report(second, Failure, policy)
	two.report(second, Failure, policy)
	require.Eventually(t, func() bool { return sumInRedis(server) == slot{requests: 16, failed: 2} }, patience, time.Millisecond)
	one.report(first, Failure, policy)
	two.report(second, Failure, policy)
	require.Eventually(t, func() bool { return sumInRedis(server) == slot{requests: 18, failed: 4} }, patience, time.Millisecond)
	require.Equal(t, "closed", field(server, "state"))
	two.report(second, Failure, policy)
	two.report(second, Failure, policy)
	awaitField(t, server, "state", "open")
	require.Eventually(t, func() bool { return two.refusedFor() > 0 }, patience, time.Millisecond, "the report's reply says so")
	one.advance(time.Second)
	_, retryAfter := one.request(t, policy)
	require.NotZero(t, retryAfter)
}

// sumInRedis returns what the window in Redis holds.
func sumInRedis(server *redistest.Server) slot {
	var sum slot
	for _, text := range strings.Fields(field(server, "window")) {
		var start, requests, failed, slow int64
		fmt.Sscanf(text, "%d:%d:%d:%d", &start, &requests, &failed, &slow)
		sum.requests += requests
		sum.failed += failed
		sum.slow += slow
	}
	return sum
}

// However many requests there are, a gateway makes at most 20 calls a second: reports and refreshes of the view are the same calls.
func TestRatios_aGatewayMakesFewCalls(t *testing.T) {
	server := redistest.Start(t)
	policy := counting(100, 1000000)
	g := newGateway(t, server)
	begun := time.Now()
	permit := g.admit(t, policy)
	sent := int64(0)
	for time.Since(begun) < 500*time.Millisecond {
		for i := 0; i < 10; i++ {
			g.report(permit, Failure, policy)
			g.pass(1, policy)
			sent += 2
		}
		g.advance(time.Millisecond)
		g.ExtendView(g.clock(), policy)
		<-time.After(time.Millisecond)
	}
	require.Eventually(t, func() bool { return sumInRedis(server).requests == sent }, patience, time.Millisecond, "none is lost")
	most := int64(time.Since(begun)/(50*time.Millisecond)) + 3
	require.LessOrEqual(t, g.callCount(), most)
}

// What was counted under another generation does not count.
func TestRatios_forgetWhatWasBefore(t *testing.T) {
	server := redistest.Start(t)
	policy := counting(50, 2)
	gateways := newGateways(t, server, 2)
	one, two := gateways[0], gateways[1]
	late := one.admit(t, policy)
	permit := two.admit(t, policy)
	two.report(permit, Failure, policy)
	two.report(permit, Failure, policy)
	awaitField(t, server, "state", "open")
	endResetTimeout(server, one, two)
	two.report(two.probe(t, policy), Success, policy)
	require.Equal(t, "closed", field(server, "state"))
	one.advance(time.Second)
	one.admit(t, policy)
	for i := 0; i < 10; i++ {
		one.report(late, Failure, policy)
	}
	one.pass(1, policy)
	require.Eventually(t, func() bool { return sumInRedis(server) == slot{requests: 1} }, patience, time.Millisecond)
	require.Equal(t, "closed", field(server, "state"))
}

// A slow probe does not close the circuit.
func TestRatios_aSlowProbeFails(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Second).With(Rules{SlowRatio: 50, Window: time.Minute, MinimumRequests: 100})
	g := newGateway(t, server)
	g.report(g.admit(t, policy), Failure, policy)
	awaitField(t, server, "state", "open")
	require.Eventually(t, func() bool { return g.refusedFor() > 0 }, patience, time.Millisecond)
	endResetTimeout(server, g)
	g.report(g.probe(t, policy), SlowSuccess, policy)
	require.Equal(t, "open", field(server, "state"))
}

// In a ramp a slow answer does not open the circuit, and a failure does.
func TestRatios_aSlowAnswerInARamp(t *testing.T) {
	policy := NewPolicy(1, time.Minute, 1, 1, time.Second).With(Rules{SlowRatio: 50, Window: time.Minute, MinimumRequests: 100, Ramp: time.Hour})
	now := 1000 * second
	b := New(Settings{Now: func() int64 { return now }})
	permit, _ := b.AllowLocal(policy, false, now)
	b.reportLocal(permit, Failure, policy)
	now += 60 * second
	permit, _ = b.AllowLocal(policy, false, now)
	b.Done(permit, Success, policy, 0)
	require.True(t, b.InRamp())
	permit, _ = b.AllowLocal(policy, false, now)
	b.Done(permit, SlowSuccess, policy, 0)
	require.True(t, b.InRamp())
	b.Done(permit, SlowFailure, policy, 0)
	require.True(t, b.Probing())
}

// Without Redis the window is this process's.
func TestRatios_withoutRedis(t *testing.T) {
	policy := counting(50, 4)
	b := New(Settings{Now: func() int64 { return 1000 * second }})
	permit, _ := b.AllowLocal(policy, false, b.Now())
	b.Mu.Lock()
	b.CountPassLocked(b.Now(), policy)
	b.CountPassLocked(b.Now(), policy)
	b.Mu.Unlock()
	b.Done(permit, Failure, policy, 0)
	require.False(t, b.Probing())
	b.Done(permit, Failure, policy, 0)
	require.Eventually(t, b.Probing, patience, time.Millisecond)
}

// Redis goes away: what was counted since counts here.
func TestRatios_whileRedisIsUnavailable(t *testing.T) {
	server := redistest.Start(t)
	policy := counting(50, 4)
	g := newGateway(t, server)
	permit := g.admit(t, policy)
	server.Kill()
	g.noteUnavailable(t, policy)
	for i := 0; i < 4; i++ {
		g.report(permit, Failure, policy)
	}
	require.Eventually(t, func() bool { return g.refusedFor() > 0 }, patience, time.Millisecond)
}
