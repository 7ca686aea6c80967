package standingmodel

import "fmt"

// world is Redis, the gateways in front of it and the messages between them.
type world struct {
	omit   Omit
	random random

	limits    [2]limit // before and after a reload; usually the same
	other     limit    // the further limit of requests under both
	longest   int      // that a registration lasts
	leaseTime int
	routes    int  // of a gateway, each with a table
	single    bool // no request is under both limits
	delayed   int  // tenths of the messages, and of the answers, that do not arrive at once

	now      int // the time by which the judge counts
	step     int // by which Redis's clock is ahead
	redis    database
	settled  *value // by the last call for a bucket
	replica  database
	gateways []*gateway
	last     int // number of the last gateway
	names    int // of joins
	queue    []*message

	admitted [][]admission // by bucket
	others   [][]admission // those under the other limit
	standing int           // requests that passed by standing tokens
	failures []failure
	reloads  span // from the first gateway that loads the other limit to the last call under the first limit

	weights [actions]int // how often the adversary takes each action
	total   int

	trace []string
	noted bool // the trace is wanted

	observe func(m *message) // is called when Redis has processed a message; nil: nobody observes
}

// admission is requests that passed at a time.
type admission struct{ at, tokens int }

// failure is an event after which a bucket may pass more tokens than its limit allows, in windows that touch its time.
type failure struct {
	name   string
	span   span
	tokens int // 0: as many as a fresh bucket has
}

type span struct{ from, until int }

// message is a call of a gateway on its way to Redis, or the answer on its way back.
type message struct {
	gateway   *gateway
	sentAt    int // by the gateway's clock
	processed bool

	// A registration.
	sequence int // 0: a call for a bucket
	name     int
	lasts    int
	join     bool
	replaced int // name of the last join
	size     int
	found    bool

	// A call for a bucket.
	bucket, route int
	generation    int // of the entry whose use it reports
	limit         limit
	ask           ask
	answer        answer
}

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	if w.noted {
		w.trace = append(w.trace, fmt.Sprintf("%6d  ", w.now)+fmt.Sprintf(format, args...))
	}
}

// admit counts requests of a bucket that passed at a time.
func (w *world) admit(bucket, tokens int, both bool, at int) {
	if tokens <= 0 {
		return
	}
	w.admitted[bucket] = append(w.admitted[bucket], admission{at: at, tokens: tokens})
	if both {
		w.others[bucket] = append(w.others[bucket], admission{at: at, tokens: tokens})
	}
}

// fail notes that windows from now on may have more tokens, until no gateway knows anything from before.
func (w *world) fail(name string, tokens int) {
	until := w.now + larger(w.longest, w.leaseTime)
	w.failures = append(w.failures, failure{name: name, span: span{w.now, until}, tokens: tokens})
	w.note("%s", name)
}

// process lets Redis process a message.
func (w *world) process(m *message) {
	m.processed = true
	if w.observe != nil {
		defer w.observe(m)
	}
	g := m.gateway
	if m.sequence > 0 {
		m.size, m.found = w.register(m)
		w.note("redis registers gateway %d as %d, join %v: %d gateways, found %v, J %d", g.number, m.name, m.join, m.size, m.found, w.redis.joins)
		return
	}
	if w.reloads.from >= 0 && m.limit == w.limits[0] {
		w.reloads.until = w.now
	}
	m.answer = w.take(m.bucket, m.limit, m.ask)
	w.admit(m.bucket, m.answer.taken, m.ask.both, w.now)
	if w.noted {
		v := w.settled
		w.note("redis takes from bucket %d for gateway %d: %+v, %+v; level %d of %d, other %d, reserve %d", m.bucket, g.number, m.ask, m.answer,
			v.level, v.limit.capacity*v.limit.token, v.other, w.reserve(v.limit))
	}
}

// apply gives a gateway an answer.
func (w *world) apply(m *message) {
	if m.gateway.dead {
		return
	}
	if m.sequence > 0 {
		w.applyRegistration(m.gateway, m)
		w.note("gateway %d hears: %d gateways, permitted %v from %d to %d, confirmed %v, its clock says %d", m.gateway.number, m.size, m.gateway.permitted,
			m.gateway.begins, w.lastUse(m.gateway), m.gateway.confirmed, w.clockOf(m.gateway))
		return
	}
	if m.ask.report {
		w.applyReport(m.gateway, m)
	}
	w.applyLease(m.gateway, m)
}

// lose loses a message or its answer.
func (w *world) lose(m *message) {
	if w.omit.StayOwed && m.ask.report && !m.gateway.dead {
		e := &m.gateway.entries[m.bucket][m.route]
		if e.generation == m.generation {
			e.used = false
		}
	}
}

// send sends a message, which often arrives at once.
func (w *world) send(m *message) {
	m.sentAt = w.clockOf(m.gateway)
	if w.random.Intn(10) < w.delayed {
		w.queue = append(w.queue, m)
		return
	}
	w.process(m)
	if w.random.Intn(10) < w.delayed {
		w.queue = append(w.queue, m)
		return
	}
	w.apply(m)
}

// deliver moves a message on, or loses it.
func (w *world) deliver(i int, lost bool) {
	m := w.queue[i]
	if m.processed || lost {
		w.queue = append(w.queue[:i], w.queue[i+1:]...)
	}
	switch {
	case lost:
		w.lose(m)
	case m.processed:
		w.apply(m)
	default:
		w.process(m)
	}
}

// registration returns a gateway's next registration: a join, or a renewal if the gateway knows its registration.
func (w *world) registration(g *gateway) *message {
	m := &message{gateway: g, limit: g.limit, lasts: g.limit.lasts, join: !g.permitted, sentAt: w.clockOf(g)}
	if w.omit.CountedJoin {
		m.join = !g.registered
	}
	if m.join && (g.name == 0 || !w.omit.NewName) {
		m.replaced = g.name
		w.names++
		g.name = w.names
	}
	g.sent++
	m.sequence, m.name = g.sent, g.name
	return m
}

// newGateway starts a process.
func (w *world) newGateway(l limit) *gateway {
	w.last++
	g := &gateway{number: w.last, drift: w.random.Intn(41) - 20, limit: l}
	g.entries = make([][2]entry, len(w.redis.values))
	g.leases = make([]held, len(w.redis.values))
	return g
}
