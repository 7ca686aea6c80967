package truth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const s, ms = time.Second, time.Millisecond

// many are n arrivals of one key, one after the other.
func many(n int, from, every time.Duration) []arrival {
	var all []arrival
	for i := range n {
		at := from + time.Duration(i)*every
		all = append(all, arrival{kind: scarce, key: "a", at: at, done: at, status: 200})
	}
	return all
}

// through is a request through the circuit.
func through(at, took time.Duration, status int) arrival {
	return arrival{kind: circuit, at: at, done: at + took, status: status}
}

// refused is an answer of an open circuit.
func refused(at time.Duration) answer {
	return answer{kind: circuit, sent: at, status: 503, open: true}
}

func join(parts ...[]arrival) []arrival {
	var all []arrival
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func TestJudge(t *testing.T) {
	rows := []struct {
		name  string
		h     history
		wrong int
	}{
		{"a full bucket and its refill", history{arrivals: join(many(30, s, 0), many(15, s, 500*ms))}, 0},
		{"a second bucket", history{arrivals: join(many(30, s, 0), many(30, 2*s, 0))}, 1},
		{"a second bucket after a loss", history{arrivals: join(many(30, s, 0), many(30, 2*s, 0)), losses: []time.Duration{1500 * ms}}, 0},
		{"a third one after one loss", history{arrivals: join(many(30, s, 0), many(30, 2*s, 0), many(30, 3*s, 0)), losses: []time.Duration{1500 * ms}}, 1},
		{"twice the rate under a cloud", history{arrivals: join(many(30, s, 0), many(25, 1100*ms, 250*ms)), clouds: []span{{from: s, to: 8 * s}}}, 0},
		{"a fresh bucket under a cloud", history{arrivals: join(many(30, s, 0), many(30, 1500*ms, 0)), clouds: []span{{from: s + ms, to: 5 * s}}}, 1},
		{"what Redis had left, after a cloud under which it heard of nothing", history{
			arrivals: join(many(20, s, 0), many(10, 3*s, 0), many(16, 7*s, 0), many(18, 9*s, 0)),
			clouds:   []span{{from: 2 * s, to: 6 * s}, {from: 8 * s, to: 10 * s}}}, 0},
		{"a fresh bucket of a gateway that was born under it", history{arrivals: join(many(30, s, 0), many(30, 1500*ms, 0)),
			clouds: []span{{from: s + ms, to: 5 * s, reborn: true}}}, 0},

		{"refused after a failure", history{arrivals: []arrival{through(5*s, 10*ms, 500), through(5*s+100*ms, 10*ms, 500), through(6100*ms, 10*ms, 200)}}, 0},
		{"not refused", history{arrivals: []arrival{through(5*s, 10*ms, 500), through(5500*ms, 10*ms, 200)}}, 1},
		{"not refused, under a cloud", history{arrivals: []arrival{through(5*s, 10*ms, 500), through(5500*ms, 10*ms, 200)}, clouds: []span{{from: 4 * s, to: 6 * s}}}, 0},
		{"a failure that was late", history{arrivals: []arrival{through(3*s, 10*ms, 500), through(5*s, 100*ms, 500), through(5*s, 50*ms, 200), through(5500*ms, 10*ms, 200)}}, 0},
		{"two probes", history{arrivals: []arrival{through(5*s, 10*ms, 500), through(7*s, 100*ms, 200), through(7*s, 100*ms, 200)}}, 0},
		{"three probes", history{arrivals: []arrival{through(5*s, 10*ms, 500), through(7*s, 100*ms, 200), through(7*s, 100*ms, 200), through(7*s, 100*ms, 200)}}, 1},
		{"a third when it is closed", history{arrivals: []arrival{through(5*s, 10*ms, 500), through(7*s, 100*ms, 200), through(7*s, 100*ms, 200),
			through(7100*ms, 100*ms, 200), through(7100*ms, 100*ms, 200), through(7100*ms, 100*ms, 200)}}, 0},

		{"a refusal with a failure behind it", history{arrivals: []arrival{through(5*s, 10*ms, 500)}, answers: []answer{refused(6 * s)}}, 0},
		{"a refusal without", history{arrivals: []arrival{through(5*s, 10*ms, 404)}, answers: []answer{refused(6 * s)}}, 1},
		{"a refusal long after", history{arrivals: []arrival{through(5*s, 10*ms, 500)}, answers: []answer{refused(10 * s)}}, 1},

		{"an error of ours", history{answers: []answer{{kind: scarce, sent: s, status: 503}}}, 1},
		{"a slow answer of many", history{answers: []answer{{kind: scarce, sent: s, took: s, status: 200}}}, 1},
		{"a slow answer of a slow machine", history{answers: []answer{{kind: scarce, sent: s, took: s, status: 200}, {kind: plain, sent: s, took: s, status: 200}}}, 0},
		{"no answer", history{answers: []answer{{kind: scarce, sent: s}}}, 1},
		{"no answer of a dead gateway", history{answers: []answer{{kind: scarce, sent: s}}, clouds: []span{{from: 0, to: 2 * s, reborn: true}}}, 0},
	}
	for i := range rows {
		t.Run(rows[i].name, func(t *testing.T) {
			wrong := rows[i].h.judge()
			require.Len(t, wrong, rows[i].wrong, "%v", wrong)
		})
	}
}
