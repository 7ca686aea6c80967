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

const second = int64(time.Second / time.Microsecond)

// epoch is a realistic time of Redis's clock: large numbers must be as exact as small ones.
const epoch = 1790000000 * second

// step asks for tokens without a lease.
func step(key string, limit *Limit, asked, at int64) redistest.Step {
	return askStep(key, limit, ask{asked: asked}, at)
}

// ask is what a gateway asks for a key.
type ask struct {
	asked         int64
	short, long   int64 // ahead, for such a time
	lease, unused int64 // lease 0: none ends
}

func (a ask) words() string {
	words := digits(a.asked) + " " + digits(a.short)
	if a.short != 0 || a.long != 0 || a.lease != 0 {
		words += " " + digits(a.long)
	}
	if a.lease != 0 {
		words += " " + digits(a.lease) + " " + digits(a.unused)
	}
	return words
}

func askStep(key string, limit *Limit, a ask, at int64) redistest.Step {
	return redistest.Step{At: epoch + at, Keys: []string{key}, Args: []string{limit.text, allWords, a.words()}}
}

func fullBucket(limit *Limit, now int64) bucket {
	return bucket{level: limit.full, at: now, period: limit.period}
}

func TestScript_steps(t *testing.T) {
	server := redistest.Start(t)
	type row struct {
		name         string
		at           int64 // microseconds since the first
		limit        *Limit
		asked, taken int64
		tokens       int64 // left, whole ones
	}
	five := NewLimit(5, 1, time.Second)
	two := NewLimit(2, 1, time.Second)
	ten := NewLimit(10, 1, time.Second)
	minute := NewLimit(5, 60, time.Minute)
	tiny := NewLimit(1, 1, 24*time.Hour)
	fast := NewLimit(1000000, 1000000, time.Microsecond*10)
	brief, daily := NewLimit(1000000000, 1, time.Microsecond), NewLimit(100000, 1, 24*time.Hour)
	walks := []struct {
		name string
		rows []row
	}{
		{"a full bucket empties, and refills token by token", []row{
			{"all at once", 0, five, 5, 5, 0},
			{"none left", 0, five, 1, 0, 0},
			{"a microsecond short", second - 1, five, 1, 0, 0},
			{"one again", second, five, 1, 1, 0},
			{"no more than one", second, five, 1, 0, 0},
			{"half a token is kept", second + second/2, five, 1, 0, 0},
			{"and counts", 2 * second, five, 1, 1, 0},
		}},
		{"a refusal takes nothing", []row{
			{"three", 0, five, 3, 3, 2},
			{"three asked for, two there", 0, five, 3, 2, 0},
			{"refused", second / 2, five, 1, 0, 0},
			{"refused again", second * 3 / 4, five, 1, 0, 0},
			{"on time all the same", second, five, 1, 1, 0},
		}},
		{"it never holds more than its capacity", []row{
			{"empty", 0, five, 5, 5, 0},
			{"a year later", 365 * 24 * 3600 * second, five, 9, 5, 0},
		}},
		{"it is not full before its time", []row{
			{"empty", 0, five, 5, 5, 0},
			{"four idle seconds", 4 * second, five, 5, 4, 0},
		}},
		{"a lowered capacity holds at once", []row{
			{"of ten", 0, ten, 1, 1, 9},
			{"of two", 0, two, 1, 1, 1},
			{"of ten again", 0, ten, 1, 1, 0},
		}},
		{"a raised capacity grows from what is there", []row{
			{"of two", 0, two, 1, 1, 1},
			{"of ten", 0, ten, 1, 1, 0},
			{"four seconds", 4 * second, ten, 9, 4, 0},
		}},
		{"another period of the same rate changes nothing", []row{
			{"per second", 0, five, 4, 4, 1},
			{"per minute", 0, minute, 2, 1, 0},
			{"one a second", second, minute, 2, 1, 0},
			{"per second again", 2 * second, five, 2, 1, 0},
		}},
		{"a full bucket is full in a far longer period, too", []row{
			{"per microsecond", 0, brief, 2, 2, 999999998},
			{"per day", 0, daily, 1, 1, 99999},
			{"per microsecond again", 0, brief, 1, 1, 99998},
		}},
		{"a clock set back refills nothing, and time continues from there", []row{
			{"empty", 0, five, 5, 5, 0},
			{"an hour back", -3600 * second, five, 1, 0, 0},
			{"a second later", -3599 * second, five, 2, 1, 0},
			{"three seconds later", -3596 * second, five, 5, 3, 0},
		}},
		{"a tiny rate loses nothing", []row{
			{"the one", 0, tiny, 1, 1, 0},
			{"asked all the time", 6 * 3600 * second, tiny, 1, 0, 0},
			{"asked all the time", 12 * 3600 * second, tiny, 1, 0, 0},
			{"a microsecond short", 24*3600*second - 1, tiny, 1, 0, 0},
			{"a day", 24 * 3600 * second, tiny, 1, 1, 0},
		}},
		{"a high rate is exact", []row{
			{"all", 0, fast, 1000000, 1000000, 0},
			{"one microsecond", 1, fast, 1000000, 100000, 0},
			{"ten", 11, fast, 2000000, 1000000, 0},
		}},
	}
	for _, walk := range walks {
		walk := walk
		t.Run(walk.name, func(t *testing.T) {
			var steps []redistest.Step
			for _, r := range walk.rows {
				steps = append(steps, step(walk.name, r.limit, r.asked, r.at))
			}
			answers := server.Walk([]string{take}, steps)
			local := fullBucket(walk.rows[0].limit, epoch)
			for i, r := range walk.rows {
				require.Equal(t, r.taken, answers[i][0], "%d: %s", i, r.name)
				require.Equal(t, r.tokens, answers[i][1]/r.limit.period, "%d: %s", i, r.name)
				taken, level := local.take(r.limit, r.asked, epoch+r.at)
				require.Equal(t, answers[i][:2], []int64{taken, level}, "in this process: %d: %s", i, r.name)
			}
		})
	}
}

