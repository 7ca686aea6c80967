package breaker

// The states, as the scripts number them.
//
//	closed     all requests pass. failureThreshold failures in a row: open
//	open       none passes. resetTimeout later, at the next request: half-open
//	half-open  probes pass, so many at once. halfOpenSuccessThreshold successes: closed. One failure, or a probe
//	           that has no answer within probeTimeout: open. A probe whose body is still coming is an upload: it gives its
//	           place back after probeTimeout, and becomes an ordinary probe when its body has ended
const (
	stateClosed   = 0
	stateOpen     = 1
	stateHalfOpen = 2
)

var stateNames = []string{"closed", "open", "half-open"}

// machine is a breaker in this process: what the scripts keep in Redis, with the same rules, on this process's clock in
// microseconds. Its zero value is a closed breaker.
type machine struct {
	state      int64
	generation int64
	failures   int64
	successes  int64
	deadline   int64
	issued     int64
	probes     map[int64]int64 // deadlines of the probes under way
	uploads    map[int64]int64 // and of those whose body is still coming
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

// open enters the open state as of the time entered, which may lie before now.
func (m *machine) trip(entered, now int64, p *Policy) {
	m.enter(stateOpen, now)
	m.deadline = entered + p.resetTimeout
}

// settle brings the machine up to now.
func (m *machine) advance(now int64, p *Policy) {
	m.capDeadline(now, p)
	if m.state != stateHalfOpen {
		return
	}
	for n, due := range m.uploads {
		if due > now+p.probeTimeout {
			m.uploads[n] = now + p.probeTimeout
		} else if due <= now {
			delete(m.uploads, n)
		}
	}
	lost := int64(-1)
	for n, due := range m.probes {
		if due <= now && (lost < 0 || due < lost) {
			lost = due
		} else if due > now+p.probeTimeout {
			m.probes[n] = now + p.probeTimeout
		}
	}
	if lost >= 0 {
		m.trip(lost, now, p)
	}
}

// cut has an open machine stay so no longer than the policy says: a clock was set back, or the policy is another.
func (m *machine) capDeadline(now int64, p *Policy) {
	if m.state == stateOpen && m.deadline > now+p.resetTimeout {
		m.deadline = now + p.resetTimeout
	}
}

// permit asks to send a request, with a body that is still coming if upload is true: it may pass if the machine is closed
// afterwards, or as the probe of the number returned, if that is not 0.
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

func (m *machine) hasPlace(p *Policy) bool {
	return int64(len(m.probes)+len(m.uploads)) < p.maxProbes
}

// hasPlaceForUpload tells whether uploads leave a place to others still, or whether there is only one place anyway.
func (m *machine) hasPlaceForUpload(p *Policy) bool {
	return len(m.uploads) == 0 || int64(len(m.uploads)) < p.maxProbes-1
}

// takeOver takes a place from uploads that hold all places: from the oldest.
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

// sent tells that the body of a probe has been sent whole: from now on its time counts. A late one has been under way for
// longer than probeTimeout: it takes a place again if there is one.
func (m *machine) bodySent(generation, probe int64, late bool, now int64, p *Policy) {
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

// report tells what became of requests that were let through under the given generation: of a probe, or where probe is
// 0, of others: whether one succeeded, and how many failed after it.
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

// wait returns the microseconds until the deadline of an open machine, else 0.
func (m *machine) remaining(now int64) int64 {
	if m.state != stateOpen || m.deadline <= now {
		return 0
	}
	return m.deadline - now
}
