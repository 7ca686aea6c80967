package resilience

import (
	"context"
	"net/http"
	"sort"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/identity"
)

// Requests are counted where a middleware of the present configuration has an admin block, and each request once, by what was decided. The
// fast path counts in captured variables under the lock that it holds anyway (R3); the slow path counts in the tally of the engines.

// What is decided about a request.
const (
	decidedAdmitted = iota
	decidedLimited
	decidedOpen
	decidedDenied
	decidedUnavailable
	decidedWouldLimit // a dry run lets it pass
	decidedWouldOpen
	decidedLeft // the client left while its request waited for tokens
)

// decisionNames are the decisions as labels.
var decisionNames = []string{"admitted", "limited", "circuit_open", "denied", "unavailable", "would_limit", "would_open", "left"}

// The classes of failures of a service.
const (
	failedStatus      = "status"      // it answered with a status of failure
	failedUnreachable = "unreachable" // Traefik answered 502 or 500: no connection, or a broken one
	failedTimeout     = "timeout"     // Traefik answered 504
	failedHang        = "hang"        // no response headers within hangTimeout
	failedCut         = "cut"         // its answer broke off
)

var failureClasses = []string{failedStatus, failedUnreachable, failedTimeout, failedHang, failedCut}

// fastCounts is what a fast path has counted. A fast path whose start is set begins to count.
type fastCounts struct {
	start    bool
	admitted int64
	refused  int64 // requests of the default limit's empty buckets
	open     int64
}

// fastReader reads the counts of one fast path.
type fastReader struct {
	ctx    context.Context // of its handler
	counts bool            // it has begun to count
	read   func(c *fastCounts)
	sample func() // has the duration of the next request measured; the lock is held
}

// tally is the counts of all middlewares that share engines. It outlives a reload with them.
type tally struct {
	lock sync.Locker // the engines'; guards what the fast paths count, and is taken inside summing

	summing sync.Mutex // guards what follows
	on      bool
	readers []*fastReader
	past    fastCounts // of fast paths that a reload has replaced

	generations []<-chan struct{} // of the contexts of the last three configurations, the latest first

	mu          sync.Mutex // guards what follows
	decisions   []int64
	limited     map[string]int64 // by limit, without those that a fast path counts
	failures    map[string]int64 // by class
	fallbacks   int64
	transitions map[string]int64 // of the middleware's own circuit, by state before and after, with a blank between
	durations   *histogram
	recent      []transition
	refused     *topClients
}

// transition is a change of a circuit's state that this gateway made or learned of.
type transition struct {
	from, to string
	scope    string // as it may be shown; "": the middleware's own circuit
	at       int64  // microseconds since start
}

// maxTransitions is how many changes of state a tally remembers.
const maxTransitions = 32

// upstreamBuckets are the upper bounds of the histogram of the service's durations, in seconds.
var upstreamBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

func newTally(lock sync.Locker) *tally {
	return &tally{
		lock: lock, decisions: make([]int64, len(decisionNames)), limited: map[string]int64{}, failures: map[string]int64{},
		transitions: map[string]int64{}, durations: newHistogram(upstreamBuckets), refused: newTopClients(),
	}
}

// histogram counts durations by upper bounds. Whoever has it guards it.
type histogram struct {
	bounds []float64
	counts []int64 // one more than bounds
	sum    float64
}

func newHistogram(bounds []float64) *histogram {
	return &histogram{bounds: bounds, counts: make([]int64, len(bounds)+1)}
}

func (h *histogram) observe(seconds float64) {
	h.counts[sort.SearchFloat64s(h.bounds, seconds)]++
	h.sum += seconds
}

// setOn says whether the present configuration has an admin block. If so, all its fast paths count from now on.
func (t *tally) setOn(on bool) {
	t.summing.Lock()
	defer t.summing.Unlock()
	t.on = on
	if on {
		for _, one := range t.readers {
			t.startOne(one)
		}
	}
}

// add adds a fast path, and forgets those that no request reaches any more: they keep their handlers in memory.
func (t *tally) add(one *fastReader) {
	t.summing.Lock()
	defer t.summing.Unlock()
	t.forget(one.ctx.Done())
	t.readers = append(t.readers, one)
	if t.on {
		t.startOne(one)
	}
}