func TestScript_keepsAKeyUntilItsBucketIsFull(t *testing.T) {
	server := redistest.Start(t)
	rows := []struct {
		name  string
		limit *Limit
		taken int64
		full  time.Duration // until it is
	}{
		{"a burst far above the rate", NewLimit(50, 1, time.Second), 50, 50 * time.Second},
		{"one token", NewLimit(50, 1, time.Second), 1, time.Second},
		{"a tiny rate", NewLimit(2, 1, 24*time.Hour), 2, 48 * time.Hour},
		{"a high rate", NewLimit(10, 1000, time.Second), 10, 10 * time.Millisecond},
	}
	for _, row := range rows {
		row := row
		t.Run(row.name, func(t *testing.T) {
			server.Walk([]string{take}, []redistest.Step{step(row.name, row.limit, row.taken, 0)})
			kept := server.Int("GET", "due:"+row.name) - epoch
			require.GreaterOrEqual(t, kept, row.full.Microseconds())
			require.LessOrEqual(t, kept, row.full.Microseconds()+2000)
		})
	}
}

func TestScript_answersForEachKeyOnItsOwn(t *testing.T) {
	server := redistest.Start(t)
	server.Do("RPUSH", "list", "x")
	garbage := []string{"", "x", "1 2", "1 2 0", "1 2 3 4", "1.5 2 3", "1 2 3 4:", "1 2 3 4:5x", "1 2 34:5",
		"99999999999999999999999999999999999999 99999999999999999999999 3"}
	limit := NewLimit(5, 1, time.Second)
	keys := []string{"good", "list"}
	for i, value := range garbage {
		key := "garbage" + strconv.Itoa(i)
		server.Do("SET", key, value)
		keys = append(keys, key)
	}
	keys = append(keys, "good2")
	args := []string{limit.text, allWords}
	for range keys {
		args = append(args, "1 0")
	}
	answer := server.Walk([]string{take}, []redistest.Step{{At: epoch, Keys: keys, Args: args}})[0]
	for i, key := range keys {
		if key == "good" || key == "good2" {
			require.Equal(t, []int64{1, 4 * second, 0}, answer[3*i:3*i+3], key)
		} else {
			require.Equal(t, []int64{-1, 0, 0}, answer[3*i:3*i+3], key)
		}
	}
	for i, value := range garbage {
		require.Equal(t, value, server.Text("GET", "garbage"+strconv.Itoa(i)), "left alone")
	}
}

