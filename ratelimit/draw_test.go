package ratelimit

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resilient-gateway/resilience/internal/redistest"
	"github.com/resilient-gateway/resilience/internal/store"
	"github.com/stretchr/testify/require"
)

// The limits of these tests: 1 is default, 2 to 4 are named. 5 is default with other numbers.
const testLimits = "default:10:1:1000000 hourly:20:1:2000000 daily:5:1:1000000 everyone:1600:1600:1000000 default:1600:1600:1000000"

// drawStep runs draw, or take if the first word of the text is "take": its limit and its ask follow.
func drawStep(at int64, keys string, asks ...string) redistest.Step {
	if keys == "take" {
		return redistest.Step{At: epoch + at, Keys: []string{"a"}, Args: []string{asks[0], allWords, asks[1]}}
	}
	args := append([]string{allWords, testLimits}, asks...)
	return redistest.Step{Script: 1, At: epoch + at, Keys: strings.Fields(keys), Args: args}
}

func TestDraw_steps(t *testing.T) {
	server := redistest.Start(t)
	const m = 1000000
	type row struct {
		name   string
		step   redistest.Step
		answer string // levels are in units: of default in millionths, of hourly in two millionths of a token
	}
	lease := digits(epoch + leaseMicros)
	walks := []struct {
		name string
		rows []row
	}{
		{"all levels of a value or none", []row{
			{"each pays", drawStep(0, "a", "1 1/1+2+3/1/0/0"), "1,9000000+38000000+4000000:0"},
			{"a cost", drawStep(0, "a", "1 1/1+2+3/4/0/0"), "1,5000000+30000000+0:0"},
			{"one is empty", drawStep(0, "a", "1 1/1+2+3/1/0/0"), "0,5000000+30000000+0:0"},
			{"which another request does not name", drawStep(0, "a", "1 1/1+2/1/0/0"), "1,4000000+28000000:0"},
			{"each refills at its rate", drawStep(m, "a", "1 1/1+2+3/1/0/0"), "1,4000000+27000000+0:0"},
		}},
		{"all values or none", []row{
			{"two values", drawStep(0, "a b", "1 1/3/5/0/0 2/4/5/0/0"), "1,0:0,1595000000:0"},
			{"one is empty", drawStep(0, "a b", "1 1/3/1/0/0 2/4/5/0/0"), "0,0:0,1595000000:0"},
			{"in either order", drawStep(0, "b a", "1 1/4/5/0/0 2/3/1/0/0"), "0,1595000000:0,0:0"},
		}},
		{"requests of a call count one after another", []row{
			{"three", drawStep(0, "a b", "1 1/3/2/0/0", "1 1/3/2/0/0 2/3/1/0/0", "1 2/3/1/0/0 1/3/2/0/0"),
				"1,3000000:0 1,1000000:0,4000000:0 0,4000000:0,1000000:0"},
		}},
		{"a cost above the capacity", []row{
			{"never", drawStep(0, "a", "1 1/3/6/0/0"), "0,5000000:0"},
			{"even if huge", drawStep(0, "a", "1 1/3/9007199254740993/0/0"), "0,5000000:0"},
		}},
		{"debts and refunds do not depend on the verdict", []row{
			{"a debt comes first", drawStep(0, "a", "1 1/3/3/3/0"), "0,2000000:0"},
			{"what is missing is forgiven", drawStep(0, "a", "0 1/1+3/1/3/0"), "0,7000000+0:0"},
			{"a refund pays for the request", drawStep(0, "a", "1 1/1+3/1/0/2"), "1,8000000+1000000:0"},
			{"up to the capacity", drawStep(0, "a", "0 1/1+3/1/0/9"), "0,10000000+5000000:0"},
		}},
		{"a lease is of all levels of its draw", []row{
			{"a small level gives none", drawStep(0, "a", "1 1/1+4/1/0/0/8/0"), "1,9000000+1599000000:0"},
			{"two large ones", drawStep(0, "b", "1 1/4+5/1/0/0/8/0"), "1,1591000000+1591000000:8:" + lease + ":500000"},
			{"returned to both, though only one is named", drawStep(0, "b", "0 1/4/1/0/0/0/0/"+lease+"/6"), "0,1597000000:0"},
			{"to both", drawStep(0, "b", "0 1/5/1/0/0"), "0,1597000000:0"},
			{"not twice", drawStep(0, "b", "0 1/4/1/0/0/0/0/"+lease+"/6"), "0,1597000000:0"},
		}},
		{"also when refused", []row{
			{"the other value is empty", drawStep(0, "a b", "1 1/3/6/0/0 2/4/1/0/0/8/0"), "0,5000000:0,1592000000:8:" + lease + ":500000"},
		}},
		{"take and draw share the level default", []row{
			{"draw", drawStep(0, "a", "1 1/1+3/4/0/0"), "1,6000000+1000000:0"},
			{"take", drawStep(0, "take", "10 1 1000000", "5 0"), "5:1000000:0"},
			{"take keeps and settles daily", drawStep(2*m, "take", "10 1 1000000", "3 0"), "3:0:0"},
			{"both see it", drawStep(2*m, "a", "0 1/1+3/4/0/0"), "0,0+3000000:0"},
		}},
		{"a value of take", []row{
			{"take", drawStep(0, "take", "10 1 1000000", "5 0"), "5:5000000:0"},
			{"its level is known to a call that lists it", drawStep(m, "a", "1 1/3/1/0/0"), "1,4000000:0"},
			{"and refills", drawStep(m, "take", "10 1 1000000", "0 0"), "0:6000000:0"},
		}},
		{"a lease of take counts for default only", []row{
			{"draw", drawStep(0, "a", "1 1/3/1/0/0"), "1,4000000:0"},
			{"take", drawStep(0, "take", "1600 1600 1000000", "0 100 0"), "0:1500000000:100:" + lease + ":500000"},
			{"daily refills all the same", drawStep(leaseMicros/2, "a", "0 1/3/1/0/0"), "0,4250000:0"},
			{"returned by a request of daily, it goes to default", drawStep(leaseMicros/2, "a", "0 1/3+5/1/0/0/0/0/"+lease+"/100"), "0,4250000+1600000000:0"},
		}},
		{"a changed limit", []row{
			{"wide", drawStep(0, "a", "1 1/5+3/1/0/0"), "1,1599000000+4000000:0"},
			{"narrow", drawStep(0, "a", "1 1/1+3/1/0/0"), "1,9000000+3000000:0"},
			{"both in one call", drawStep(0, "a", "1 1/5+3/1/0/0", "1 1/1+3/1/0/0"), "1,8000000+2000000:0 1,7000000+1000000:0"},
		}},
		{"a clock set back mints nothing", []row{
			{"empty", drawStep(0, "a", "1 1/3/5/0/0"), "1,0:0"},
			{"an hour back", drawStep(-3600*m, "a", "1 1/3/1/0/0"), "0,0:0"},
			{"a second later", drawStep(-3599*m, "a", "1 1/3/1/0/0"), "1,0:0"},
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
			for i, answer := range server.WalkTexts([]string{take, draw}, steps) {
				require.Equal(t, walk.rows[i].answer, answer, walk.rows[i].name)
			}
		})
	}
}

