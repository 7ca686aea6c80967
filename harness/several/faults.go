package several

import (
	"math/rand/v2"
	"time"

	"github.com/stretchr/testify/require"
)

// fault is one way in which Redis fails, for one gateway.
type fault struct {
	name       string
	begin, end func(f *fleet, gateway int)
}

func (f *fleet) heal(gateway int) { require.NoError(f.t, f.wires[gateway].Heal()) }

var faults = []fault{
	{"black hole", func(f *fleet, g int) { f.wires[g].Hold() }, (*fleet).heal},
	{"cut replies", func(f *fleet, g int) { f.wires[g].Cut() }, (*fleet).heal},
	{"refusing", func(f *fleet, g int) { f.wires[g].Refuse() }, (*fleet).heal},
	{"reset", func(f *fleet, g int) { f.wires[g].Reset() }, (*fleet).heal},
	{"too slow", func(f *fleet, g int) { f.wires[g].Slow(2 * timeout) }, (*fleet).heal},
	{"slow", func(f *fleet, g int) { f.wires[g].Slow(20 * time.Millisecond) }, (*fleet).heal},
	{"SCRIPT FLUSH", func(f *fleet, g int) { f.redis.Do("SCRIPT", "FLUSH") }, func(*fleet, int) {}},
	{"out of memory", func(f *fleet, g int) { f.redis.Do("CONFIG", "SET", "maxmemory", "1") }, func(f *fleet, g int) { f.redis.Do("CONFIG", "SET", "maxmemory", "0") }},
	{"stopped", func(f *fleet, g int) { f.redis.Pause() }, func(f *fleet, g int) { f.redis.Resume() }},
}

// fail lets one fault after the other happen, until a time.
func (f *fleet) fail(random *rand.Rand, gap, until time.Duration) {
	for {
		time.Sleep(gap/2 + time.Duration(random.Int64N(int64(gap))))
		if f.history.now() >= until {
			return
		}
		one, gateway := faults[random.IntN(len(faults))], random.IntN(gateways)
		begun := f.history.now()
		one.begin(f, gateway)
		time.Sleep(time.Duration(50+random.IntN(900)) * time.Millisecond)
		one.end(f, gateway)
		f.history.fault(span{name: one.name, from: begun, to: f.history.now()})
	}
}
