package ratelimit

import (
	"strconv"
	"strings"
	"testing"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// penalizeStep counts refusals of the client p. Three within a second begin a penalty of a second, and the longest is ten seconds.
func penalizeStep(at int64, known, added string) redistest.Step {
	return redistest.Step{Script: 2, At: epoch + at, Keys: []string{"latest", "p"}, Args: []string{sinceEpoch(known), added + " 3 1000000 10000000"}}
}

// sinceEpoch returns a text with @n replaced by the number of the penalty that began n microseconds after the epoch.
func sinceEpoch(text string) string {
	if text[0] != '@' {
		return text
	}
	number, rest, _ := strings.Cut(text[1:], " ")
	n, _ := strconv.ParseInt(number, 10, 64)
	return strings.TrimSpace(digits(epoch+n) + " " + rest)
}

// penalisedStep is a request of that client, which takes a token of the value a.
func penalisedStep(at int64, ask string) redistest.Step {
	return drawStep(at, "a p", ask)
}

func TestPenalize_steps(t *testing.T) {
	server := redistest.Start(t)
	const m = 1000000
	lease := digits(epoch + leaseMicros)
	type row struct {
		name   string
		step   redistest.Step
		answer string
	}
	walks := []struct {
		name string
		rows []row
	}{
		{"enough refusals within the time", []row{
			{"two", penalizeStep(0, "0", "2"), "0 0"},
			{"a request passes", penalisedStep(0, "1p2 1/3/1/0/0"), "1,4000000:0"},
			{"the third", penalizeStep(m-1, "0", "1"), "@999999 1000000 1000000:p"},
			{"a request is refused, and takes nothing", penalisedStep(m, "1p2 1/3/1/0/0"), "!999999,5000000:0"},
			{"other clients pass", penalisedStep(m, "1 1/3/1/0/0"), "1,4000000:0"},
			{"the last microsecond", penalisedStep(2*m-2, "1p2 1/3/1/0/0"), "!1,4999998:0"},
			{"it ends", penalisedStep(2*m-1, "1p2 1/3/1/0/0"), "1,3999999:0"},
		}},
		{"not enough within the time", []row{
			{"two", penalizeStep(0, "0", "2"), "0 0"},
			{"two a second later", penalizeStep(m, "0", "2"), "0 0"},
			{"one more", penalizeStep(2*m-1, "0", "1"), "@1999999 1000000 1000000:p"},
		}},
		{"refusals during a penalty do not count", []row{
			{"a penalty", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"many during it", penalizeStep(m-1, "@0", "99"), "@0 1"},
			{"two after it", penalizeStep(m, "@0", "2"), "@0 0"},
		}},
		{"each penalty is twice as long as the one before", []row{
			{"one second", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"two", penalizeStep(1*m, "@0", "3"), "@1000000 2000000 2000000:p"},
			{"four", penalizeStep(3*m, "@1000000", "3"), "@3000000 4000000 4000000:p"},
			{"eight", penalizeStep(7*m, "@3000000", "3"), "@7000000 8000000 8000000:p"},
			{"at most ten", penalizeStep(15*m, "@7000000", "3"), "@15000000 10000000 10000000:p"},
			{"still, just within twice its length", penalizeStep(45*m-1, "@15000000", "3"), "@44999999 10000000 10000000:p"},
			{"one again, twice its length later", penalizeStep(75*m-1, "@44999999", "3"), "@74999999 1000000 1000000:p"},
		}},
		{"a penalised client gets no lease, and gives back what it holds", []row{
			{"a lease", penalisedStep(0, "1p2 1/4/1/0/0/8/0"), "1,1591000000:8:" + lease + ":500000"},
			{"a penalty", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"a renewal", penalisedStep(0, "0p2 1/4/0/0/0/8/0/"+lease+"/8"), "!1000000,1599000000:0"},
			{"debts and refunds count", penalisedStep(0, "1p2 1/4/1/5/1/8/0"), "!1000000,1595000000:0"},
		}},
		{"a clock set back ends no penalty late", []row{
			{"a penalty", penalizeStep(3600*m, "0", "3"), "@3600000000 1000000 1000000:p"},
			{"an hour earlier", penalizeStep(0, "0", "0"), "@3600000000 1000000 1000000:p"},
			{"a request", penalisedStep(0, "1p2 1/3/1/0/0"), "!1000000,5000000:0"},
		}},
		{"a caller learns of the penalties that it does not know of", []row{
			{"one", penalizeStep(0, "0", "3"), "@0 1000000 1000000:p"},
			{"known", penalizeStep(0, "@0", "0"), "@0 1000000"},
			{"the caller knows more: the key was lost", penalizeStep(0, "@1", "0"), "@0 1000000 1000000:p"},
			{"over", penalizeStep(m, "0", "0"), "@0 0"},
			{"another, after the list has expired", penalizeStep(2*m, "@0", "3"), "@2000000 2000000 2000000:p"},
		}},
		{"the longest penalty is shorter than the time", []row{
			{"it counts", redistest.Step{Script: 2, At: epoch, Keys: []string{"latest", "p"}, Args: []string{"0", "1 1 1000000 500000"}}, "@0 500000 500000:p"},
		}},
	}
	for _, walk := range walks {
		walk := walk
		t.Run(walk.name, func(t *testing.T) {
			server.Do("FLUSHALL")
			var steps []redistest.Step
			for _, r := range walk.rows {
				steps = append(steps, r.step)
			}
			for i, answer := range server.WalkTexts([]string{take, draw, penalize}, steps) {
				require.Equal(t, sinceEpoch(walk.rows[i].answer), answer, walk.rows[i].name)
			}
		})
	}
}

// The forms of the values are public: gateways of different versions share them, and operators read them.
func TestPenalize_values(t *testing.T) {
	server := redistest.Start(t)
	run := func(steps ...redistest.Step) { server.WalkTexts([]string{take, draw, penalize}, steps) }
	run(penalizeStep(0, "0", "2"))
	require.Equal(t, "0 0 2 "+digits(epoch), server.Text("GET", "p"))
	require.Equal(t, int64(0), server.Int("EXISTS", "latest"), "there was no penalty yet")
	run(penalizeStep(5, "0", "1"))
	require.Equal(t, digits(epoch+second+5)+" 1000000 0 "+digits(epoch), server.Text("GET", "p"))
	require.Equal(t, " "+digits(epoch+5)+":"+digits(epoch+second+5)+":1000000:p", server.Text("GET", "latest"))
	require.Equal(t, 3*second+1005-5, server.Int("GET", "due:p")-epoch-5, "while the next penalty is longer")
	var many redistest.Step
	for i := 0; i < 70; i++ {
		many = redistest.Step{Script: 2, At: epoch + 5, Keys: append(many.Keys, "p"+digits(int64(i))), Args: append(many.Args, "1 1 1000000 1000000")}
	}
	many.Keys, many.Args = append([]string{"latest"}, many.Keys...), append([]string{"0"}, many.Args...)
	run(many)
	require.Len(t, strings.Fields(server.Text("GET", "latest")), 64, "of 71")
	require.Contains(t, server.Text("GET", "latest"), " "+digits(epoch+5+70)+":"+digits(epoch+5+second)+":1000000:p69 ", "each has its number")
}

func TestPenalize_leavesOtherValuesAlone(t *testing.T) {
	server := redistest.Start(t)
	scripts := []string{take, draw, penalize}
	for _, value := range []string{"", "x", "1 2 3", "1 2 3 4 5", "1 2 3 -4", "1 2 3 99999999999999999"} {
		server.Do("FLUSHALL")
		server.Do("SET", "p", value)
		steps := []redistest.Step{penalizeStep(0, "0", "3"), penalisedStep(0, "1p2 1/3/1/0/0")}
		require.Equal(t, []string{"0 -1", "-1"}, server.WalkTexts(scripts, steps), value)
		require.Equal(t, value, server.Text("GET", "p"))
	}
	server.Do("FLUSHALL")
	server.Do("HSET", "p", "state", "open")
	server.Do("HSET", "latest", "state", "open")
	steps := []redistest.Step{penalizeStep(0, "0", "3"), penalisedStep(0, "1p2 1/3/1/0/0")}
	require.Equal(t, []string{"0 -1", "-1"}, server.WalkTexts(scripts, steps))
	server.Do("DEL", "p")
	require.Equal(t, []string{digits(epoch) + " 1000000 1000000:p"}, server.WalkTexts(scripts, steps[:1]), "without the latest, the client is penalised")
	require.Equal(t, "hash", server.Text("TYPE", "latest"))
}