// The form of a value is public: gateways of different versions share it.
func TestDraw_values(t *testing.T) {
	server := redistest.Start(t)
	time0 := digits(epoch)
	lease := digits(epoch + leaseMicros)
	for _, row := range []struct {
		name, before string
		step         redistest.Step
		after        string
	}{
		{"default only, as take writes it", "", drawStep(0, "a", "1 1/1/1/0/0"), "9000000 " + time0 + " 1000000"},
		{"a lease of default only", "", drawStep(0, "a", "1 1/5/1/0/0/8/0"), "1591000000 " + time0 + " 1000000 " + lease + ":8"},
		{"named only", "", drawStep(0, "a", "1 1/3/1/0/0"), "0 " + time0 + " 0|daily 4000000 1000000 5 1"},
		{"both", "", drawStep(0, "a", "1 1/3+1/1/0/0"), "9000000 " + time0 + " 1000000|default 10 1|daily 4000000 1000000 5 1"},
		{"a lease of both", "", drawStep(0, "a", "1 1/4+5/1/0/0/8/0"),
			"1591000000 " + time0 + " 1000000 " + lease + ":8:AB|default 1600 1600|everyone 1591000000 1000000 1600 1600"},
		{"take keeps the rest", "5000000 " + time0 + " 1000000|default 10 1|daily 4000000 1000000 5 1", drawStep(0, "take", "10 1 1000000", "1 0"),
			"4000000 " + time0 + " 1000000|default 10 1|daily 4000000 1000000 5 1"},
		{"take adds its numbers", "0 " + time0 + " 0|daily 4000000 1000000 5 1", drawStep(0, "take", "10 1 1000000", "1 0"),
			"9000000 " + time0 + " 1000000|default 10 1|daily 4000000 1000000 5 1"},
		{"a full level is left out, the numbers of default stay", "5000000 " + time0 + " 1000000|default 10 1|daily 4000000 1000000 5 1",
			drawStep(0, "a", "0 1/3/1/0/1"), "5000000 " + time0 + " 1000000|default 10 1"},
	} {
		server.Do("FLUSHALL")
		if row.before != "" {
			server.Do("SET", "a", row.before)
		}
		server.WalkTexts([]string{take, draw}, []redistest.Step{row.step})
		require.Equal(t, row.after, server.Text("GET", "a"), row.name)
	}
}

