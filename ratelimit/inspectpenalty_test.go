package ratelimit

import (
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// inspectStep reads or deletes the bucket b, and the penalty p.
func inspectStep(at int64, do string) redistest.Step {
	return redistest.Step{Script: 3, At: epoch + at, Keys: []string{"b", "p", "latest"}, Args: []string{do}}
}

// othersStep asks for penalties, and counts no refusal.
func othersStep(at int64, known string) redistest.Step {
	return redistest.Step{Script: 2, At: epoch + at, Keys: []string{"latest"}, Args: []string{sinceEpoch(known)}}
}

func TestInspect_steps(t *testing.T) {
	server := redistest.Start(t)
	const m = 1000000
	type row struct {
		name   string
		step   redistest.Step
		answer string
	}
	for _, walk := range []struct {
		name string
		rows []row
	}{
		{"a penalty is shown, and ended", []row{
			{"none", inspectStep(0, "read"), "@0 0 0"},
			{"refusals are none", penalizeStep(0, "0", "2"), "0 0"},
			{"still none", inspectStep(0, "read"), "@0 0 0"},
			{"it begins", penalizeStep(0, "0", "1"), "@0 1000000 1000000:p"},
			{"its middle", inspectStep(m/2, "read"), "@500000 500000 0"},
			{"ended", inspectStep(m/2, "delete"), "@500000 500000 0"},
			{"again", inspectStep(m/2, "delete"), "@500000 0 0"},
			{"a request passes", penalisedStep(m/2, "1p2 1/3/1/0/0"), "1,4000000:0"},
			{"refusals begin from nothing", penalizeStep(m/2, "@500000", "2"), "@500000 0"},
		}},
		{"others learn of the end", []row{
			{"it begins", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"ended", inspectStep(m/2, "delete"), "@500000 500000 0"},
			{"one that knows of it", othersStep(m/2, "@0"), "@500000 0:p"},
			{"one that knows of none", othersStep(m/2, "0"), "@500000 0:p"},
			{"one that has learned of it", othersStep(m/2, "@500000"), "@500000"},
			{"long after", othersStep(30*m, "@0"), "@500000 0:p"},
		}},
		{"a penalty after the end is the later news", []row{
			{"it begins", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"ended", inspectStep(m/2, "delete"), "@500000 500000 0"},
			{"the next", penalizeStep(m/2, "@0", "3"), "@500001 1000000 1000000:p 0:p"},
		}},
		{"an ended penalty without the list", []row{
			{"it begins", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"the list is lost, and it is ended", redistest.Step{Script: 3, At: epoch, Keys: []string{"b", "p", "other"}, Args: []string{"delete"}}, "@0 1000000 0"},
			{"others", redistest.Step{Script: 2, At: epoch, Keys: []string{"other"}, Args: []string{"0"}}, "@0 0:p"},
		}},
		{"a client that can have none", []row{
			{"read", redistest.Step{Script: 3, At: epoch, Keys: []string{"b"}, Args: []string{"read"}}, "@0 0 0"},
			{"deleted", redistest.Step{Script: 3, At: epoch, Keys: []string{"b"}, Args: []string{"delete"}}, "@0 0 0"},
		}},
	} {
		walk := walk
		t.Run(walk.name, func(t *testing.T) {
			server.Do("FLUSHALL")
			var steps []redistest.Step
			for _, r := range walk.rows {
				steps = append(steps, r.step)
			}
			for i, answer := range server.WalkTexts([]string{take, draw, penalize, inspect}, steps) {
				require.Equal(t, sinceEpoch(walk.rows[i].answer), answer, walk.rows[i].name)
			}
		})
	}
}

// What this package did not write stays, and is no penalty.
func TestInspect_leavesOtherPenaltiesAlone(t *testing.T) {
	server := redistest.Start(t)
	for _, value := range []string{"x", "1 2 3 99999999999999999"} {
		server.Do("SET", "p", value)
		require.Equal(t, []string{digits(epoch) + " 0 0"}, server.WalkTexts([]string{take, draw, penalize, inspect}, []redistest.Step{inspectStep(0, "delete")}))
		require.Equal(t, value, server.Text("GET", "p"))
	}
	server.Do("DEL", "p")
	server.Do("HSET", "p", "state", "open")
	require.Equal(t, []string{digits(epoch) + " 0 0"}, server.WalkTexts([]string{take, draw, penalize, inspect}, []redistest.Step{inspectStep(0, "delete")}))
	require.Equal(t, "hash", server.Text("TYPE", "p"))
}

// The answer to a report has the latest news of a client first.
func TestPenalty_theLatestNewsCounts(t *testing.T) {
	rule := NewPenalty(2, time.Minute, time.Hour)
	for _, row := range []struct {
		name, answer string
		left         int64
	}{
		{"it has ended", "9 0:penalty:a", 0},
		{"it has ended, and begun again", "9 5000000:penalty:a 0:penalty:a", 5000000},
		{"it has begun again, and ended", "9 0:penalty:a 5000000:penalty:a", 0},
		{"another has ended", "9 0:penalty:b", 60000000},
	} {
		l := New(Settings{Now: func() int64 { return 1 }})
		c := &clientPenalty{key: "penalty:a", rule: rule, ends: 60000001}
		l.clients[c.key] = c
		applyReportLocked(l, &report{call: &store.Call{Answer: row.answer}}, 1)
		require.Equal(t, row.left, penalisedLocked(c, 1), row.name)
		Close(l)
	}
}
