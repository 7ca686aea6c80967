package breaker

import "sort"

// The states, as the scripts number them.
//
//	closed     All requests pass. failureThreshold consecutive failures: open.
//	open       No request passes. The first request after resetTimeout: half-open.
//	half-open  Up to maxProbes requests pass at a time, as probes. successThreshold successes: closed. As many failures as
//	           the rules say, usually one: open. A probe without an answer within probeTimeout is a failure. A probe whose body is still being received is an upload:
//	           it loses its place after probeTimeout, and becomes an ordinary probe when its body has ended.
//	ramp       With a rampDuration it comes between half-open and closed. A share of the requests passes that rises until then.
//	           A failure opens it, as one of a probe.
const (
	stateClosed   = 0
	stateOpen     = 1
	stateHalfOpen = 2
	stateRamp     = 3
)

// stateNames are the states as Redis holds them.
var stateNames = []string{"closed", "open", "half-open", "ramp"}

// machine is a breaker in this process. It holds what the scripts hold in Redis and follows the same rules, on this
// process's clock in microseconds. The zero value is a closed breaker. It is not safe for concurrent use.
type machine struct {
	state      int64
	generation int64            // grows with each change of state; at least the time of the change
	failures   int64            // closed: consecutive; half-open: failed probes
	recent     []slot           // closed, with failureAge: the same failures by their time
	window     []slot           // closed, with ratios: the outcomes of the last window by their time
	gateways   []sighting       // with minGateways: those that saw failures lately in this state, or slow answers with slowRatio
	repeats    int64            // how often it has opened again since it was closed, if that makes resetTimeout longer
	successes  int64            // half-open
	deadline   int64            // open: when the first probe may pass; ramp: when it is closed; while the state is forced: when that ends
	forced     int64            // forcedOpen or forcedClosed, if an operator has made the state; else 0
	forcedFor  int64            // microseconds from then to the deadline
	issued     int64            // half-open: the number of the last probe
	probes     map[int64]int64  // deadlines of the probes under way, by number
	uploads    map[int64]int64  // the same for probes whose body is still being received
	holders    map[int64]string // with minGateways: the gateways whose probes they are, by number
}

// acquire asks to send a request of a gateway; upload says that its body is still being received. The request may pass if the machine
// is closed afterwards, or as the probe of the returned number if that is not 0.
func (m *machine) acquire(upload bool, gateway string, now int64, p *Policy) int64 {
	m.advance(now, p)
	if m.state == stateOpen && now >= m.deadline {
		m.enter(stateHalfOpen, now)
	}
	if m.state != stateHalfOpen {
		return 0
	}
	if !upload {
		m.evictUploads(p)
	}
	if !m.hasPlace(p) || upload && !m.hasPlaceForUpload(p) {
		return 0
	}
	m.issued++
	if upload {
		m.uploads[m.issued] = now + p.probeTimeout
	} else {
		m.probes[m.issued] = now + p.probeTimeout
	}
	m.noteHolder(m.issued, gateway, p)
	return m.issued
}

// noteHolder notes whose probe it is, where the number of gateways counts.
func (m *machine) noteHolder(probe int64, gateway string, p *Policy) {
	if p.rules.MinGateways > 1 && gateway != "" {
		m.holders[probe] = gateway
	}
}

// passes reports whether requests pass that are no probes.
func (m *machine) passes() bool { return m.state == stateClosed || m.state == stateRamp }

// endUpload notes that the body of a gateway's upload has been sent completely: its probeTimeout starts now. late says that the
// upload has lost its place: it takes another one if there is one.
func (m *machine) endUpload(generation, probe int64, late bool, gateway string, now int64, p *Policy) {
	m.advance(now, p)
	if generation != m.generation || m.state != stateHalfOpen {
		return
	}
	if m.uploads[probe] != 0 {
		delete(m.uploads, probe)
		m.probes[probe] = now + p.probeTimeout
	} else if late && m.probes[probe] == 0 && m.hasPlace(p) {
		m.probes[probe] = now + p.probeTimeout
		m.noteHolder(probe, gateway, p)
	}
}

