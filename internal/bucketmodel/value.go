package bucketmodel

import (
	"math"
	"slices"
)

// bucket is the value of a key, gone when the key would have expired. The level of default comes first, or is nil; named levels follow.
type bucket struct {
	own     *level
	named   []*level
	at      int64 // of all levels
	leases  []lease
	due     int64
	late    int64 // microseconds between at and the call
	tail    bool  // the value has or had named levels
	joins   int64 // of the registry when own was settled; 0: there was none
	counts  counts
	settled bool
	changed bool
}

// level counts in units of a token by its period. A capacity of 0 is unknown.
type level struct {
	name                            string
	level, period, capacity, refill int64
	standing                        int64
}

// lease is a lease and the names of the levels that paid for it.
type lease struct {
	deadline, tokens int64
	payers           []string
}

// maxNamed is how many named levels a value holds.
const maxNamed = 32

// load returns a copy of a key's value: where nothing changes nothing is written, not even the time.
func (m *Model) load(key string, now int64, r counts) *bucket {
	kept := m.buckets[key]
	if kept == nil || kept.due <= now {
		delete(m.buckets, key)
		return &bucket{at: now, joins: r.joins, counts: r}
	}
	b := *kept
	if b.own != nil {
		own := *b.own
		b.own = &own
	}
	b.named = nil
	for _, named := range kept.named {
		l := *named
		b.named = append(b.named, &l)
	}
	b.leases = nil
	for _, l := range kept.leases {
		l.payers = slices.Clone(l.payers)
		b.leases = append(b.leases, l)
	}
	if len(b.levels()) == 0 {
		b.at = min(b.at, now) // nothing was refilled until a time that is still to come
	}
	b.late = max(0, now-b.at)
	b.settled, b.changed = false, false
	b.counts = r
	if b.own == nil {
		b.joins = r.joins
	}
	return &b
}

// save writes a changed value. Named levels that are full are left out.
func (m *Model) save(key string, b *bucket, now int64) {
	if !b.changed {
		return
	}
	idle := int64(1)
	var named []*level
	for _, l := range b.named {
		if l.level < l.capacity*l.period {
			named = append(named, l)
			idle = max(idle, l.untilFull())
		}
	}
	b.named = named
	hasNumbers := b.own != nil && b.own.capacity != 0
	if b.own != nil && !hasNumbers {
		idle = max(idle, (b.due-now)/1000+(b.late+999)/1000+1)
	} else if b.own != nil {
		missing := b.own.capacity*b.own.period - b.own.level
		debt := b.own.standing * b.own.period
		if debt > 0 && (b.counts.joins > 0 || len(b.leases) > 0 || missing > 2*debt) {
			missing = 2 * (missing + debt)
		}
		idle = max(idle, untilRefilled(missing, b.own.refill))
		b.tail = b.tail || len(named) > 0
		if !b.tail || b.joins > 0 {
			b.own.forget()
		}
		b.own.standing = 0 // the value does not hold it
	}
	if len(b.leases) > 0 {
		idle += (b.leases[len(b.leases)-1].deadline - now + 999) / 1000
	}
	b.tail = len(named) > 0 || b.tail && hasNumbers
	b.at = now
	b.due = now + idle*1000
	m.buckets[key] = b
}

// forget forgets the numbers of default, which a value without named levels does not hold.
func (l *level) forget() { l.capacity, l.refill = 0, 0 }

// untilFull returns the milliseconds that a key with this level is kept.
func (l *level) untilFull() int64 { return untilRefilled(l.capacity*l.period-l.level, l.refill) }

func untilRefilled(missing, refill int64) int64 { return (missing+1000*refill-1)/(1000*refill) + 1 }

func (b *bucket) levels() []*level {
	if b.own == nil {
		return b.named
	}
	return append([]*level{b.own}, b.named...)
}

// use returns the level of a limit with its numbers. A value without it gets a full one; nil if it has too many.
func (b *bucket) use(name string, l limit, now int64) *level {
	for _, found := range b.levels() {
		if found.name != name {
			continue
		}
		if found.period != l.period {
			found.level = inUnits(found.level, found.period, l)
			found.period = l.period
		}
		isOther := found.capacity != l.capacity || found.refill != l.refill || found.standing != l.standing
		found.capacity, found.refill, found.standing = l.capacity, l.refill, l.standing
		if b.settled && isOther {
			b.subtractJoins(found)
			b.forgetLeases(found)
		}
		if b.settled {
			b.refill(found, now)
			found.raiseToFloor()
		}
		return found
	}
	full := &level{name: name, period: l.period, capacity: l.capacity, refill: l.refill, standing: l.standing}
	full.level = (l.capacity - b.keptBack(full)) * l.period
	if name == "default" {
		b.own = full
		b.joins = 0
		if l.standing > 0 {
			b.joins = b.counts.joins
		}
		return full
	}
	if len(b.named) >= maxNamed {
		return nil
	}
	b.named = append(b.named, full)
	return full
}