func TestDraw_keepsAKeyUntilTheSlowestLevelIsFull(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct {
		name, ask string
		full      time.Duration
	}{
		{"default is slower", "1 1/1+3/5/0/0", 5 * time.Second},
		{"hourly is", "1 1/1+2/5/0/0", 10 * time.Second},
		{"hourly alone", "1 1/2/5/0/0", 10 * time.Second},
	} {
		server.Do("FLUSHALL")
		server.WalkTexts([]string{take, draw}, []redistest.Step{drawStep(0, "a", row.ask)})
		kept := server.Int("GET", "due:a") - epoch
		require.GreaterOrEqual(t, kept, row.full.Microseconds(), row.name)
		require.LessOrEqual(t, kept, row.full.Microseconds()+2000, row.name)
	}
	// Default's numbers are unknown: the key lives as long as before, and longer by the time that its level was not refilled.
	server.Do("FLUSHALL")
	unknown := drawStep(0, "a", "1 1/1/1/0/0")
	unknown.Args = []string{allWords, "daily:5:1:1000000", "1 1/1/1/0/0"}
	unknown.At = epoch + second
	server.WalkTexts([]string{take, draw}, []redistest.Step{drawStep(0, "take", "10 1 1000000", "9 0"), unknown})
	require.GreaterOrEqual(t, server.Int("GET", "due:a")-epoch, 10*second)
}

func TestDraw_leavesOtherValuesAlone(t *testing.T) {
	server := redistest.Start(t)
	garbage := []string{"", "x", "1 2", "1 2 0", "1 2 3|", "1 2 3|x", "1 2 3|daily 1 2 3", "1 2 3|daily 1 0 3 4", "1 2 3|daily 1 2 0 4",
		"1 2 3|daily 1 2 3 0", "1 2 3|daily 1 2 3 4|daily 1 2 3 4", "0 2 0|default 5 1", "1 2 3|default 5 1 2 3", "1 2 3|default 5 1|default 5 1",
		"1 2 3|daily 1 2 3 4 5:6", "1 2 3 4:5:", "1 2 3 4:5:B", "1 2 3 4:5:AA", "1 2 3 4:0", "0 2 0 4:5", "1 2 3 4:5:BA|daily 1 2 3 4",
		"1 2 3|da.ily 1 2 3 4", "1 2 3|daily 99999999999999999 2 3 4", "1 2 3 4:99999999999999999", "1 2 3 " + strings.Repeat("4:5 ", 3000),
		"1 2 3" + strings.Repeat("|daily 1 2 3 4", 600)}
	many := "1 2 3"
	for i := 0; i < 33; i++ {
		many += "|limit" + strconv.Itoa(i) + " 1 2 3 4"
	}
	garbage = append(garbage, many)
	for _, value := range garbage {
		server.Do("FLUSHALL")
		server.Do("SET", "a", value)
		server.Do("HSET", "c", "state", "open")
		steps := []redistest.Step{drawStep(0, "a b c", "1 2/3/1/0/0/0/0/7/1 1/3/1/0/0", "1 2/3/1/0/0 3/3/1/1/1", "1 2/3/1/0/0"),
			drawStep(0, "b", "1 1/3/1/0/0")}
		require.Equal(t, []string{"-1 -1 1,4000000:0", "1,3000000:0"}, server.WalkTexts([]string{take, draw}, steps), value)
		require.Equal(t, value, server.Text("GET", "a"), "left alone")
		if strings.Contains(value, "|") {
			step := drawStep(0, "take", "10 1 1000000", "1 0")
			require.Equal(t, "-1:0:0", server.WalkTexts([]string{take, draw}, []redistest.Step{step})[0], value)
			require.Equal(t, value, server.Text("GET", "a"), "left alone")
		}
	}
}

