package breaker

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

func TestFleet_seesAnOpenedCircuit(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(3, time.Hour, 2, 2, time.Minute)
	gateways := newGateways(t, server, 3)
	opener, idle, busy := gateways[0], gateways[1], gateways[2]
	busy.admit(t, policy)
	opener.openCircuit(t, policy)

	busy.advance(101 * time.Millisecond)
	for _, row := range []struct {
		when string
		g    *gateway
	}{
		{"at once at the gateway that opened it", opener},
		{"at the first request of an idle gateway", idle},
		{"within 100 ms at a busy gateway", busy},
	} {
		_, retryAfter := row.g.request(t, policy)
		require.InDelta(t, time.Hour.Seconds(), retryAfter.Seconds(), 5, row.when)
	}

	calls := idle.callCount()
	for i := 0; i < 100; i++ {
		idle.request(t, policy)
	}
	require.Equal(t, calls, idle.callCount(), "requests to an open circuit do not ask Redis")
	require.Equal(t, []string{"closed to open"}, opener.changesSeen())
	require.Equal(t, []string{"closed to open"}, idle.changesSeen())
}

func TestFleet_addsUpFailures(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(4, time.Hour, 2, 2, time.Minute)
	gateways := newGateways(t, server, 2)
	for i := 0; i < 4; i++ {
		require.NotEqual(t, "open", field(server, "state"))
		gateways[i%2].fail(t, policy, 1)
	}
	require.Equal(t, "open", field(server, "state"))
}

func TestFleet_sharesTheLimitOfProbes(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 3, 2, time.Minute)
	gateways := newGateways(t, server, 3)
	gateways[0].openCircuit(t, policy)
	endResetTimeout(server, gateways...)

	first, second := gateways[0].probe(t, policy), gateways[1].probe(t, policy)
	third := gateways[2]
	_, retryAfter := third.request(t, policy)
	require.Equal(t, time.Second, retryAfter, "there are two places")
	calls := third.callCount()
	_, retryAfter = third.request(t, policy)
	require.Equal(t, time.Second, retryAfter)
	require.Equal(t, calls, third.callCount(), "a gateway remembers that there was no place")

	gateways[0].report(first, Success, policy)
	gateways[1].report(second, Success, policy)
	third.advance(51 * time.Millisecond)
	third.report(third.probe(t, policy), Success, policy)
	require.Equal(t, "closed", field(server, "state"))
	require.Equal(t, []string{"closed to open", "open to half-open"}, gateways[0].changesSeen())
	require.Equal(t, []string{"closed to half-open", "half-open to closed"}, third.changesSeen())
}

func TestFleet_idleGatewayMaySendAProbe(t *testing.T) {
	server := redistest.Start(t)
	policy := NewPolicy(1, time.Minute, 1, 1, time.Minute)
	gateways := newGateways(t, server, 2)
	gateways[0].openCircuit(t, policy)
	endResetTimeout(server)
	gateways[1].probe(t, policy)
}
