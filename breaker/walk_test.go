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
	forceStep // the state is made by hand, or that ends
)

// scripts are run by the steps, in the order of their numbers.
var scripts = []string{viewLua, permitLua, reportLua, permitLua, bodySentLua, forceLua}

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
	// of a report in bulk, its outcomes: s success, f failure, S and F the same, but slow
	outcomes string
	gateway  string // that reports
	force    int64  // the state that is made by hand
	length   int64  // for how long

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
	state, generation, failures, successes, wait, probe, born, repeats, forced int64
}

func answerOf(reply []int64) answer {
	return answer{reply[0], reply[1], reply[2], reply[3], reply[4], reply[5], reply[6], reply[7], reply[8]}
}

// step is one call.
type step struct {
	do                int
	at                int64 // on Redis's clock, and on this process's
	generation, probe int64
	succeeded         bool
	failed            int64
	late              bool
	bulk              tally // of a report; without requests: there is none
	gateway           string
	force, length     int64 // the state that is made by hand, and for how long
}

// args returns the script's arguments.
func (s step) args(policy *Policy, id string) []string {
	switch s.do {
	case permitStep:
		return withArgs(policy, id, "0", s.gateway)
	case uploadStep:
		return withArgs(policy, id, "1", s.gateway)
	case reportStep:
		return withArgs(policy, intArg(s.generation), intArg(s.probe), boolArg(s.tally().succeeded), intArg(s.tally().run), id, s.tally().text(), s.gateway)
	case forceStep:
		name := forcedNames[s.force]
		if s.force == 0 {
			name = "auto"
		}
		return withArgs(policy, name, intArg(s.length), "because")
	case sentStep:
		return withArgs(policy, intArg(s.generation), intArg(s.probe), boolArg(s.late), s.gateway)
	}
	return policy.args
}

func (s step) tally() tally {
	t := tally{succeeded: s.succeeded, run: s.failed}
	if s.bulk.requests > 0 {
		t = s.bulk
	}
	t.gateway = s.gateway
	return t
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
		permitted = m.acquire(s.do == uploadStep, s.gateway, s.at, policy)
	case reportStep:
		m.report(s.generation, s.probe, s.tally(), s.at, policy)
	case forceStep:
		m.force(s.force, s.length, s.at, policy)
	case sentStep:
		m.endUpload(s.generation, s.probe, s.late, s.gateway, s.at, policy)
	default:
		m.advance(s.at, policy)
	}
	if m.generation != before {
		w.expires = s.at + timeToLive*1000
	}
	if s.do == forceStep && s.force != 0 {
		w.expires += s.length / 1000 * 1000
	}
	born := int64(0)
	if m.generation == w.born {
		born = 1
	}
	return answer{m.state, m.generation, m.pending(s.at, policy), m.successes, m.remaining(s.at), permitted, born, m.repeats, m.forced}
}

// bulk returns the outcomes that are reported in bulk.
func (e event) bulk() tally {
	var t tally
	for _, one := range e.outcomes {
		t.add(map[rune]Outcome{'s': Success, 'f': Failure, 'S': SlowSuccess, 'F': SlowFailure}[one], 1)
	}
	return t
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
		got := w.step(t, policy, step{e.do, epoch + e.at, generation, probe, e.succeeded, e.failed, e.late, e.bulk(), e.gateway, e.force, e.length})
		answers = append(answers, got)
		require.Equal(t, e.state, stateNames[got.state], "%d: %s", i, e.name)
		require.Equal(t, e.probe, got.probe, "%d: %s: probe", i, e.name)
		require.Equal(t, e.wait, got.wait, "%d: %s: wait", i, e.name)
	}
}
