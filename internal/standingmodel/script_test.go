package standingmodel

import (
	"fmt"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/internal/bucketmodel"
)

// scale is the microseconds of a tick: the scripts round the time of a key to milliseconds.
const scale = 1000

// TestScripts compares what Redis does here with the model of the scripts, which the limiter's tests compare with the scripts: the search is about the
// same rules. It leaves out requests under two limits, reloads and failures, which the scripts do in greater detail.
func TestScripts(t *testing.T) {
	calls := 0
	for seed := uint64(0); seed < 5000; seed++ {
		w := newWorld(random(seed), Omit{})
		w.single = true
		w.limits[1] = w.limits[0]
		for _, action := range []int{11, 12, 13} {
			w.total -= w.weights[action]
			w.weights[action] = 0
		}
		s := &scripts{t: t, seed: seed, world: w, model: bucketmodel.New(), leases: map[int]string{}}
		w.observe = s.compare
		for _, step := range Steps(seed) {
			w.random = random(step)
			w.act()
		}
		calls += s.calls
	}
	t.Logf("%d calls", calls)
}

// scripts is the model of the scripts next to a world.
type scripts struct {
	t      *testing.T
	seed   uint64
	world  *world
	model  *bucketmodel.Model
	leases map[int]string // numbers of the leases, by deadline and bucket in the world
	calls  int
}

// compare requires that the model answers a message as the world did.
func (s *scripts) compare(m *message) {
	s.calls++
	now := int64(s.world.clock()) * scale
	if m.sequence > 0 {
		join := "0"
		if m.join {
			join = "1"
		}
		got := s.model.Register(now, []string{"gateways", "count"}, []string{fmt.Sprint(m.name), fmt.Sprint(m.lasts * scale), join,
			fmt.Sprint(s.world.longest * scale), "1000000", fmt.Sprint(m.replaced)})
		found := 0
		if m.found {
			found = 1
		}
		if want := fmt.Sprint(m.size, " ", found); got != want {
			s.t.Fatalf("seed %d, a registration: the scripts answer %s, the model %s", s.seed, got, want)
		}
		return
	}
	l, a := m.limit, m.ask
	asked := a.tokens
	if a.report {
		asked++
	}
	length := s.world.leaseTime * scale
	limitText := fmt.Sprint(l.capacity, " 1 ", l.token*scale, " ", l.most)
	terms := fmt.Sprint(length, " ", length, " 0 1 ", maxLeases, " 1 9")
	ask := fmt.Sprint(asked, " ", a.lease, " 0")
	if a.ended != 0 {
		ask += " " + s.leases[a.ended*8+m.bucket] + " " + fmt.Sprint(a.unused)
	}
	got := s.model.Run(now, []string{"bucket" + fmt.Sprint(m.bucket), "count"}, []string{limitText, terms, ask})
	taken := m.answer.taken
	if m.answer.holds {
		taken++
	}
	level := s.world.settled.level * scale
	want := []int64{int64(taken), int64(level), int64(m.answer.leased)}
	if m.answer.leased > 0 {
		s.leases[m.answer.deadline*8+m.bucket] = fmt.Sprint(got[3])
	}
	if fmt.Sprint(got[:3]) != fmt.Sprint(want) {
		s.t.Fatalf("seed %d, call %d, %s, %s: the scripts answer %v, the model %v\n%s", s.seed, s.calls, limitText, ask, got, want,
			strings.Join(s.world.trace, "\n"))
	}
}
