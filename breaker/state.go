package breaker

// The states, as the scripts number them.
//
//	closed     all requests pass. failureThreshold failures in a row: open
//	open       none passes. resetTimeout later, at the next request: half-open
//	half-open  probes pass, so many at once. halfOpenSuccessThreshold successes: closed. One failure, or a probe
//	           that has no answer within probeTimeout: open
const (
	closed   = 0
	open     = 1
	halfOpen = 2
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
}

// open enters the open state as of the time entered, which may lie before now.
func (m *machine) open(entered, now int64, p *Policy) {
	m.enter(open, now)
	m.deadline = entered + p.resetTimeout
}

// settle brings the machine up to now.
func (m *machine) settle(now int64, p *Policy) {
	if m.state == open && m.deadline > now+p.resetTimeout {
		m.deadline = now + p.resetTimeout
	}
	if m.state != halfOpen {
		return
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
		m.open(lost, now, p)
	}
}

// permit asks to send a request: it may pass if the machine is closed afterwards, or as the probe of the number
// returned, if that is not 0.
func (m *machine) permit(now int64, p *Policy) int64 {
	m.settle(now, p)
	if m.state == open && now >= m.deadline {
		m.enter(halfOpen, now)
	}
	if m.state != halfOpen || int64(len(m.probes)) >= p.maxProbes {
		return 0
	}
	m.issued++
	m.probes[m.issued] = now + p.probeTimeout
	return m.issued
}

// report tells what became of requests that were let through under the given generation: of a probe, or where probe is
// 0, of others: whether one succeeded, and how many failed after it.
func (m *machine) report(generation, probe int64, succeeded bool, failed int64, now int64, p *Policy) {
	m.settle(now, p)
	if generation != m.generation {
		return
	}
	if m.state == closed && probe == 0 {
		m.count(succeeded, failed, now, p)
	}
	if m.state == halfOpen && m.probes[probe] != 0 {
		m.judge(probe, succeeded, failed, now, p)
	}
}

func (m *machine) count(succeeded bool, failed int64, now int64, p *Policy) {
	if succeeded {
		m.failures = 0
	}
	m.failures += failed
	if m.failures >= p.failureThreshold {
		m.open(now, now, p)
	}
}

func (m *machine) judge(probe int64, succeeded bool, failed int64, now int64, p *Policy) {
	if failed > 0 {
		m.open(now, now, p)
		return
	}
	delete(m.probes, probe)
	if !succeeded {
		return
	}
	m.successes++
	if m.successes >= p.successThreshold {
		m.enter(closed, now)
	}
}

// wait returns the microseconds until the deadline of an open machine, else 0.
func (m *machine) wait(now int64) int64 {
	if m.state != open || m.deadline <= now {
		return 0
	}
	return m.deadline - now
}