// forget forgets fast paths of replaced configurations: of all where nothing is counted, and otherwise of those before the last two. The last
// one may still answer requests, and requests may be under way to the one before. latest belongs to the configuration that is being made.
// The caller holds summing.
func (t *tally) forget(latest <-chan struct{}) {
	if t.isRecent(latest) {
		return // once for each configuration: it visits all routes
	}
	t.generations = append([]<-chan struct{}{latest}, t.generations...)
	if len(t.generations) > 3 {
		t.generations = t.generations[:3]
	}
	kept := []*fastReader{}
	for _, one := range t.readers {
		if one.ctx.Err() == nil || one.counts && t.isRecent(one.ctx.Done()) {
			kept = append(kept, one)
		} else if one.counts {
			t.readOne(one, &t.past)
		}
	}
	t.readers = kept
}

func (t *tally) isRecent(done <-chan struct{}) bool {
	for i := range t.generations { // R37
		if t.generations[i] == done {
			return true
		}
	}
	return false
}

// startOne has a fast path count, unless it does or a reload has replaced it.
func (t *tally) startOne(one *fastReader) {
	if !one.counts && one.ctx.Err() == nil {
		one.counts = true
		t.readOne(one, &fastCounts{start: true})
	}
}

func (t *tally) readOne(one *fastReader, c *fastCounts) {
	t.lock.Lock()
	defer t.lock.Unlock()
	one.read(c)
}

// replace keeps the counts of the fast paths of a configuration that was replaced, and forgets them.
func (t *tally) replace(done <-chan struct{}) {
	t.summing.Lock()
	defer t.summing.Unlock()
	kept := []*fastReader{}
	for _, one := range t.readers {
		if one.ctx.Done() == done {
			t.readOne(one, &t.past)
		} else {
			kept = append(kept, one)
		}
	}
	t.readers = kept
}

// fast returns what all fast paths have counted. It holds the lock for one of them at a time.
func (t *tally) fast() fastCounts {
	t.summing.Lock()
	defer t.summing.Unlock()
	sum := t.past
	for _, one := range t.readers {
		t.readOne(one, &sum)
	}
	return sum
}

// startCounting has a copy of a middleware count from zero: the original's counts are read by themselves.
func (m *Middleware) startCounting() {
	m.sampling = false
	m.asked = 0
	m.renewed = 0
	m.openRefused = nil
}

// countFast adds the fast path of a middleware to the tally.
func (m *Middleware) countFast() {
	counters := m.counters
	read := func(c *fastCounts) {
		if c.start || m.counting {
			counters(c)
		}
		if c.start {
			m.counting = true
			m.renewed = 0
		} else if m.counting {
			c.admitted += m.asked
			c.refused -= m.renewed
			if m.openRefused != nil {
				c.open += m.openRefused()
			}
		}
	}
	m.tally.add(&fastReader{ctx: m.ctx, read: read, sample: func() { m.sampleLocked() }})
}

// countedRequest is what counting needs to know of a request on the slow path.
type countedRequest struct {
	decision int   // what is counted if it is forwarded: decidedAdmitted, or what a dry run would have done
	fallback bool  // it was decided without Redis
	sampled  bool  // its duration is measured
	begun    int64 // when it was forwarded
}

// wouldRefuse notes what a dry run would have done to a request that passes. What comes first counts, as without a dry run.
func (s *slowRequest) wouldRefuse(decision int) {
	if s.counted.decision == decidedAdmitted {
		s.counted.decision = decision
	}
}

// decide counts a decision on the slow path.
func decide(m *Middleware, decision int) {
	t := m.tally
	t.mu.Lock()
	t.decisions[decision]++
	t.mu.Unlock()
}

// decideLimited counts a refusal by a limit on the slow path.
func decideLimited(m *Middleware, limit string) {
	t := m.tally
	t.mu.Lock()
	t.decisions[decidedLimited]++
	t.limited[limit]++
	t.mu.Unlock()
}

// countByPlan counts a refusal by a limit of a plan.
func countByPlan(m *Middleware, s *slowRequest, limit string) {
	decideLimited(m, limit)
	m.countRefused(limit, m.keyRefusedBy(limit, s.r), 1, s.now)
}

// keyRefusedBy returns the key of a request's client for a limit of a plan: a limit may have another key source than the block.
func (m *Middleware) keyRefusedBy(limit string, r *http.Request) string {
	key := m.route.KeyOf(limit, r)
	if key == "" {
		key = m.bucketKeyOf(r)
	}
	return key
}

// countFallback counts a request that was decided without Redis, once.
func countFallback(m *Middleware, s *slowRequest) {
	if m.counting && !s.counted.fallback {
		s.counted.fallback = true
		t := m.tally
		t.mu.Lock()
		t.fallbacks++
		t.mu.Unlock()
	}
}

// countFailure counts a failure of the service.
func countFailure(m *Middleware, x *exchange) {
	class := classOf(x)
	t := m.tally
	t.mu.Lock()
	t.failures[class]++
	t.mu.Unlock()
}