// The script answers key by key, also if new keys occur more than once in a batch, or among known keys.
func TestScript_newKeysInABatch(t *testing.T) {
	server := redistest.Start(t)
	limit := NewLimit(1600, 1600, time.Second)
	lease, length := epoch+leaseMicros, leaseMicros
	rows := []struct {
		name, keys string
		asks       []string
		answer     []int64
	}{
		{"twice and thrice", "a b a b b c", nil, []int64{1, 1599 * second, 0, 1, 1599 * second, 0, 1, 1598 * second, 0,
			1, 1598 * second, 0, 1, 1597 * second, 0, 1, 1599 * second, 0}},
		{"ahead, then one", "a a b", []string{"1 8 0"}, []int64{1, 1591 * second, 8, lease, length, 1, 1590 * second, 0,
			1, 1599 * second, 0}},
		{"one, then ahead, then one", "a a a", []string{"1 0", "1 8 0"}, []int64{1, 1599 * second, 0,
			1, 1590 * second, 8, lease, length, 1, 1589 * second, 0}},
		{"two, then one", "a a", []string{"2 0"}, []int64{2, 1598 * second, 0, 1, 1597 * second, 0}},
		{"another type among them", "a list b list a", []string{"1 0", "1 0", "1 0", "1 8 0"}, []int64{1, 1599 * second, 0,
			-1, 0, 0, 1, 1599 * second, 0, -1, 0, 0, 1, 1598 * second, 0}},
		{"another's text among them", "a text b text", []string{"1 0", "1 8 0"}, []int64{1, 1599 * second, 0,
			-1, 0, 0, 1, 1599 * second, 0, -1, 0, 0}},
	}
	older := strings.Replace(take, "'NX', 'GET'", "'NX', 'UNKNOWN'", 1)
	require.NotEqual(t, take, older, "as a Redis before 7.0 has it")
	for _, script := range []string{take, older} {
		for _, row := range rows {
			server.Do("FLUSHALL")
			server.Do("RPUSH", "list", "x")
			server.Do("SET", "text", "x")
			step := redistest.Step{At: epoch, Keys: strings.Fields(row.keys), Args: append([]string{limit.text, allWords}, row.asks...)}
			require.Equal(t, row.answer, server.Walk([]string{script}, []redistest.Step{step})[0], row.name)
			require.Equal(t, int64(1), server.Int("LLEN", "list"), "left alone")
			require.Equal(t, "x", server.Text("GET", "text"), "left alone")
		}
	}
}

// A full Redis refuses SET. The script still answers if it needs no SET.
func TestScript_aFullRedis(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, server.Addr())
	server.Do("RPUSH", "list", "x")
	limit := NewLimit(5, 1, time.Second)
	server.Do("CONFIG", "SET", "maxmemory", "1")
	for _, row := range []struct {
		keys        []string
		answer, err string
	}{
		{[]string{"list", "list"}, "-1:0:0 -1:0:0", ""},
		{[]string{"list", "new"}, "", "OOM"},
	} {
		call := &store.Call{Script: script, Number: len(row.keys)}
		for _, key := range row.keys {
			call.Words = append(call.Words, store.Word(key))
		}
		call.Words = append(call.Words, limit.wire, leaseWire)
		s.Run([]*store.Call{call}, time.Now().Add(5*time.Second))
		if row.err != "" {
			require.ErrorContains(t, call.Err, row.err)
			continue
		}
		require.NoError(t, call.Err)
		require.Equal(t, row.answer, strings.TrimSpace(call.Answer))
	}
}

