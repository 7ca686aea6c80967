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
	// epoch is a plausible time of Redis's clock.
	epoch = 1790000000 * second
)

// The scripts, as the walks number them.
const (
	viewStep = iota
	permitStep
	reportStep
	uploadStep // a permit for a request whose body is still being received
	sentStep
)

// scripts are run by the steps, in the order of their numbers.
var scripts = []string{viewLua, permitLua, reportLua, permitLua, bodySentLua}

// event is one step of a walk through the states, and the answer that it must have.
type event struct {
	name string
	at   int64 // microseconds since the first
	do   int   // which script
	// of a report, or of an end of a body: the step whose permit it is about; -1: the step before
	of        int
	succeeded bool
	failed    int64
	late      bool

	state string
	probe int64
	wait  int64
}

// walker takes the same steps in Redis and in this process; both must answer alike.
type walker struct {
	server  *redistest.Server
	key     string
	calls   int
	machine machine
	expires int64 // when the key in Redis would expire
	born    int64 // the generation of the hash that was written because it was missing
}

// answer is what a script answers with.
type answer struct {
	state, generation, failures, successes, wait, probe, born int64
}

func answerOf(reply []int64) answer {
	return answer{reply[0], reply[1], reply[2], reply[3], reply[4], reply[5], reply[6]}
}

// step is one call.
type step struct {
	do                int
	at                int64 // on Redis's clock, and on this process's
	generation, probe int64
	succeeded         bool
	failed            int64
	late              bool
}

// args returns the script's arguments.
func (s step) args(policy *Policy, id string) []string {
	switch s.do {
	case permitStep:
		return withArgs(policy, id, "0")
	case uploadStep:
		return withArgs(policy, id, "1")
	case reportStep:
		return withArgs(policy, intArg(s.generation), intArg(s.probe), boolArg(s.succeeded), intArg(s.failed), id)
	case sentStep:
		return withArgs(policy, intArg(s.generation), intArg(s.probe), boolArg(s.late))
	}
	return policy.args
}

// isAbout reports whether a step is about a permit of an earlier step.
func isAbout(do int) bool { return do == reportStep || do == sentStep }

// inRedis returns the step as Redis takes it.
func (w *walker) inRedis(policy *Policy, s step) redistest.Step {
	w.calls++
	return redistest.Step{Script: s.do, At: s.at, Keys: []string{w.key}, Args: s.args(policy, "c"+strconv.Itoa(w.calls))}
}

func (w *walker) step(t testing.TB, policy *Policy, s step) answer {
	got := answerOf(w.server.Walk(scripts, []redistest.Step{w.inRedis(policy, s)})[0])
	require.Equal(t, got, w.local(policy, s), "in this process")
	return got
}

func (w *walker) local(policy *Policy, s step) answer {
	timeToLive, err := strconv.ParseInt(policy.args[5], 10, 64)
	if err != nil {
		panic(err)
	}
	if s.at >= w.expires {
		w.machine = machine{}
		w.machine.enter(stateClosed, s.at)
		w.born = w.machine.generation
		w.expires = s.at + timeToLive*1000
	} else if w.expires-s.at < timeToLive*1000/2 {
		w.expires = s.at + timeToLive*1000
	}
	before := w.machine.generation
	m := &w.machine
	permitted := int64(0)
	switch s.do {
	case permitStep, uploadStep:
		permitted = m.acquire(s.do == uploadStep, s.at, policy)
	case reportStep:
		m.report(s.generation, s.probe, s.succeeded, s.failed, s.at, policy)
	case sentStep:
		m.endUpload(s.generation, s.probe, s.late, s.at, policy)
	default:
		m.advance(s.at, policy)
	}
	if m.generation != before {
		w.expires = s.at + timeToLive*1000
	}
	born := int64(0)
	if m.generation == w.born {
		born = 1
	}
	return answer{m.state, m.generation, m.failures, m.successes, m.remaining(s.at), permitted, born}
}

// walk takes the events one after another.
func walk(t *testing.T, server *redistest.Server, policy *Policy, events []event) {
	w := &walker{server: server, key: t.Name()}
	var answers []answer
	for i, e := range events {
		generation, probe := int64(0), int64(0)
		if isAbout(e.do) {
			of := e.of
			if of < 0 {
				of = i - 1
			}
			generation, probe = answers[of].generation, answers[of].probe
		}
		got := w.step(t, policy, step{e.do, epoch + e.at, generation, probe, e.succeeded, e.failed, e.late})
		answers = append(answers, got)
		require.Equal(t, e.state, stateNames[got.state], "%d: %s", i, e.name)
		require.Equal(t, e.probe, got.probe, "%d: %s: probe", i, e.name)
		require.Equal(t, e.wait, got.wait, "%d: %s: wait", i, e.name)
	}
}