// classOf returns the class of a failure.
func classOf(x *exchange) string {
	switch {
	case x.hung:
		return failedHang
	case !x.finished:
		return failedCut
	case x.status == http.StatusGatewayTimeout && x.byTraefik():
		return failedTimeout
	case x.status >= http.StatusInternalServerError && x.byTraefik():
		return failedUnreachable
	}
	return failedStatus
}

// forwardCounted is slowForward where requests are counted.
func forwardCounted(m *Middleware, s *slowRequest) {
	if m.policy != nil && !s.closed && !s.unasked {
		slowPermit(m, s)
		return
	}
	decide(m, s.counted.decision)
	if s.counted.sampled {
		forwardMeasured(m, s)
	} else if m.policy == nil || s.unasked {
		m.next.ServeHTTP(s.w, s.r)
	} else {
		forward(m, s.w, s.r, s.closedAt)
	}
}

// forwardMeasured forwards a request whose duration is measured. It is a separate function because a defer costs also where it is not reached.
func forwardMeasured(m *Middleware, s *slowRequest) {
	s.counted.begun = m.now()
	defer measured(m, s)
	if m.policy == nil || s.unasked {
		m.next.ServeHTTP(s.w, s.r)
		return
	}
	forward(m, s.w, s.r, s.closedAt)
}

// measured notes the duration of a request that was forwarded.
func measured(m *Middleware, s *slowRequest) {
	seconds := float64(m.now()-s.counted.begun) / 1e6
	t := m.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	t.durations.observe(seconds)
}

// countAsked counts a request on the fast path that got its token from Redis.
func countAsked(m *Middleware) {
	m.mu.Lock()
	m.asked++
	m.mu.Unlock()
}

// Durations are those of a sample of the requests: measuring takes longer than counting. Ten times a second each fast path takes the next
// request for one to be checked, and it is forwarded by the slow path.

// sampleInterval is the time between two samples of a route.
const sampleInterval = 100 * time.Millisecond

// sampleLocked has the duration of the next request measured. A route whose requests are all checked is not sampled: its parts are.
func (m *Middleware) sampleLocked() {
	if m.counting && !m.checks && !m.sampling {
		m.sampling = true
		m.setFast(true, nil)
	}
}

// sampledLocked serves a request whose duration is measured. It releases the lock.
func sampledLocked(m *Middleware, w http.ResponseWriter, r *http.Request) {
	m.sampling = false
	if m.checks {
		checkedLocked(m, w, r)
		return
	}
	m.setFast(false, nil)
	serveSlowLocked(m, &slowRequest{w: w, r: r, now: m.now(), counted: countedRequest{sampled: true}})
}

// sample has each fast path that counts measure a request.
func (t *tally) sample() {
	t.summing.Lock()
	defer t.summing.Unlock()
	if t.on {
		for _, one := range t.readers {
			t.sampleOne(one)
		}
	}
}

func (t *tally) sampleOne(one *fastReader) {
	t.lock.Lock()
	defer t.lock.Unlock()
	one.sample()
}

// changed notes a change of a circuit's state. Those of scopes are not counted: together they would look like one circuit that flaps.
func (t *tally) changed(from, to, scope string, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if scope == "" {
		t.transitions[from+" "+to]++
	}
	t.recent = append(t.recent, transition{from, to, scope, now})
	if len(t.recent) > maxTransitions {
		t.recent = t.recent[1:]
	}
}

// noteInterval is how often the refusals of one client by the fast path are noted, in microseconds.
func (m *Middleware) noteInterval() int64 {
	if m.counting {
		return 1000000
	}
	return refusalLogInterval
}

// ownLimitExceeded is the reason of a refusal by the block's own limit, where it has no others.
const ownLimitExceeded = "rate limit exceeded"

// countRefused counts refusals of a client by a limit, for the list of those refused most.
func (m *Middleware) countRefused(limit, key string, refusals int, now int64) {
	t := m.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused.add(key, limit, int64(refusals), now)
}

// known returns the key of a client whose value is given by its SHA-256, and true, if the client is among those refused most. The SHA-256 is
// that of the list, or that of a limit's keys in Redis.
func (t *tally) known(key string) (string, bool) {
	if !isHashed(key) {
		return key, false
	}
	t.mu.Lock()
	copies := t.refused.copies(0)
	t.mu.Unlock()
	for _, one := range copies {
		if shownKey(one.key) == key || identity.Hashed(one.key) == key {
			return one.key, true
		}
	}
	return key, false
}