// The script gives a long lease while few tokens are leased. It takes at most half of what may still be leased for long. Otherwise the
// lease is short.
func TestScript_longAndShortLeases(t *testing.T) {
	server := redistest.Start(t)
	limit := NewLimit(1600, 1600, time.Second) // a long lease may bring the leased tokens to 100
	rows := []struct {
		name           string
		short, long    int64
		leased, length int64
	}{
		{"as many as asked for", 0, 20, 20, longMicros},
		{"half of the eighty that are left", 0, 200, 40, longMicros},
		{"half of the forty would be fewer than for a short time", 30, 200, 30, leaseMicros},
		{"half of ten", 5, 200, 5, longMicros},
		{"more for a short time", 6, 2, 6, leaseMicros},
		{"no room for a long one", 3, 200, 3, leaseMicros},
		{"nor for any", 0, 200, 0, 0},
		{"as many as are there, an eighth", 5000, 200, 186, leaseMicros},
	}
	var steps []redistest.Step
	for _, row := range rows {
		steps = append(steps, askStep("key", limit, ask{asked: 1, short: row.short, long: row.long}, 0))
	}
	for i, answer := range server.Walk([]string{take}, steps) {
		row := rows[i]
		require.Equal(t, row.leased, answer[2], row.name)
		if row.leased > 0 {
			require.Equal(t, row.length, answer[4], row.name)
		}
	}
}

// If the capacity is lowered below the leased tokens, the bucket must not stay empty until the leases end.
func TestScript_aLoweredCapacityForgetsLeases(t *testing.T) {
	server := redistest.Start(t)
	wide, narrow := NewLimit(1600, 1600, time.Second), NewLimit(5, 1, time.Second)
	answers := server.Walk([]string{take}, []redistest.Step{
		askStep("key", wide, ask{asked: 1, long: 4}, 0),
		askStep("key", wide, ask{asked: 1, long: 40}, 1),
		step("key", narrow, 9, second),
		step("key", narrow, 9, 2*second),
		step("key", wide, 1, 2*second),
	})
	require.Equal(t, int64(1), answers[2][0], "four are leased, and one is left")
	require.Equal(t, int64(1), answers[3][0], "that comes back")
	require.Equal(t, int64(0), answers[4][0], "what was forgotten does not come back")
}

// If a bucket is nearly full and has the tokens that a lease needs, the answer only says so.
func TestScript_plenty(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, server.Addr())
	for i, row := range []struct {
		capacity, asked int64
		ask, answer     string
	}{
		{1000, 1, "1 0", "+"},
		{1000, 125, "125 0", "+"},
		{1000, 126, "126 0", "126:874000000:0"},
		{101, 1, "1 0", "+"},
		{100, 1, "1 0", "1:99000000:0"},
		{100, 1, "", "1:99000000:0"},
		{1000, 1, "", "+"},
		{1000, 1, "1 8 0", "1:991000000:8:"},
	} {
		limit := NewLimit(row.capacity, 1, time.Second)
		call := &store.Call{Script: script, Number: 1, Words: []string{store.Word(digits(int64(i))), limit.wire, leaseWire}}
		if row.ask != "" {
			call.Words = append(call.Words, store.Word(row.ask))
		}
		require.NoError(t, s.Run([]*store.Call{call}, time.Now().Add(5*time.Second)))
		answer := strings.TrimSpace(call.Answer)
		require.True(t, strings.HasPrefix(answer, row.answer), "%d: %s", i, answer)
		require.Equal(t, row.answer == "+", answer == "+", "%d: %s", i, answer)
	}
}