// report counts outcomes of requests that passed under the generation: of the probe, or of ordinary requests if probe is 0.
func (m *machine) report(generation, probe int64, t tally, now int64, p *Policy) {
	m.advance(now, p)
	if generation != m.generation {
		return
	}
	if m.state == stateClosed && probe == 0 && m.forced == 0 {
		m.countClosed(t, now, p)
	}
	if m.state == stateRamp && probe == 0 && t.run > 0 {
		m.failProbe(t.gateway, now, now, p)
	}
	if m.state == stateHalfOpen && (m.probes[probe] != 0 || m.uploads[probe] != 0) {
		m.judgeProbe(probe, t, now, p)
	}
}

func (m *machine) countClosed(t tally, now int64, p *Policy) {
	m.failures = m.pending(now, p)
	most := int64(0) // failures in a row that were counted in bulk
	if t.requests > 0 {
		most = m.failures + t.first
		if t.longest > most {
			most = t.longest
		}
		if p.Counts() {
			m.window = addToSlots(m.window, p.rules.Window.Microseconds(), slot{requests: t.requests, failed: t.failed, slow: t.slow}, now)
		}
	}
	if t.succeeded {
		m.failures = 0
		m.recent = nil
	}
	m.failures += t.run
	if t.run > 0 && p.rules.FailureAge > 0 {
		m.recent = addToSlots(m.recent, p.rules.FailureAge.Microseconds(), slot{failed: t.run}, now)
	}
	if m.failures > most {
		most = m.failures
	}
	affected := t.run > 0 || t.failed > 0 || p.rules.SlowRatio > 0 && t.slow > 0
	enough := m.enoughGateways(t.gateway, affected, now, p)
	if enough && (p.failureThreshold > 0 && most >= p.failureThreshold || m.reachesRatio(now, p)) {
		m.trip(now, now, p)
	}
}

// reachesRatio reports whether enough of the window's requests have failed, or were slow.
func (m *machine) reachesRatio(now int64, p *Policy) bool {
	if !p.Counts() {
		return false
	}
	sum := sumOf(m.window, p.rules.Window.Microseconds(), now)
	if sum.requests < p.rules.MinimumRequests {
		return false
	}
	return p.rules.FailureRatio > 0 && sum.failed*100 >= p.rules.FailureRatio*sum.requests ||
		p.rules.SlowRatio > 0 && sum.slow*100 >= p.rules.SlowRatio*sum.requests
}

// pending returns the failures in a row that are not too old.
func (m *machine) pending(now int64, p *Policy) int64 {
	if m.state != stateClosed || p.rules.FailureAge == 0 {
		return m.failures
	}
	sum := sumOf(m.recent, p.rules.FailureAge.Microseconds(), now)
	if sum.failed < m.failures {
		return sum.failed
	}
	return m.failures
}

func (m *machine) judgeProbe(probe int64, t tally, now int64, p *Policy) {
	delete(m.probes, probe)
	delete(m.uploads, probe)
	delete(m.holders, probe)
	if t.run > 0 {
		m.failProbe(t.gateway, now, now, p)
		return
	}
	if !t.succeeded {
		return
	}
	m.successes++
	if m.successes < p.successThreshold {
		return
	}
	if p.rules.Ramp > 0 {
		m.enter(stateRamp, now)
		m.deadline = now + p.rules.Ramp.Microseconds()
	} else {
		m.enter(stateClosed, now)
	}
}

// failProbe counts a probe of a gateway that failed at the time since, if enough gateways have failed. The last one that may fail opens the
// circuit.
func (m *machine) failProbe(gateway string, since, now int64, p *Policy) {
	if !m.enoughGateways(gateway, true, now, p) {
		return
	}
	m.failures++
	if m.failures >= p.rules.HalfOpenFailures {
		m.trip(since, now, p)
	}
}

