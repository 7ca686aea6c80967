package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/stretchr/testify/require"
)

// standingLimit keeps back at most two of 200 tokens. It refills one in a second.
var standingLimit = WithStanding(NewLimit(200, 1, time.Second))

// registerStep registers a name for ten seconds: "join", "renew", or a name that the join replaces.
func registerStep(at int64, gateway, how string) redistest.Step {
	join, replaced := "1", how
	if how == "join" {
		replaced = ""
	} else if how == "renew" {
		join, replaced = "0", ""
	}
	return redistest.Step{Script: 2, At: epoch + at, Keys: []string{"gateways", "gateways:count"},
		Args: []string{gateway, digits(10 * second), join, digits(20 * second), "1000000", replaced}}
}

// askForRoom asks how many gateways are registered, without one.
func askForRoom(at int64, own string) redistest.Step {
	s := registerStep(at, "?", "renew")
	s.Args[5] = own
	return s
}

// standingStep takes tokens of the key a.
func standingStep(at int64, ask string) redistest.Step {
	return redistest.Step{Script: 0, At: epoch + at, Keys: []string{"a", "gateways:count"}, Args: []string{standingLimit.text, allWords, ask}}
}

// standingDraw takes tokens of the key a by the script for several limits.
func standingDraw(at int64, limits, ask string) redistest.Step {
	return redistest.Step{Script: 1, At: epoch + at, Keys: []string{"a", "gateways:count"}, Args: []string{allWords, limits, ask}}
}

