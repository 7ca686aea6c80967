package standingmodel

// database is the keys of Redis. A copy is what a replica has that lags behind.
type database struct {
	values  []*value // by bucket; nil: no key. A value does not change: the scripts write another
	members []member
	counted bool // the key with the counts exists
	size    int  // S: the number of members at the last registration
	joins   int  // J: the joins ever
	first   int  // J before the first join
}

// member is a registration. Each join has another name.
type member struct{ name, ends int }

// value is a bucket's: the level of the limit default, which has standing tokens, and that of another limit, which has none.
type value struct {
	level  int
	limit  limit // whose units the level has
	joins  int   // J when the level was settled; 0: there was no registry
	size   int   // S then; only if a rule is left out
	other  int
	leases []lease // in order of deadline
	at     int     // of both levels
	ends   int     // the key
}

// lease is tokens of a value that a gateway holds. both says that the other level has paid as well.
type lease struct {
	deadline, tokens int
	both             bool
}

// maxLeases is how many leases a value holds.
const maxLeases = 3

// copyDatabase returns a copy that does not change with the original.
func copyDatabase(d *database) database {
	other := *d
	other.values = append([]*value{}, d.values...)
	other.members = append([]member{}, d.members...)
	return other
}

// clock is what Redis's clock says.
func (w *world) clock() int { return w.now + w.step }

// register does what the script of the registry does. It returns S, and whether the name is registered. If Redis's clock was set back, no
// registration lasts longer than the longest.
func (w *world) register(m *message) (size int, found bool) {
	d, now := &w.redis, w.clock()
	kept := d.members[:0]
	for _, one := range d.members {
		one.ends = smaller(one.ends, now+w.longest)
		if one.ends <= now || m.join && one.name == m.replaced && one.name != m.name {
			continue
		}
		if one.name == m.name {
			found = true
			one.ends = larger(one.ends, now+m.lasts)
		}
		kept = append(kept, one)
	}
	d.members = kept
	joins := m.join
	if !found && (m.join || w.omit.RenewOnly) {
		d.members = append(d.members, member{name: m.name, ends: now + m.lasts})
		found = true
		joins = true
	}
	if !d.counted {
		d.counted = true
		d.joins = now
		d.first = d.joins
	}
	if joins {
		d.joins++
	}
	d.size = len(d.members)
	return d.size, found
}

// counts returns S and J as the scripts read them, and J before the first join. Without a registry there is nothing to keep back.
func (w *world) counts() (size, joins, first int) {
	if !w.redis.counted {
		return 0, 0, 0
	}
	return w.redis.size, w.redis.joins, w.redis.first
}

// reserve returns how many tokens a script keeps back.
func (w *world) reserve(l limit) int {
	size, _, _ := w.counts()
	if w.omit.Reserve {
		return 0
	}
	if size <= l.most {
		return size
	}
	if w.omit.ReserveOfMany {
		return 0
	}
	return l.most
}

// settle returns a bucket's value at Redis's time, in the units of a limit. It changes nothing in Redis.
func (w *world) settle(bucket int, l limit) *value {
	now := w.clock()
	previous := w.redis.values[bucket]
	size, joins, first := w.counts()
	reserve := w.reserve(l)
	if previous == nil || previous.ends <= now {
		start := l.capacity - reserve
		if w.omit.ReserveOfAFull {
			start = l.capacity
		}
		return &value{level: start * l.token, limit: l, joins: joins, size: size, other: w.other.capacity * w.other.token, at: now}
	}
	v := *previous
	v.leases = append(make([]lease, 0, maxLeases), previous.leases...)
	if v.limit != l {
		v.level = floorDiv(v.level*l.token, v.limit.token)
		v.limit = l
	}
	if w.omit.JoinsAfterLeases {
		w.subtractJoins(&v, size, joins, first)
	}
	if v.at > now {
		v.at = now
	}
	w.forgetLeases(&v)
	past := l.most // more gateways may have been registered then
	if w.omit.ReserveOfThePast {
		past = reserve
	}
	for len(v.leases) > 0 && v.leases[0].deadline <= now {
		w.refill(&v, past, v.leases[0].deadline, sumOf(v.leases))
		v.leases = v.leases[1:]
	}
	if !w.omit.JoinsAfterLeases {
		w.subtractJoins(&v, size, joins, first)
	}
	for i := range v.leases {
		if v.leases[i].deadline > now+w.leaseTime+maxLeases {
			v.leases[i].deadline = now + w.leaseTime + maxLeases
		}
	}
	w.refill(&v, reserve, now, sumOf(v.leases))
	if least := -l.most * l.token; v.level < least {
		v.level = least
	}
	if w.omit.DebtOfJoins && v.level < 0 {
		v.level = 0
	}
	v.joins, v.size = joins, size
	return &v
}

// subtractJoins takes the joins since the value was settled off its level.
func (w *world) subtractJoins(v *value, size, joins, first int) {
	lost := joins - v.joins
	if v.joins < first || v.joins > joins {
		lost = joins - first + v.limit.most // another registry, or none: any of its gateways may have a token
	}
	if joins == 0 {
		lost = 0
	}
	if w.omit.CountMembers || w.omit.GiveOnLeaving {
		lost = size - v.size
		if lost < 0 && !w.omit.GiveOnLeaving {
			lost = 0
		}
	}
	v.level = smaller(v.level, v.limit.capacity*v.limit.token) - lost*v.limit.token
}