// advance applies the changes that need only time: deadlines that have passed, and deadlines that are too far away because
// the clock was set back.
func (m *machine) advance(now int64, p *Policy) {
	m.capDeadline(now, p)
	if m.forced == forcedClosed && m.deadline <= now {
		m.forced = 0
		m.deadline = 0
	}
	if m.state == stateRamp {
		m.advanceRamp(now, p)
	}
	if m.state != stateHalfOpen {
		return
	}
	for n, deadline := range m.uploads {
		if deadline > now+p.probeTimeout {
			m.uploads[n] = now + p.probeTimeout
		} else if deadline <= now {
			delete(m.uploads, n)
			delete(m.holders, n)
		}
	}
	var lost []lostProbe
	for n, deadline := range m.probes {
		if deadline <= now {
			lost = append(lost, lostProbe{n: n, at: deadline, gateway: m.holderOf(n)})
			delete(m.probes, n)
			delete(m.holders, n)
		} else if deadline > now+p.probeTimeout {
			m.probes[n] = now + p.probeTimeout
		}
	}
	sort.Slice(lost, func(i, j int) bool {
		return lost[i].at < lost[j].at || lost[i].at == lost[j].at && lost[i].n < lost[j].n
	})
	for _, probe := range lost {
		if m.state == stateHalfOpen {
			m.failProbe(probe.gateway, probe.at, now, p)
		}
	}
}

// lostProbe is a probe without an answer at its deadline.
type lostProbe struct {
	n, at   int64
	gateway string
}

// holderOf returns the gateway whose probe has a number.
func (m *machine) holderOf(n int64) string {
	if holder := m.holders[n]; holder != "" {
		return holder
	}
	return "unknown"
}

// capDeadline keeps an open machine open for at most its whole time from now: the clock may have been set back, or the
// policy may have changed.
func (m *machine) capDeadline(now int64, p *Policy) {
	if m.forced != 0 {
		if m.deadline > now+m.forcedFor {
			m.deadline = now + m.forcedFor
		}
		return
	}
	if m.state != stateOpen {
		return
	}
	if latest := now + p.openFor(m.generation, m.repeats); m.deadline > latest {
		m.deadline = latest
	}
}

// remaining returns how many microseconds are left until the deadline of a machine that is open, forced or in a ramp; else 0.
func (m *machine) remaining(now int64) int64 {
	if m.state != stateOpen && m.state != stateRamp && m.forced == 0 || m.deadline <= now {
		return 0
	}
	return m.deadline - now
}

func (m *machine) hasPlace(p *Policy) bool {
	return int64(len(m.probes)+len(m.uploads)) < p.maxProbes
}

// hasPlaceForUpload reports whether there is a place for another upload: one place is kept for requests without a body. If
// there is a single place, one upload may take it.
func (m *machine) hasPlaceForUpload(p *Policy) bool {
	return len(m.uploads) == 0 || int64(len(m.uploads)) < p.maxProbes-1
}

// evictUploads frees a place if uploads hold all of them: the oldest upload loses its place.
func (m *machine) evictUploads(p *Policy) {
	for int64(len(m.uploads)) >= p.maxProbes {
		oldest := m.issued
		for n := range m.uploads {
			if n < oldest {
				oldest = n
			}
		}
		delete(m.uploads, oldest)
		delete(m.holders, oldest)
	}
}

// trip opens the circuit as of the time since, which may lie before now.
func (m *machine) trip(since, now int64, p *Policy) {
	repeats := m.repeats
	if (m.state == stateHalfOpen || m.state == stateRamp) && p.rules.Backoff != sameReset {
		repeats++
	}
	m.enter(stateOpen, now)
	m.repeats = repeats
	m.deadline = since + p.openFor(m.generation, repeats)
}

func (m *machine) enter(state, now int64) {
	m.state = state
	m.generation++
	if now > m.generation {
		m.generation = now
	}
	if state == stateClosed {
		m.repeats = 0
	}
	m.forced = 0
	m.forcedFor = 0
	m.failures = 0
	m.recent = nil
	m.window = nil
	m.gateways = nil
	m.successes = 0
	m.deadline = 0
	m.issued = 0
	m.probes = map[int64]int64{}
	m.uploads = map[int64]int64{}
	m.holders = map[int64]string{}
}