func TestStanding_steps(t *testing.T) {
	server := redistest.Start(t)
	both := "default:200:1:1000000:2 daily:500:1:1000000"
	type row struct {
		name   string
		step   redistest.Step
		answer string
	}
	walks := []struct {
		name string
		rows []row
	}{
		{"each gateway has a token of every bucket, up to a hundredth", []row{
			{"without gateways nothing is kept back", standingStep(0, "0 0"), "0:200000000:0"},
			{"one joins", registerStep(0, "g1", "join"), "1 1"},
			{"", standingStep(0, "0 0"), "0:199000000:0"},
			{"another one", registerStep(0, "g2", "join"), "2 1"},
			{"", standingStep(0, "0 0"), "0:198000000:0"},
			{"a third", registerStep(0, "g3", "join"), "3 1"},
			{"", standingStep(0, "0 0"), "0:198000000:0"},
			{"the script for several limits keeps back as much", standingDraw(0, both, "0 1/1+2/1/0/0"), "0,198000000+500000000:0"},
		}},
		{"a join takes a token from a bucket that is in use", []row{
			{"one joins", registerStep(0, "g1", "join"), "1 1"},
			{"", standingStep(0, "198 0"), "198:1000000:0"},
			{"another one", registerStep(0, "g2", "join"), "2 1"},
			{"", standingStep(0, "1 0"), "0:0:0"},
			{"and again", registerStep(0, "g1", "join"), "2 1"},
			{"the level is below 0", standingStep(0, "1 0"), "0:-1000000:0"},
			{"by the other script too", standingDraw(0, both, "1 1/1+2/1/0/0"), "0,-1000000+500000000:0"},
			{"time pays", standingStep(2*second, "1 0"), "1:0:0"},
		}},
		{"a level is never less than what is kept back", []row{
			{"one joins", registerStep(0, "g1", "join"), "1 1"},
			{"", standingStep(0, "199 0"), "199:0:0"},
			{"four times more", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g1", "join"), "1 1"},
			{"", standingStep(0, "1 0"), "0:-2000000:0"},
		}},
		{"a bucket gains nothing when a gateway leaves", []row{
			{"two join", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g2", "join"), "2 1"},
			{"", standingStep(0, "198 0"), "198:0:0"},
			{"one renews", registerStep(9*second, "g1", "renew"), "2 1"},
			{"the other one's registration ends", registerStep(10*second, "g1", "renew"), "1 1"},
			{"the level is what was refilled", standingStep(10*second, "0 0"), "0:10000000:0"},
			{"it fills up to one token more", standingStep(300*second, "0 0"), "0:199000000:0"},
		}},
		{"a renewal registers nobody", []row{
			{"one joins", registerStep(0, "g1", "join"), "1 1"},
			{"it renews in time", registerStep(10*second-1, "g1", "renew"), "1 1"},
			{"its registration ends", registerStep(20*second-1, "g1", "renew"), "0 0"},
			{"it joins again", registerStep(20*second, "g1-2", "g1"), "1 1"},
		}},
		{"a join replaces the gateway's last one", []row{
			{"one joins", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g1-2", "g1"), "1 1"},
			{"which cannot be renewed", registerStep(0, "g1", "renew"), "1 0"},
			{"both count as joins", standingStep(0, "199 0"), "199:0:0"},
		}},
		{"a gateway that asks for room does not count itself", []row{
			{"two join", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g2", "join"), "2 1"},
			{"", askForRoom(0, ""), "2 0"},
			{"", askForRoom(0, "g1"), "1 0"},
			{"both are kept back", standingStep(0, "0 0"), "0:198000000:0"},
			{"when its registration has ended, there is none to leave out", askForRoom(10*second, "g1"), "0 0"},
		}},
		{"Redis's clock is set back", []row{
			{"one joins", registerStep(1000*second, "g1", "join"), "1 1"},
			{"it does not stay longer than the longest", registerStep(0, "g2", "join"), "2 1"},
			{"", registerStep(10*second-1, "g2", "renew"), "2 1"},
			{"", registerStep(20*second-2, "g2", "renew"), "2 1"},
			{"", registerStep(20*second, "g2", "renew"), "1 1"},
		}},
		{"a request never costs what is kept back: together with the standing tokens, more than the capacity would pass", []row{
			{"two join", registerStep(0, "g1", "join"), "1 1"},
			{"", registerStep(0, "g2", "join"), "2 1"},
			{"one more than is left", standingDraw(0, both, "1 1/1/199/0/0"), "0,198000000:0"},
			{"however long it waits", standingDraw(5*second, both, "1 1/1/199/0/0"), "0,198000000:0"},
			{"as much as is left", standingDraw(5*second, both, "1 1/1/198/0/0"), "1,0:0"},
		}},
		{"leases leave what is kept back", []row{
			{"one joins", registerStep(0, "g1", "join"), "1 1"},
			{"", standingStep(0, "0 1000 0"), "0:175000000:24:" + digits(epoch+leaseMicros) + ":500000"},
		}},
	}
	for _, walk := range walks {
		server.Do("FLUSHALL")
		var steps []redistest.Step
		for _, row := range walk.rows {
			steps = append(steps, row.step)
		}
		for i, answer := range server.WalkTexts([]string{take, draw, register}, steps) {
			require.Equal(t, walk.rows[i].answer, answer, "%s, step %d: %s", walk.name, i, walk.rows[i].name)
		}
	}
}

// A value holds the joins that it knows of, so that a later call takes the others from its level.
func TestStanding_values(t *testing.T) {
	server := redistest.Start(t)
	time0 := digits(epoch)
	joins := digits(epoch + 1)
	for _, row := range []struct{ name, before, after string }{
		{"a new value", "", "198000000 " + time0 + " 1000000+" + joins},
		{"it is up to date", "5000000 " + time0 + " 1000000+" + joins, "4000000 " + time0 + " 1000000+" + joins},
		{"a join since", "5000000 " + time0 + " 1000000+" + time0, "3000000 " + time0 + " 1000000+" + joins},
		{"from before the registry: any gateway may have a token", "5000000 " + time0 + " 1000000", "1000000 " + time0 + " 1000000+" + joins},
		{"from another registry", "5000000 " + time0 + " 1000000+7", "1000000 " + time0 + " 1000000+" + joins},
		{"with a lease", "5000000 " + time0 + " 1000000+" + joins + " " + digits(epoch+second) + ":7",
			"4000000 " + time0 + " 1000000+" + joins + " " + digits(epoch+second) + ":7"},
	} {
		for _, step := range []redistest.Step{standingStep(0, "1 0"), standingDraw(0, "default:200:1:1000000:2", "1 1/1/1/0/0")} {
			server.Do("FLUSHALL")
			server.WalkTexts([]string{take, draw, register}, []redistest.Step{registerStep(0, "g1", "join")})
			if row.before != "" {
				server.Do("SET", "a", row.before)
			}
			server.WalkTexts([]string{take, draw, register}, []redistest.Step{step})
			require.Equal(t, row.after, server.Text("GET", "a"), "%s, by script %d", row.name, step.Script)
		}
	}
}

// While a change of the setting spreads, gateways with and without standing leases take turns. That costs a bucket the joins since its value was
// written, and not all joins again with each turn.
func TestStanding_callsWithoutStandingLeasesKeepTheJoins(t *testing.T) {
	server := redistest.Start(t)
	without := NewLimit(200, 1, time.Second)
	with := []redistest.Step{standingStep(0, "1 0"), standingDraw(0, "default:200:1:1000000:2", "1 1/1/1/0/0")}
	turns := []redistest.Step{step("a", without, 1, 0), standingDraw(0, "default:200:1:1000000", "1 1/1/1/0/0"), standingDraw(0,
		"daily:500:1:1000000", "1 1/1/1/0/0")}
	for _, row := range []struct {
		name, before string
		taken        int64 // by five calls, three of them with standing leases
		lost         int64 // to 50 joins
	}{
		{"a value that knows the joins", "150000000 " + digits(epoch) + " 1000000+" + digits(epoch+50), 5, 0},
		{"a join since", "150000000 " + digits(epoch) + " 1000000+" + digits(epoch+49), 5, 1},
		{"a value from before the registry", "150000000 " + digits(epoch) + " 1000000", 5, 52},
	} {
		for i, w := range with {
			for j, turn := range turns {
				server.Do("FLUSHALL")
				server.Do("SET", "a", row.before)
				var steps []redistest.Step
				for joins := 0; joins < 50; joins++ {
					steps = append(steps, registerStep(0, "g1", "join"))
				}
				server.WalkTexts([]string{take, draw, register}, append(steps, w, turn, w, turn, w))
				taken := row.taken
				if j == 2 {
					taken -= 2 // daily pays
				}
				value := server.Text("GET", "a")
				require.Equal(t, 150-row.lost-taken, number(value[:strings.Index(value, " ")])/second, "%s, script %d, turn %d", row.name, i, j)
				require.Contains(t, value, " 1000000+"+digits(epoch+50), "%s, script %d, turn %d", row.name, i, j)
			}
		}
	}
}

// A key lives twice as long as its level and the deepest debt need. Without a registry, it lives until its bucket is full, if that is before any
// registration could end.
func TestStanding_keepsAKey(t *testing.T) {
	server := redistest.Start(t)
	joined := []redistest.Step{registerStep(0, "g1", "join")}
	for _, row := range []struct {
		name   string
		before []redistest.Step
		takes  int64
		lives  int64 // seconds
	}{
		{"a token, and one is kept back", joined, 1, 2 * (1 + 1 + 2)},
		{"three tokens", joined, 3, 2 * (3 + 1 + 2)},
		{"without a registry", nil, 1, 1},
		{"until a registration could end", nil, 4, 4},
		{"for longer", nil, 5, 2 * (5 + 2)},
	} {
		ask := digits(row.takes)
		for _, step := range []redistest.Step{standingStep(0, ask+" 0"), standingDraw(0, "default:200:1:1000000:2", "1 1/1/"+ask+"/0/0")} {
			server.Do("FLUSHALL")
			server.WalkTexts([]string{take, draw, register}, append(row.before, step))
			require.InDelta(t, row.lives*second, server.Int("GET", "due:a")-epoch, 2000, "%s, by script %d", row.name, step.Script)
		}
	}
	for _, step := range []redistest.Step{standingStep(0, "0 1 0"), standingDraw(0, "default:200:1:1000000:2", "0 1/1/0/0/0/1/0")} {
		server.Do("FLUSHALL")
		server.WalkTexts([]string{take, draw, register}, []redistest.Step{step})
		require.InDelta(t, leaseMicros+2*(1+2)*second, server.Int("GET", "due:a")-epoch, 2000, "with a lease, by script %d", step.Script)
	}
}

func TestWithStanding(t *testing.T) {
	for _, row := range []struct {
		limit *Limit
		most  int64
	}{
		{NewLimit(99, 99, time.Second), 0},
		{NewLimit(100, 1, time.Second), 0},
		{NewLimit(101, 1, time.Second), 1},
		{NewLimit(10000, 10000, time.Minute), 100},
		{NewLimit(10000, 1, time.Minute), 1},
		{NewLimit(10000, 10000, 24*time.Hour), 6},
		{NewLimit(1000, 1000, 24*time.Hour), 0},
		{NewLimit(1000, 1, time.Hour), 0},
	} {
		require.Equal(t, row.most, WithStanding(row.limit).standing, row.limit.text)
		require.Same(t, WithStanding(row.limit), WithStanding(row.limit))
	}
}