// settle brings all levels up to now: each lease that is over leaves the sums of its levels at its own time.
func (b *bucket) settle(now int64, t terms) {
	if now < b.at {
		b.at = now
		b.changed = true
	}
	for _, l := range b.levels() {
		b.forgetLeases(l)
	}
	for len(b.leases) > 0 && b.leases[0].deadline <= now {
		deadline := b.leases[0].deadline
		for _, l := range b.levels() {
			if slices.Contains(b.leases[0].payers, l.name) {
				b.refillTo(l, deadline, l.standing) // more gateways may have been registered then
			} else {
				b.refill(l, deadline)
			}
		}
		b.at = max(b.at, deadline)
		b.leases = b.leases[1:]
	}
	for i := range b.leases {
		b.leases[i].deadline = min(b.leases[i].deadline, now+t.long+t.most)
	}
	for _, l := range b.levels() {
		b.subtractJoins(l)
		b.refill(l, now)
		l.raiseToFloor()
	}
	b.at = now
	b.settled = true
}

// refill refills a level until a time, up to where the level and its leased tokens make its capacity.
func (b *bucket) refill(l *level, time int64) { b.refillTo(l, time, b.keptBack(l)) }

// refillTo is refill with another number of tokens that are kept back.
func (b *bucket) refillTo(l *level, time, keptBack int64) {
	if l.capacity == 0 {
		return
	}
	full := max(0, l.capacity-keptBack-b.leased(l.name)) * l.period
	if l.level >= full {
		l.level = full
	} else if passed := time - b.at; passed > (math.MaxInt64-max(0, l.level))/l.refill {
		l.level = full
	} else if passed > 0 {
		l.level = min(full, l.level+passed*l.refill)
	}
}

// forgetLeases frees a level from the longest leases that would leave it nothing.
func (b *bucket) forgetLeases(l *level) {
	for i := len(b.leases) - 1; i >= 0 && l.capacity > 0 && b.leased(l.name) >= l.capacity; i-- {
		b.leases[i].payers = slices.DeleteFunc(b.leases[i].payers, func(payer string) bool { return payer == l.name })
	}
	b.leases = slices.DeleteFunc(b.leases, func(one lease) bool { return len(one.payers) == 0 })
}

// leased returns the tokens of the leases that a level paid for.
func (b *bucket) leased(name string) (sum int64) {
	for _, one := range b.leases {
		if slices.Contains(one.payers, name) {
			sum += one.tokens
		}
	}
	return sum
}

// end ends a lease, and returns its unused tokens to the levels that paid for it.
func (b *bucket) end(number, unused int64) {
	b.changed = true
	for i, one := range b.leases {
		if one.deadline != number {
			continue
		}
		b.leases = slices.Delete(b.leases, i, i+1)
		for _, l := range b.levels() {
			if slices.Contains(one.payers, l.name) {
				b.add(l, min(unused, one.tokens))
			}
		}
		return
	}
}

// add puts tokens back.
func (b *bucket) add(l *level, tokens int64) {
	l.level += tokens * l.period
	if l.capacity > 0 {
		l.level = min(l.level, max(0, l.capacity-b.keptBack(l)-b.leased(l.name))*l.period)
	}
}

// lease leases tokens of some levels. It returns how many, and the lease's number and duration. The number is the deadline, or the next
// microsecond that no other lease has.
func (b *bucket) lease(now int64, levels []*level, t terms, short, long int64) (tokens, number, length int64) {
	left := int64(math.MaxInt64)
	for _, l := range levels {
		left = min(left, floorDiv(l.level, l.period))
	}
	if left < t.minimum || int64(len(b.leases)) >= t.most {
		return 0, 0, 0
	}
	left /= t.share
	for _, l := range levels {
		left = max(0, min(left, l.capacity-l.standing-b.leased(l.name)))
	}
	tokens, length = min(short, left), t.short
	long = min(long, left)
	for _, l := range levels {
		// Half of the tokens that are left for long leases, which part may divide unevenly.
		long = min(long, (l.capacity-t.part*b.leased(l.name))/(2*t.part))
	}
	if long > 0 && long >= tokens {
		tokens, length = long, t.long
	}
	if tokens == 0 {
		return 0, 0, 0
	}
	number = now + length
	place := 0
	for place < len(b.leases) && b.leases[place].deadline <= number {
		if b.leases[place].deadline == number {
			number++
		}
		place++
	}
	one := lease{deadline: number, tokens: tokens}
	for _, l := range levels {
		l.level -= tokens * l.period
		one.payers = append(one.payers, l.name)
	}
	b.leases = slices.Insert(b.leases, place, one)
	b.changed = true
	return tokens, number, length
}
