package truth

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/stretchr/testify/require"
)

// driver lets things go wrong, one after the other.
type driver struct {
	*fleet
	random *rand.Rand
	report *Report
	last   string
}

// trouble is one thing that goes wrong. those are the gateways that it is about.
type trouble struct {
	name  string
	all   bool // it is about every gateway
	begin func(d *driver, those []*member)
	end   func(d *driver, those []*member)
}

func onWires(name string, begin func(m *member)) trouble {
	return trouble{
		name:  name,
		begin: func(d *driver, those []*member) { each(those, begin) },
		end: func(d *driver, those []*member) {
			each(those, func(m *member) { require.NoError(d.t, m.wire.Heal()) })
		},
	}
}

func onRedis(name string, begin, end []any) trouble {
	do := func(d *driver, words []any) { d.redis.Do(words[0].(string), words[1:]...) }
	return trouble{
		name: name, all: true,
		begin: func(d *driver, those []*member) { do(d, begin) },
		end:   func(d *driver, those []*member) { do(d, end) },
	}
}

func each(those []*member, do func(m *member)) {
	for _, m := range those {
		do(m)
	}
}

func nothing(d *driver, those []*member) {}

var troubles = []trouble{
	onWires("black hole", func(m *member) { m.wire.Hold() }),
	onWires("cut replies", func(m *member) { m.wire.Cut() }),
	onWires("refusing", func(m *member) { m.wire.Refuse() }),
	onWires("reset", func(m *member) { m.wire.Reset() }),
	onWires("slow", func(m *member) { m.wire.Slow(20 * time.Millisecond) }),
	onWires("too slow", func(m *member) { m.wire.Slow(2 * timeout) }),
	onRedis("SCRIPT FLUSH", []any{"SCRIPT", "FLUSH"}, []any{"PING"}),
	onRedis("replica", []any{"REPLICAOF", "127.0.0.1", "1"}, []any{"REPLICAOF", "NO", "ONE"}),
	onRedis("out of memory", []any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}),
	onRedis("no right", []any{"ACL", "SETUSER", "default", "-evalsha"}, []any{"ACL", "SETUSER", "default", "+evalsha"}),
	{name: "stopped", all: true,
		begin: func(d *driver, those []*member) { d.redis.Pause() },
		end:   func(d *driver, those []*member) { d.redis.Resume() }},
	{name: "killed", all: true,
		begin: func(d *driver, those []*member) { d.redis.Kill() },
		end:   func(d *driver, those []*member) { d.h.lose(); d.redis.Run() }},
	{name: "emptied", all: true,
		begin: func(d *driver, those []*member) { d.h.lose(); d.redis.Do("FLUSHALL") }, end: nothing},
	{name: "gateway killed",
		begin: func(d *driver, those []*member) { each(those[:1], func(m *member) { m.process.Kill() }) },
		end:   func(d *driver, those []*member) { each(those[:1], d.start) }},
}

// open lets the upstream fail in good weather: for all gateways or for one, of which the others then have to hear.
func (d *driver) open() {
	time.Sleep(memory + 2*settled)
	d.origin.fail(d.some(d.random)...)
	time.Sleep(resetTimeout / 2)
	d.origin.fail()
	time.Sleep(2 * resetTimeout)
}

// once lets one thing go wrong, half of the time together with the upstream, and awaits the end of that.
func (d *driver) once() {
	one := troubles[d.random.IntN(len(troubles))]
	those := d.members
	if !one.all && d.random.IntN(3) > 0 {
		i := d.random.IntN(len(d.members))
		those = d.members[i : i+1]
	}
	length := time.Duration(50+d.random.IntN(2500)) * time.Millisecond
	begun := d.h.now()
	if d.random.IntN(2) == 0 {
		d.origin.fail(d.some(d.random)...)
	}
	one.begin(d, those)
	time.Sleep(length)
	one.end(d, those)
	d.origin.fail()
	ended := d.h.now()
	back := d.await(ended)
	for i, m := range those {
		d.h.cloud(span{gateway: m.number, from: begun, to: d.h.now() + settled, reborn: one.name == "gateway killed" && i == 0})
	}
	d.report.Returns = max(d.report.Returns, back)
	d.last = fmt.Sprintf("%s: %s, %s", d.h.now().Round(time.Second), one.name, length)
	// The machine may be slow, too: then a gateway finds Redis unavailable although it is not.
	if back > 2*time.Second+d.h.slowest(plain, begun) {
		d.report.Wrong = append(d.report.Wrong, fmt.Sprintf("a gateway was not back 2 s after the end of: %s, at %s", one.name, ended))
		return
	}
	d.report.Faults[one.name]++
}

// await waits until every gateway has had Redis for a while, and returns how long that took them.
func (d *driver) await(ended time.Duration) (back time.Duration) {
	for d.h.now()-ended < 5*time.Second {
		calm := true
		for _, m := range d.members {
			now, since := m.calm()
			calm = calm && now && (since > 2*timeout || since > d.h.now()-ended)
			if now {
				back = max(back, d.h.now()-since-ended)
			}
		}
		// A call that was sent into the fault says only now that it got no answer.
		if calm && d.h.now()-ended > 2*timeout {
			return back
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 5 * time.Second
}
