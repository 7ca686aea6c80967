package standing

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestJudge_findsWhatIsWrong gives it histories of one client with a limit of 101 and 20 a second.
func TestJudge_findsWhatIsWrong(t *testing.T) {
	const ms = time.Millisecond
	burst := func(n int, at time.Duration) (arrivals []arrival) {
		for range n {
			arrivals = append(arrivals, arrival{limit: "c101", key: "client", sent: at, arrived: at + ms, cost: 1})
		}
		return arrivals
	}
	for _, row := range []struct {
		name     string
		arrivals []arrival
		status   int
		wrong    string // "": nothing is
		standing int
	}{
		{"a full bucket", burst(101, time.Second), 429, "", 0},
		{"a token more", burst(102, time.Second), 429, "client client: a window has 101.98", 0},
		{"a token more, which was refilled", append(burst(101, time.Second), burst(1, time.Second+51*ms)...), 429, "", 0},
		{"a token more, which was not refilled yet", append(burst(101, time.Second), burst(1, time.Second+20*ms)...), 429, "client client: a window has 101.58", 0},
		{"an expensive request", append(burst(90, time.Second), arrival{"c101", "client", time.Second, time.Second + ms, 20}), 429, "client client: a window has 109.98", 0},
		{"requests while Redis is stopped", burst(4, 5100*ms), 200, "", 4},
		{"of a client that had asked before", append(burst(1, time.Second), burst(4, 5100*ms)...), 200, "", 0},
		{"which arrive when it answers again", burst(4, 5200*ms), 200, "", 0},
		{"an answer that is not expected", nil, 503, "1 answers with status 503", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := &history{arrivals: row.arrivals, pauses: []span{{5 * time.Second, 5200 * ms}}, statuses: map[int]int{row.status: 1}}
			r := h.judge(Options{}, 1)
			if row.wrong == "" {
				require.Empty(t, r.Wrong)
			} else {
				require.Contains(t, strings.Join(r.Wrong, "; "), row.wrong)
			}
			require.Equal(t, row.standing, r.Judged["c101"].Standing)
		})
	}
}
