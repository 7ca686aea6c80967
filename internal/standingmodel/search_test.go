package standingmodel

import (
	"encoding/binary"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// TestSearch finds no window above a limit in 20,000 runs, or in as many as the variable STANDING_RUNS says, from the seed STANDING_FROM on.
func TestSearch(t *testing.T) {
	runs, from := variable(t, "STANDING_RUNS", 20000), variable(t, "STANDING_FROM", 0)
	found, sum := Search(uint64(from), runs, Omit{})
	t.Logf("%d runs, %d requests passed, %d by standing tokens, %d windows", runs, sum.Admissions, sum.Standing, sum.Windows)
	if found >= 0 {
		explain(t, uint64(found), Steps(uint64(found)), Omit{})
	}
	if sum.Standing < runs/2 {
		t.Errorf("only %d requests passed by standing tokens: the search checks too little", sum.Standing)
	}
}

func variable(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%s is not a number", name, text)
	}
	return n
}

// explain fails the test with the trace of a run, without the steps that the window above the limit does not need.
func explain(t *testing.T, seed uint64, steps []uint64, omit Omit) {
	t.Helper()
	steps = Shorten(seed, steps, omit)
	r := Run(seed, steps, omit, true)
	t.Errorf("seed %d: a window of the limit %s has %d tokens more than allowed:\n%s", seed, r.Which, r.Excess, strings.Join(r.Trace, "\n"))
}

// TestOmissions leaves out each rule, one by one: the search must find a window above a limit. A search from 0 finds most within 80,000 runs. Those
// that take long begin at a seed shortly before the one that finds them. After a change of the adversary, search from 0 for other seeds.
func TestOmissions(t *testing.T) {
	const runs = 10000
	from := map[string]uint64{
		"JoinsAfterLeases": 40176000, "DebtOfJoins": 77000, "Confirm": 47000, "CountedJoin": 22000, "JoinOnReload": 15000, "Generation": 7000,
	}
	rules := reflect.TypeOf(Omit{})
	for i := 0; i < rules.NumField(); i++ {
		name := rules.Field(i).Name
		if name == "JoinAfterEnd" || name == "NewName" || name == "TimeOfEmptyLeases" {
			continue // a test of that name has them
		}
		t.Run(name, func(t *testing.T) {
			omit := Omit{}
			reflect.ValueOf(&omit).Elem().Field(i).SetBool(true)
			found, sum := Search(from[name], runs, omit)
			if found < 0 {
				t.Fatalf("no window above a limit in %d runs: the rule does nothing, or the search is too weak", runs)
			}
			t.Logf("found by seed %d, after %d windows", found, sum.Windows)
		})
	}
}

// TestJoinAfterEnd has the events that only the longest searches find in this order: the counts are lost, a registration ends, and Redis's clock is
// set back, so that it has not ended.
func TestJoinAfterEnd(t *testing.T) {
	excess := func(omit Omit) int {
		w := newWorld(random(1), omit)
		l := limit{capacity: 8, token: 16, most: 2, lasts: 89}
		w.limits, w.longest, w.leaseTime = [2]limit{l, l}, l.lasts, 14
		w.populate(1, 1)
		g := w.gateways[0]
		register := func() {
			m := w.registration(g)
			w.process(m)
			w.apply(m)
		}
		register()
		w.redis.counted = false
		w.fail("redis evicts the counts", 0)
		w.now += 3 * l.lasts
		w.step -= 4 * l.lasts
		w.process(&message{gateway: g, limit: l, ask: ask{tokens: l.capacity}})
		register()
		w.use(g, 0, 0, w.clockOf(g), w.now)
		return w.judge().Excess
	}
	if excess(Omit{}) != 0 {
		t.Error("a window has more tokens than allowed")
	}
	if excess(Omit{JoinAfterEnd: true}) == 0 {
		t.Error("the rule does nothing")
	}
}

// TestNewName has a join that was on its way for long, and arrives after a replica that lags behind has forgotten a later one.
func TestNewName(t *testing.T) {
	excess := func(omit Omit) int {
		w := newWorld(random(1), omit)
		l := limit{capacity: 8, token: 16, most: 1, lasts: 89}
		w.limits, w.longest, w.leaseTime = [2]limit{l, l}, l.lasts, 14
		w.populate(2, 1)
		register := func(g *gateway) {
			m := w.registration(g)
			w.process(m)
			w.apply(m)
		}
		first, second := w.gateways[0], w.gateways[1]
		late := w.registration(first)
		register(first)
		w.redis = copyDatabase(&w.replica)
		w.fail("redis fails over to a replica that lags behind", 0)
		register(second)
		w.process(late)
		for i := 0; i < 20; i++ {
			w.now += 10
			register(first)
			register(second)
		}
		w.burst(first, 0)
		return w.judge().Excess
	}
	if excess(Omit{}) != 0 {
		t.Error("a window has more tokens than allowed")
	}
	if excess(Omit{NewName: true}) == 0 {
		t.Error("the rule does nothing")
	}
}

// TestTimeOfEmptyLeases has a bucket that is leased while there is no registry. Gateways that register meanwhile use their tokens when the lease
// is spent, shortly before it ends, and their registrations end before the bucket is full again.
func TestTimeOfEmptyLeases(t *testing.T) {
	excess := func(omit Omit) int {
		w := newWorld(random(1), omit)
		l := limit{capacity: 8, token: 16, most: 2, lasts: 89}
		w.limits, w.longest, w.leaseTime = [2]limit{l, l}, l.lasts, 100
		w.populate(3, 1)
		for _, g := range w.gateways {
			g.drift = 0
		}
		begun := w.now
		m := &message{gateway: w.gateways[0], limit: l, ask: ask{lease: 4}, sentAt: w.clockOf(w.gateways[0])}
		w.process(m)
		w.apply(m)
		for _, passed := range []int{1, 40, 75} {
			w.now = begun + passed
			w.renewOthers(w.gateways[0])
		}
		w.now = begun + 93
		w.useAll(0)
		w.spend(w.gateways[0], 0, 4)
		w.now = begun + 166
		w.process(&message{gateway: w.gateways[0], sequence: 1, name: -1, lasts: l.lasts}) // which registers nobody
		w.process(&message{gateway: w.gateways[0], limit: l, ask: ask{tokens: l.capacity}})
		r := w.judge()
		if r.Standing != 2 {
			t.Errorf("%d standing tokens were used", r.Standing)
		}
		return r.Excess
	}
	if excess(Omit{}) != 0 {
		t.Error("a window has more tokens than allowed")
	}
	if excess(Omit{TimeOfEmptyLeases: true}) == 0 {
		t.Error("the rule does nothing")
	}
}

// FuzzStanding looks for a window above a limit with all rules. Eight bytes are a step.
func FuzzStanding(f *testing.F) {
	for seed := uint64(0); seed < 50; seed++ {
		var bytes []byte
		for _, step := range Steps(seed) {
			bytes = binary.LittleEndian.AppendUint64(bytes, step)
		}
		f.Add(seed, bytes)
	}
	f.Fuzz(func(t *testing.T, seed uint64, bytes []byte) {
		var steps []uint64
		for ; len(bytes) >= 8 && len(steps) < 1000; bytes = bytes[8:] {
			steps = append(steps, binary.LittleEndian.Uint64(bytes))
		}
		if Run(seed, steps, Omit{}, false).Excess > 0 {
			explain(t, seed, steps, Omit{})
		}
	})
}
