package breaker

// sighting says when a gateway last saw failures, or slow answers.
type sighting struct {
	gateway string
	at      int64
}

const lately = 60 * 1000000 // microseconds for which a sighting counts where there is no window

// enoughGateways reports whether enough gateways have seen failures lately, or slow answers with a SlowRatio. It notes the one that reports, if
// it has.
func (m *machine) enoughGateways(gateway string, affected bool, now int64, p *Policy) bool {
	if p.rules.MinGateways < 2 {
		return true
	}
	since := now - lately
	if p.Counts() {
		since = now - p.rules.Window.Microseconds()
	}
	var live []sighting
	for _, s := range m.gateways {
		if s.at > since && s.at <= now && !(affected && s.gateway == gateway) {
			live = append(live, s)
		}
	}
	if !affected {
		return int64(len(live)) >= p.rules.MinGateways
	}
	live = append(live, sighting{gateway: gateway, at: now})
	enough := int64(len(live)) >= p.rules.MinGateways
	if enough {
		live = live[int64(len(live))-p.rules.MinGateways:]
	}
	m.gateways = live
	return enough
}

// Join gives a breaker the gateway's own circuit, which is kept in this process: the view of the fleet's circuit is healthy only while the
// gateway's own is. Both have the same lock. It must be called before either is used.
func Join(fleet, own *Breaker) {
	fleet.ownHealthyLocked = func() bool { return own.View.Healthy > 0 }
	fleet.ownPassesLocked = func(n int64, policy *Policy) {
		own.counts = true
		own.counted.add(Success, n)
		own.reportSoonLocked(policy)
	}
	own.publishedLocked = func() { fleet.publishLocked() }
	fleet.closeOwnLocked = func() { own.restartLocked() }
	fleet.renewOwnLocked = func() {
		if own.machine.state == stateClosed { // what made the fleet's circuit open is not to open this one later
			own.restartLocked()
		}
	}
}

// isForcedClosedLocked reports whether an operator has closed the circuit.
func (b *Breaker) isForcedClosedLocked() bool {
	return b.machine.forced == forcedClosed && b.machine.deadline > b.Now()
}

// restartLocked closes a gateway's own circuit, and forgets what it has counted. What requests under way report counts nothing.
func (b *Breaker) restartLocked() {
	before := b.machine.state
	b.machine.enter(stateClosed, b.Now())
	b.publishLocked()
	if before != stateClosed {
		go b.runNotify(before)
	}
}

// runNotify tells that a circuit was closed: its lock is held meanwhile.
func (b *Breaker) runNotify(before int64) {
	defer func() { recover() }()
	b.notifyChange(before, stateClosed)
}
