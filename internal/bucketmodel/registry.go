package bucketmodel

import "fmt"

// registry is the keys of the gateways with standing leases, by the name of the key with the counts.
type registry struct {
	counts
	ends map[string]int64 // of the registrations, by gateway
	due  int64            // of the key with the counts
	all  int64            // of the key with the registrations
}

// counts are the gateways at the last registration, the joins ever, and the joins before the first one.
type counts struct{ size, joins, first int64 }

// counts returns what the scripts read at a time.
func (m *Model) counts(key string, now int64) counts {
	r := m.registry[key]
	if r.due <= now {
		r.counts, r.due = counts{}, 0
		m.registry[key] = r
	}
	return r.counts
}

// Register does what the script register does with these keys and arguments at a time of Redis's clock, and returns its answer.
func (m *Model) Register(now int64, keys, args []string) string {
	lasts, longest, keep := number(args[1]), number(args[3]), number(args[4])
	m.counts(keys[1], now)
	previous := m.registry[keys[1]]
	r := registry{ends: map[string]int64{}}
	if previous.all > now {
		for gateway, ends := range previous.ends {
			if ends = min(ends, now+longest); ends > now {
				r.ends[gateway] = ends
			}
		}
	}
	name, join, replaced := args[0], args[2] == "1", args[5]
	if join && replaced != name {
		delete(r.ends, replaced)
	}
	ends, found := r.ends[name]
	if found || join {
		r.ends[name] = max(ends, now+lasts)
		found = true
	}
	r.all = now + ((longest+999)/1000+1)*1000
	r.counts = counts{joins: now, first: now}
	if previous.due > now {
		r.counts = previous.counts
		keep = max(keep, (previous.due-now)/1000)
	}
	if join {
		r.joins++
	}
	r.size = int64(len(r.ends))
	r.due = now + keep*1000
	m.registry[keys[1]] = r
	answer := r.size
	if _, registered := r.ends[replaced]; registered && !join {
		answer--
	}
	if found {
		return fmt.Sprintf("%d 1", answer)
	}
	return fmt.Sprintf("%d 0", answer)
}

// keptBack returns the tokens that are kept back of a level for standing leases.
func (b *bucket) keptBack(l *level) int64 { return min(b.counts.size, l.standing) }

// subtractJoins takes the joins since a value was written from its level default. A call without standing leases keeps the joins that the value
// knows of.
func (b *bucket) subtractJoins(l *level) {
	if l != b.own || l.capacity == 0 || l.standing == 0 {
		return
	}
	known := b.joins
	b.joins = b.counts.joins
	if known == b.joins || b.joins == 0 {
		return
	}
	lost := b.joins - known
	if known < b.counts.first || known > b.joins {
		lost = b.joins - b.counts.first + l.standing
	}
	l.level = min(l.level, l.capacity*l.period) - lost*l.period
}

// raiseToFloor forgives what the joins have taken beyond what standing leases may hold.
func (l *level) raiseToFloor() {
	if l.capacity > 0 {
		l.level = max(l.level, -l.standing*l.period)
	}
}
