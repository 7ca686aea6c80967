package standingmodel

// gateway is one process and the engine of one name in it. Its times are those of its clock.
type gateway struct {
	number int // another process has another number
	drift  int // of its clock, in thousandths
	behind int // what its clock lost while the machine was suspended
	dead   bool
	limit  limit

	registered bool // it has heard of its registration
	found      int  // how many gateways the answer to the last join has found
	joinedAt   int  // when that answer came
	permitted  bool // by that answer, for its limit
	begins     int  // from when on a renewal confirms the join
	confirmed  bool // one that was sent under its limit has: it may use standing tokens
	ends       int  // of the registration, as far as it knows
	pay        int  // W of the limit under which it was last sent
	name       int  // of the last join
	sent       int  // number of the last registration

	entries [][2]entry // by bucket and by route; without an omission all routes share the first
	leases  []held     // by bucket

	paused *pause // a request that has read the clock and stands still
}

// entry is what a gateway knows of its standing token of a bucket.
type entry struct {
	used       bool // and not known to be paid
	generation int  // how often it was used or became whole
	wholeSince int  // for the judge: the time of the answer that made it whole
}

// held is a lease that a gateway has.
type held struct {
	tokens, until, deadline int
	both                    bool
}

// pause is a request that was suspended after it had read the clock.
type pause struct{ clock, at int }

// clockOf returns what a gateway's clock says.
func (w *world) clockOf(g *gateway) int {
	return w.now*(1000+g.drift)/1000 + g.number*37 - g.behind
}

// allowance is how much of a duration a gateway does not count on: its clock may be slow.
func (w *world) allowance(duration int) int {
	if w.omit.Drift {
		return 0
	}
	return duration/20 + 1
}

// lastUse is when a gateway stops using standing tokens: what it has used must be refilled before Redis forgets it.
func (w *world) lastUse(g *gateway) int {
	if w.omit.StopBeforeEnd || w.omit.DoubleTime {
		return g.ends
	}
	return g.ends - g.pay - w.allowance(g.pay)
}

// mayUse reports whether a gateway may use standing tokens at a time of its clock.
func (w *world) mayUse(g *gateway, clock int) bool {
	return g.permitted && (g.confirmed || w.omit.Confirm) && clock >= g.begins && clock < w.lastUse(g)
}

// applyRegistration is the answer to a registration that the gateway sent at a time of its clock.
func (w *world) applyRegistration(g *gateway, m *message) {
	if m.sequence != g.sent {
		return // too late: the gateway has given up and sent another registration
	}
	clock := w.clockOf(g)
	late := g.registered && clock >= w.lastUse(g)
	if !m.found || late && !m.join && !w.omit.JoinAfterEnd {
		g.permitted, g.registered = false, false
		return
	}
	from := m.sentAt
	if w.omit.FromSending {
		from = clock
	}
	if ends := from + m.lasts - w.allowance(m.lasts); ends > g.ends || m.join {
		g.ends = ends
	}
	g.pay = m.limit.pay()
	g.registered = true
	if !m.join && (g.permitted || !w.omit.CountedJoin) {
		if g.permitted && !g.confirmed && m.sentAt >= g.begins && m.limit == g.limit {
			g.confirmed = true
			g.begins = clock // a request that read the clock before must not use them
		}
		return
	}
	g.found = m.size
	g.joinedAt = clock
	g.permitted = m.size <= g.limit.most || w.omit.MemberLimit
	if g.confirmed && w.omit.WaitAgain {
		return
	}
	g.confirmed = false
	g.begins = clock + w.waitFor(g.limit, m.size)
}

// waitFor returns how long a gateway waits after a join: until the tokens of all gateways are refilled.
func (w *world) waitFor(l limit, size int) int {
	switch {
	case w.omit.Wait:
		return 0
	case w.omit.WaitForAll:
		size = 1
	}
	return size*l.token + w.allowance(size*l.token)
}

// use passes a request by the standing token of a bucket, if the gateway has it at a time of its clock.
func (w *world) use(g *gateway, bucket, route, clock, at int) bool {
	e := &g.entries[bucket][route]
	if !w.mayUse(g, clock) || e.used {
		return false
	}
	e.used = true
	e.generation++
	w.standing++
	w.admit(bucket, 1, false, larger(at, e.wholeSince))
	w.note("gateway %d passes a request by its standing token of bucket %d", g.number, bucket)
	return true
}

// applyReport is the answer to a report. After the last use it makes nothing whole: a request that has read the clock before must not use it.
func (w *world) applyReport(g *gateway, m *message) {
	e := &g.entries[m.bucket][m.route]
	if w.clockOf(g) >= w.lastUse(g) && !w.omit.WholeAfterEnd {
		return
	}
	if m.answer.holds && (e.generation == m.generation || w.omit.Generation) && e.used {
		e.used = false
		e.generation++
		e.wholeSince = w.now
		w.note("the standing token of gateway %d and bucket %d is whole", g.number, m.bucket)
	}
}

// applyLease is the answer to an ask that leased tokens.
func (w *world) applyLease(g *gateway, m *message) {
	until := m.sentAt + w.leaseTime - w.allowance(w.leaseTime)
	if m.answer.leased > 0 && w.clockOf(g) < until {
		g.leases[m.bucket] = held{tokens: m.answer.leased, until: until, deadline: m.answer.deadline, both: m.ask.both}
	}
}

// load lets a gateway load another limit. What the answer to its last join has found permits that one too, or does not; it then waits for that one,
// and a renewal confirms a registration that is long enough.
func (w *world) load(g *gateway, l limit) {
	if g.limit == l {
		return
	}
	g.limit = l
	if !w.omit.JoinOnReload {
		g.permitted = g.registered && g.found <= l.most
	}
	g.begins = g.joinedAt + w.waitFor(l, g.found)
	g.confirmed = false
	w.note("gateway %d loads capacity %d, a token every %d ticks, M %d", g.number, l.capacity, l.token, l.most)
}