// forgetLeases drops the longest leases of a larger limit, which end at their gateways.
func (w *world) forgetLeases(v *value) {
	for sumOf(v.leases).own >= v.limit.capacity {
		v.leases = v.leases[:len(v.leases)-1]
	}
	for sumOf(v.leases).other > w.other.capacity {
		v.leases = v.leases[:len(v.leases)-1]
	}
}

// leased is the tokens of leases, by the level that has paid for them.
type leased struct{ own, other int }

func sumOf(leases []lease) (sum leased) {
	for _, one := range leases {
		sum.own += one.tokens
		if one.both {
			sum.other += one.tokens
		}
	}
	return sum
}

// refill refills both levels until a time, up to what leases and the reserve leave of the capacity.
func (w *world) refill(v *value, reserve, time int, sum leased) {
	passed := time - v.at
	if passed < 0 {
		passed = 0
	}
	v.at += passed
	v.level = smaller(v.level+passed, larger(0, v.limit.capacity-reserve-sum.own)*v.limit.token)
	v.other = smaller(v.other+passed, larger(0, w.other.capacity-sum.other)*w.other.token)
}

func larger(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func smaller(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// save writes a value. Its key lives until no debt could have been left, and until its leases have ended.
func (w *world) save(bucket int, v *value) {
	missing := v.limit.capacity*v.limit.token - v.level
	debt := v.limit.pay()
	lives := 2 * (missing + debt)
	short := missing <= 2*debt || w.omit.TimeOfAnyEmpty
	switch {
	case !w.redis.counted && (len(v.leases) == 0 || w.omit.TimeOfEmptyLeases) && short:
		lives = missing
	case w.omit.TwiceTheTime:
		lives = missing + debt
	case w.omit.TimeOfDebt:
		lives = missing - w.reserve(v.limit)*v.limit.token
	}
	if untilFull := w.other.capacity*w.other.token - v.other; lives < untilFull {
		lives = untilFull
	}
	if len(v.leases) > 0 && !w.omit.TimeOfLeases {
		lives += v.leases[len(v.leases)-1].deadline - v.at
	}
	v.ends = w.clock() + lives + 1
	w.redis.values[bucket] = v
}

// ask is what a call asks of a bucket.
type ask struct {
	tokens int  // to take, or as many as there are
	lease  int  // tokens to lease at most
	both   bool // of both limits, each token of both or of none
	report bool // a standing token was used
	ended  int  // deadline of a lease that is given back; 0: none
	unused int  // of its tokens
}

// answer is what a call answers.
type answer struct {
	taken    int
	leased   int
	deadline int
	holds    bool // the level held the reported token
}

// take does what the scripts take and draw do.
func (w *world) take(bucket int, l limit, a ask) answer {
	v := w.settle(bucket, l)
	if a.ended != 0 {
		w.giveBack(v, a)
	}
	asked := a.tokens
	if a.report {
		asked++ // it comes last: where one is missing, the level does not hold it
	}
	got := answer{taken: w.available(v, a, asked)}
	w.subtract(v, a.both, got.taken)
	changed := got.taken != 0 || a.ended != 0
	if a.report && got.taken == asked {
		got.taken--
		got.holds = true
	}
	got.holds = got.holds || a.report && w.omit.LevelHolds
	if room := l.capacity - l.most - sumOf(v.leases).own; a.lease > 0 && len(v.leases) < maxLeases {
		if w.omit.ReserveOfLeases {
			room = l.capacity
		}
		if tokens := w.available(v, a, smaller(a.lease, room)); tokens > 0 {
			w.subtract(v, a.both, tokens)
			got.leased = tokens
			got.deadline = w.insertLease(v, tokens, a.both)
			changed = true
		}
	}
	if previous := w.redis.values[bucket]; changed || previous != nil && previous.at > w.clock() {
		w.save(bucket, v)
	}
	w.settled = v
	return got
}

// available returns how many of the tokens the levels have.
func (w *world) available(v *value, a ask, tokens int) int {
	tokens = smaller(tokens, floorDiv(v.level, v.limit.token))
	if a.both {
		tokens = smaller(tokens, floorDiv(v.other, w.other.token))
	}
	if tokens < 0 && !w.omit.ClampedTake {
		return 0
	}
	return tokens
}

func (w *world) subtract(v *value, both bool, tokens int) {
	v.level -= tokens * v.limit.token
	if both {
		v.other -= tokens * w.other.token
	}
}

// insertLease adds a lease, in order of deadline, and returns its deadline. No two leases have the same.
func (w *world) insertLease(v *value, tokens int, both bool) int {
	one := lease{deadline: v.at + w.leaseTime, tokens: tokens, both: both}
	place := 0
	for place < len(v.leases) && v.leases[place].deadline <= one.deadline {
		if v.leases[place].deadline == one.deadline {
			one.deadline++
		}
		place++
	}
	leases := append(append(append([]lease{}, v.leases[:place]...), one), v.leases[place:]...)
	v.leases = leases
	return one.deadline
}

// giveBack ends a lease.
func (w *world) giveBack(v *value, a ask) {
	for i, one := range v.leases {
		if one.deadline != a.ended {
			continue
		}
		v.leases = append(v.leases[:i], v.leases[i+1:]...)
		w.subtract(v, one.both, -smaller(a.unused, one.tokens))
		sum := sumOf(v.leases)
		v.level = smaller(v.level, larger(0, v.limit.capacity-w.reserve(v.limit)-sum.own)*v.limit.token)
		v.other = smaller(v.other, larger(0, w.other.capacity-sum.other)*w.other.token)
		return
	}
}
