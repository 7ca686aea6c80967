package breaker

// The states, as the scripts number them.
//
//	closed     All requests pass. failureThreshold consecutive failures: open.
//	open       No request passes. The first request after resetTimeout: half-open.
//	half-open  Up to maxProbes requests pass at a time, as probes. successThreshold successes: closed. One failure, or a
//	           probe without an answer within probeTimeout: open. A probe whose body is still being received is an upload:
//	           it loses its place after probeTimeout, and becomes an ordinary probe when its body has ended.
const (
	stateClosed   = 0
	stateOpen     = 1
	stateHalfOpen = 2
)

// stateNames are the states as Redis holds them.
var stateNames = []string{"closed", "open", "half-open"}

// machine is a breaker in this process. It holds what the scripts hold in Redis and follows the same rules, on this
// process's clock in microseconds. The zero value is a closed breaker. It is not safe for concurrent use.
type machine struct {
	state      int64
	generation int64           // grows with each change of state; at least the time of the change
	failures   int64           // closed: consecutive
	successes  int64           // half-open
	deadline   int64           // open: when the first probe may pass
	issued     int64           // half-open: the number of the last probe
	probes     map[int64]int64 // deadlines of the probes under way, by number
	uploads    map[int64]int64 // the same for probes whose body is still being received
}

// acquire asks to send a request; upload says that its body is still being received. The request may pass if the machine
// is closed afterwards, or as the probe of the returned number if that is not 0.
func (m *machine) acquire(upload bool, now int64, p *Policy) int64 {
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
	return m.issued
}

// endUpload notes that the body of an upload has been sent completely: its probeTimeout starts now. late says that the
// upload has lost its place: it takes another one if there is one.
func (m *machine) endUpload(generation, probe int64, late bool, now int64, p *Policy) {
	m.advance(now, p)
	if generation != m.generation || m.state != stateHalfOpen {
		return
	}
	if m.uploads[probe] != 0 {
		delete(m.uploads, probe)
		m.probes[probe] = now + p.probeTimeout
	} else if late && m.probes[probe] == 0 && m.hasPlace(p) {
		m.probes[probe] = now + p.probeTimeout
	}
}

// report counts outcomes of requests that passed under the generation: of the probe, or of ordinary requests if probe is 0.
// succeeded says that one succeeded; failed is how many failed after it.
func (m *machine) report(generation, probe int64, succeeded bool, failed int64, now int64, p *Policy) {
	m.advance(now, p)
	if generation != m.generation {
		return
	}
	if m.state == stateClosed && probe == 0 {
		m.countClosed(succeeded, failed, now, p)
	}
	if m.state == stateHalfOpen && (m.probes[probe] != 0 || m.uploads[probe] != 0) {
		m.judgeProbe(probe, succeeded, failed, now, p)
	}
}

func (m *machine) countClosed(succeeded bool, failed int64, now int64, p *Policy) {
	if succeeded {
		m.failures = 0
	}
	m.failures += failed
	if m.failures >= p.failureThreshold {
		m.trip(now, now, p)
	}
}

func (m *machine) judgeProbe(probe int64, succeeded bool, failed int64, now int64, p *Policy) {
	if failed > 0 {
		m.trip(now, now, p)
		return
	}
	delete(m.probes, probe)
	delete(m.uploads, probe)
	if !succeeded {
		return
	}
	m.successes++
	if m.successes >= p.successThreshold {
		m.enter(stateClosed, now)
	}
}

// advance applies the changes that need only time: deadlines that have passed, and deadlines that are too far away because
// the clock was set back.
func (m *machine) advance(now int64, p *Policy) {
	m.capDeadline(now, p)
	if m.state != stateHalfOpen {
		return
	}
	for n, deadline := range m.uploads {
		if deadline > now+p.probeTimeout {
			m.uploads[n] = now + p.probeTimeout
		} else if deadline <= now {
			delete(m.uploads, n)
		}
	}
	lost := int64(-1)
	for n, deadline := range m.probes {
		if deadline <= now && (lost < 0 || deadline < lost) {
			lost = deadline
		} else if deadline > now+p.probeTimeout {
			m.probes[n] = now + p.probeTimeout
		}
	}
	if lost >= 0 {
		m.trip(lost, now, p)
	}
}

// capDeadline keeps an open machine open for at most resetTimeout from now: the clock may have been set back, or the policy
// may have changed.
func (m *machine) capDeadline(now int64, p *Policy) {
	if m.state == stateOpen && m.deadline > now+p.resetTimeout {
		m.deadline = now + p.resetTimeout
	}
}

// remaining returns how many microseconds an open machine stays open; 0 if it is not open.
func (m *machine) remaining(now int64) int64 {
	if m.state != stateOpen || m.deadline <= now {
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
	}
}

// trip opens the circuit as of the time since, which may lie before now.
func (m *machine) trip(since, now int64, p *Policy) {
	m.enter(stateOpen, now)
	m.deadline = since + p.resetTimeout
}

func (m *machine) enter(state, now int64) {
	m.state = state
	m.generation++
	if now > m.generation {
		m.generation = now
	}
	m.failures = 0
	m.successes = 0
	m.deadline = 0
	m.issued = 0
	m.probes = map[int64]int64{}
	m.uploads = map[int64]int64{}
}