// Sixteen limits with the longest names and numbers, and 48 leases of all of them, fit into a value.
func TestDraw_theLongestValue(t *testing.T) {
	server := redistest.Start(t)
	var words, indexes []string
	for i := 0; i < 16; i++ {
		words = append(words, strings.Repeat("n", 30)+digits(int64(10+i))+":1000000000000:999999999:8639")
		indexes = append(indexes, strconv.Itoa(i+1))
	}
	var steps []redistest.Step
	for i := 0; i < 50; i++ {
		ask := "1 1/" + strings.Join(indexes, "+") + "/1/0/0/100000000/0"
		steps = append(steps, redistest.Step{Script: 1, At: epoch, Keys: []string{"a"}, Args: []string{allWords, strings.Join(words, " "), ask}})
	}
	for i, answer := range server.WalkTexts([]string{take, draw}, steps) {
		_, draws := parseDraws(answer)
		require.Equal(t, i < maxLeases, draws[0].leased > 0, i)
	}
	value := server.Text("GET", "a")
	require.Greater(t, len(value), 3000)
	require.Less(t, len(value), 8192)
}

// A full Redis refuses SET: the call fails, and takes nothing from any value.
func TestDraw_aFullRedis(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, server.Addr())
	server.Do("CONFIG", "SET", "maxmemory", "1")
	call := &store.Call{Script: store.NewScript(draw), Keys: []string{"a", "b"}, Args: []string{allWords, testLimits, "1 1/3/1/0/0 2/3/1/0/0"}}
	s.Run([]*store.Call{call}, time.Now().Add(5*time.Second))
	require.ErrorContains(t, call.Err, "OOM")
	require.Equal(t, int64(0), server.Int("DBSIZE"))
}

func TestDraw_plenty(t *testing.T) {
	server := redistest.Start(t)
	for _, row := range []struct{ ask, answer string }{
		{"1 1/4/1/0/0", "+"},
		{"0 1/4/1/0/0", "+"},
		{"1 1/4/200/0/0", "+"},
		{"1 1/4/201/0/0", "1,1399000000:0"},
		{"1 1/4+3/1/0/0", "1,1599000000+4000000:0"},
		{"1 1/4/1/0/0 2/3/1/0/0", "1,1599000000:0,4000000:0"},
		{"1 1/4/1/0/0 2/4/1/0/0", "+"},
		{"1 1/4/1/0/0/8/0", "1,1591000000:8:" + digits(epoch+leaseMicros) + ":500000"},
		{"1 1/4/1601/0/0", "0,1600000000:0"},
	} {
		server.Do("FLUSHALL")
		step := drawStep(0, "a b", row.ask)
		step.Args[0] = leaseText
		require.Equal(t, row.answer, server.WalkTexts([]string{take, draw}, []redistest.Step{step})[0], row.ask)
	}
}

func TestParseDraws(t *testing.T) {
	taken, draws := parseDraws("1,5+6:0,7:8:9:10")
	require.Equal(t, int64(1), taken)
	require.Equal(t, []drawAnswer{{levels: []int64{5, 6}}, {levels: []int64{7}, leased: 8, lease: 9, length: 10}}, draws)
	taken, draws = parseDraws("0,5:0")
	require.Equal(t, int64(0), taken)
	require.Len(t, draws, 1)
	for _, word := range []string{"-1", "", "2,5:0", "1,5", "1,:0", "1,5:x", "1,5:1:2", "1,x:0", "1,5:1:2:3:4"} {
		taken, _ = parseDraws(word)
		require.Equal(t, int64(-1), taken, word)
	}
}

func TestDrawWord(t *testing.T) {
	require.Equal(t, "2/1+3/4/5/6", drawWord(&drawAsk{key: 2, limits: "1+3", cost: 4, owed: 5, refund: 6}))
	require.Equal(t, "2/1/4/0/0/7/0", drawWord(&drawAsk{key: 2, limits: "1", cost: 4, short: 7}))
	require.Equal(t, "2/1/4/0/0/0/0/8/9", drawWord(&drawAsk{key: 2, limits: "1", cost: 4, lease: 8, unused: 9}))
	require.Equal(t, "hourly:5:1:1000000", limitWord("hourly", NewLimit(5, 1, time.Second)))
}
