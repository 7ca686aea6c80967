package breaker

import (
	"strconv"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

const (
	second = int64(time.Second / time.Microsecond)
	// epoch is a time as Redis's clock has it.
	epoch = 1790000000 * second
)

// The scripts, as the walks number them.
const (
	viewStep = iota
	permitStep
	reportStep
)

var scripts = []string{view, permit, report}

// event is one step of a walk through the states, and what the answer must be.
type event struct {
	name string
	at   int64 // microseconds since the first
	do   int   // which script
	// of a report: the step whose permit it is about, -1 for the last generation heard of before
	of        int
	succeeded bool
	failed    int64

	state string
	probe int64
	wait  int64
}

// walker takes the same steps in Redis and in this process, and requires that both answer alike.
type walker struct {
	server  *redistest.Server
	key     string
	machine machine
	due     int64 // when the key in Redis would expire
}

// answer is what a script answers with.
type answer struct {
	state, generation, failures, successes, wait, probe int64
}

func (w *walker) step(t testing.TB, policy *Policy, do int, at int64, generation, probe int64, succeeded bool, failed int64) answer {
	args := append([]string{}, policy.args...)
	if do == reportStep {
		args = append(args, digits(generation), digits(probe), flag(succeeded), digits(failed))
	}
	steps := []redistest.Step{{Script: do, At: epoch + at, Keys: []string{w.key}, Args: args}}
	reply := w.server.Walk(scripts, steps)[0]
	got := answer{reply[0], reply[1], reply[2], reply[3], reply[4], reply[5]}
	require.Equal(t, got, w.local(policy, do, epoch+at, generation, probe, succeeded, failed), "in this process")
	return got
}

func (w *walker) local(policy *Policy, do int, now int64, generation, probe int64, succeeded bool, failed int64) answer {
	keep, err := strconv.ParseInt(policy.args[5], 10, 64)
	if err != nil {
		panic(err)
	}
	if now >= w.due {
		w.machine = machine{}
		w.machine.enter(closed, now)
		w.due = now + keep*1000
	} else if w.due-now < keep*1000/2 {
		w.due = now + keep*1000
	}
	before := w.machine.generation
	m := &w.machine
	permitted := int64(0)
	if do == permitStep {
		permitted = m.permit(now, policy)
	} else if do == reportStep {
		m.report(generation, probe, succeeded, failed, now, policy)
	} else {
		m.settle(now, policy)
	}
	if m.generation != before {
		w.due = now + keep*1000
	}
	return answer{m.state, m.generation, m.failures, m.successes, m.wait(now), permitted}
}

// walk takes the events one by one.
func walk(t *testing.T, server *redistest.Server, policy *Policy, events []event) {
	w := &walker{server: server, key: t.Name()}
	var heard []answer
	for i, e := range events {
		generation, probe := int64(0), int64(0)
		if e.do == reportStep {
			of := e.of
			if of < 0 {
				of = i - 1
			}
			generation, probe = heard[of].generation, heard[of].probe
		}
		got := w.step(t, policy, e.do, e.at, generation, probe, e.succeeded, e.failed)
		heard = append(heard, got)
		require.Equal(t, e.state, stateNames[got.state], "%d: %s", i, e.name)
		require.Equal(t, e.probe, got.probe, "%d: %s: probe", i, e.name)
		require.Equal(t, e.wait, got.wait, "%d: %s: wait", i, e.name)
	}
}
