// Package breaker is a circuit breaker shared through Redis by every gateway: what one has seen fail, all stop sending.
//
// The state is kept by Lua scripts, on Redis's clock. Each gateway has a view of it, which is at most 100 ms old
// when a request is let through on it, so that a healthy breaker costs next to nothing. While Redis is away, and where
// there is none, the same rules go on in this process, from what the view last said.
package breaker

import (
	"errors"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// In microseconds.
const (
	fresh    = 50000   // a view is used as it is until it is so old
	stale    = 100000  // and not at all from then on; between the two, one request has it refreshed
	noPlace  = 50000   // no place for a probe: asked again so much later
	recheck  = 1000000 // the view of an open circuit is refreshed so often
	oneRetry = time.Second
)

var (
	viewScript    = store.NewScript(view)
	permitScript  = store.NewScript(permit)
	sentScript    = store.NewScript(sent)
	reportScript  = store.NewScript(report)
	restoreScript = store.NewScript(restore)
)

// words is how many integers each script answers with.
const words = 7

var errBadReply = errors.New("breaker: the key in redis does not hold a breaker")

// Store runs scripts on Redis.
type Store interface {
	Run(calls []*store.Call, deadline time.Time) error
	Down() bool
	Lost() int64 // the number of the latest connection that there was when one was lost
}

// Settings of a breaker.
type Settings struct {
	Store   Store         // nil: the state is kept in this process
	Mu      *sync.Mutex   // guards the breaker and its view; nil: one of its own
	Key     string        // of the breaker in Redis
	Timeout time.Duration // for a call made beside requests
	// Now returns microseconds that only ever grow.
	Now func() int64
	// Changed is told, outside of any lock, of each change of state that this gateway makes or learns of.
	Changed func(from, to string)
}

// Breaker decides for one name. It is safe for concurrent use; no lock is held while Redis or the upstream works.
type Breaker struct {
	Settings
	View View
	keys []string

	// Guarded by Mu.
	machine     machine  // the view of the state in Redis, or the state itself while there is none
	asked       int64    // when Redis was asked for the view; 0: never
	heard       int64    // when it answered
	ours        bool     // the state was changed here since, while Redis was away
	asking      bool     // a refresh in the background is under way
	looking     *look    // that a request takes and others may wait for, or nil
	refusal     *Refusal // that holds, or nil
	full        int64    // half-open: until then there was no place for another probe
	fullUploads int64    // half-open: until then there was none for another upload
	conn        int64    // the latest connection that told of the state
	restoring   bool     // an open circuit that Redis has lost is being written back
	untold      untold   // that Redis could not be told of
	asks        *Asked   // a permit that is to go to Redis with another call, or nil
	shown       int64    // the view's generation
	passed      int64    // the latest arrival of a request that may have passed by an earlier view
	entered     int64    // requests that arrived since then passed under the view's generation
}

// look is a refresh that requests wait for. A crowd that finds the view too old takes one.
type look struct {
	deadline time.Time
	done     sync.WaitGroup // until what follows is there
	err      error
}

// Permit lets one request through. The zero value is that of a request that the breaker has no part in.
type Permit struct {
	generation int64
	probe      int64
	local      bool  // given by this process, not by Redis
	unasked    bool  // given by nobody: Redis could not be asked
	upload     bool  // the body of the request is still coming
	since      int64 // of an upload: when it was asked for
	counts     bool
}

// Probe tells whether the request is a probe: its verdict is due with its response headers.
func (p Permit) Probe() bool {
	return p.probe != 0
}

// New returns a breaker. It asks Redis nothing: the first request does.
func New(settings Settings) *Breaker {
	if settings.Mu == nil {
		settings.Mu = &sync.Mutex{}
	}
	b := &Breaker{Settings: settings, keys: []string{settings.Key}, View: View{Failing: make(chan struct{}, 1)}}
	b.show()
	return b
}

// View is what a request may read of a breaker without a call, which the interpreter makes dear. The times are microseconds by the
// breaker's Now.
type View struct {
	// Guarded by Mu.
	Healthy int64 // until when the circuit is known to be closed, and to have seen no failures; 0: it is not
	Open    int64 // until when the circuit is known to be open; 0: it is not

	// Failing is 1 long where the breaker is to be told of successes too. Only its length is read, which needs no lock.
	Failing chan struct{}
}

// Refusal is what an open circuit tells all requests, until it is open no more, or that number is another.
type Refusal struct {
	Seconds int64 // after which to come again
	// Holds is 1 long as long as it holds. Only its length is read, which needs neither a call nor a lock.
	Holds chan struct{}
}

// setLength makes a channel so long. Nobody else may be at it.
func setLength(c chan struct{}, length int64) {
	for int64(len(c)) < length {
		c <- struct{}{}
	}
	for int64(len(c)) > length {
		<-c
	}
}

// Passed returns the permit of a request that arrived at the time at and passed because the view said so. It counts for nothing if
// it may have passed under another generation: so a request passes without a word of the generation it passes under. One that
// arrived before the view changed may have passed after that. It counts if no earlier view let it pass.
func (b *Breaker) Passed(at int64) Permit {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if at < b.entered {
		return Permit{}
	}
	return Permit{generation: b.machine.generation, counts: true}
}

// show brings the view up to date. Mu is held.
func (b *Breaker) show() {
	healthy, refuses := int64(0), int64(0)
	if b.machine.state == closed && b.machine.failures == 0 {
		if b.Store == nil {
			healthy = math.MaxInt64
		} else if b.asked != 0 && !b.ours {
			healthy = b.asked + fresh
		}
	}
	if b.machine.state == open && (b.Store == nil || !b.ours) {
		refuses = b.machine.deadline
	}
	changed := b.machine.generation != b.shown
	if changed || healthy < b.View.Healthy {
		b.notePassed()
	}
	if changed {
		b.shown = b.machine.generation
		b.entered = b.passed
	}
	failing := int64(1)
	if healthy > 0 {
		failing = 0
	}
	setLength(b.View.Failing, failing)
	b.refuseNoMore(b.refusal)
	b.View.Healthy = healthy
	b.View.Open = refuses
}

// notePassed notes that requests may have passed until now by the view as it is. Mu is held.
func (b *Breaker) notePassed() {
	passed := b.Now()
	if b.View.Healthy < passed {
		passed = b.View.Healthy
	}
	if passed > b.passed {
		b.passed = passed
	}
}

// Refuse returns the refusal that holds at the time now, or nil where the circuit is not known to be open.
func (b *Breaker) Refuse(now int64) *Refusal {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	left := b.View.Open - now
	if left <= 0 {
		return nil
	}
	if b.refusal != nil {
		return b.refusal
	}
	refusal := &Refusal{Seconds: (left + 999999) / 1000000, Holds: make(chan struct{}, 1)}
	setLength(refusal.Holds, 1)
	b.refusal = refusal
	time.AfterFunc(time.Duration((left-1)%1000000+1)*time.Microsecond, func() {
		defer func() { recover() }()
		b.Mu.Lock()
		b.refuseNoMore(refusal)
		b.Mu.Unlock()
	})
	return refusal
}

// refuseNoMore ends a refusal, if it still holds. Mu is held.
func (b *Breaker) refuseNoMore(refusal *Refusal) {
	if refusal != nil && refusal == b.refusal {
		setLength(refusal.Holds, 0)
		b.refusal = nil
	}
}

// Renew tells whether the view, which has just become too old to be used as it is, may be used all the same: until it is
// twice that old, which it then says, while it is refreshed beside the requests.
func (b *Breaker) Renew(now int64, policy *Policy) bool {
	b.Mu.Lock()
	age := now - b.asked
	usable := b.machine.state == closed && b.machine.failures == 0 && b.asked != 0 && !b.ours && age < stale
	if usable && age >= fresh {
		b.View.Healthy = b.asked + stale
		b.renewBeside(now, policy)
	}
	b.Mu.Unlock()
	return usable
}

// Freshen has the view of a closed circuit refreshed beside the requests, if it is too old to be used as it is.
func (b *Breaker) Freshen(now int64, policy *Policy) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store != nil && b.machine.state == closed && !b.Store.Down() {
		b.renewBeside(now, policy)
	}
}

// renewBeside has the view refreshed beside the requests, if it is too old to be used as it is and nobody is at it. Mu is held.
func (b *Breaker) renewBeside(now int64, policy *Policy) {
	if !b.asking && now-b.asked >= fresh {
		b.asking = true
		go b.refreshBeside(policy)
	}
}

// Refuses tells, from what is known here, that no request may pass now, and for how long: none with a body that is still coming, if
// upload is true.
func (b *Breaker) Refuses(upload bool, now int64) (retryAfter time.Duration, refused bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.state == closed || b.superseded() {
		return 0, false
	}
	return b.refuses(upload, now)
}

// Probing tells that the circuit is not closed, as far as is known here: who passes is a probe.
func (b *Breaker) Probing() bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.machine.state != closed
}

// superseded tells whether the state was made here while Redis was away, and Redis is back: Redis rules. Mu is held.
func (b *Breaker) superseded() bool {
	return b.ours && b.Store != nil && !b.Store.Down()
}

func (b *Breaker) refuses(upload bool, now int64) (time.Duration, bool) {
	if b.machine.state == closed {
		return 0, false
	}
	if wait := b.machine.wait(now); wait > 0 {
		return time.Duration(wait) * time.Microsecond, true
	}
	return oneRetry, now < b.full || upload && now < b.fullUploads
}

// Rider returns a call to go to Redis with another, or nil: one that asks for a permit which a request needs, or one that refreshes the
// view where that is due.
func (b *Breaker) Rider(now int64, policy *Policy) *store.Call {
	b.Mu.Lock()
	due := b.Store != nil && now >= b.View.Healthy && (b.ours || b.machine.state == closed && (b.asked == 0 || now-b.asked >= fresh))
	a := b.asks
	b.asks = nil
	if a != nil {
		a.sent = true
	}
	b.Mu.Unlock()
	if a != nil {
		return b.permitCall(a)
	}
	if !due {
		return nil
	}
	return b.viewCall(now, policy)
}

func (b *Breaker) viewCall(now int64, policy *Policy) *store.Call {
	call := &store.Call{Script: viewScript, Keys: b.keys, Args: policy.args}
	call.Then = func(c *store.Call) { b.learn(c, now, policy) }
	return call
}

// Recheck sees to it that an open circuit does not stay so for longer than the policy says, and has its view refreshed in the
// background once a second: the policy of another gateway may be shorter, and the key may have been deleted.
func (b *Breaker) Recheck(now int64, policy *Policy) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.state != open {
		return
	}
	deadline := b.machine.deadline
	b.machine.cut(now, policy)
	isCut := b.machine.deadline != deadline
	if isCut {
		b.show()
	}
	if b.Store != nil && !b.ours && !b.asking && (isCut || now-b.asked >= recheck) && !b.Store.Down() {
		b.asking = true
		go b.refreshBeside(policy)
	}
}

// Allow asks for a permit, from the view where that is fresh enough, else from Redis. upload says that the request has a body
// that is still coming. Where not allowed, retryAfter says when to come again. The error, which comes by the deadline, wraps
// store.ErrUnavailable or is the script's own.
func (b *Breaker) Allow(policy *Policy, upload bool, now int64, deadline time.Time) (permit Permit, retryAfter time.Duration, err error) {
	if b.Store == nil {
		permit, retryAfter = b.AllowLocal(policy, upload, now)
		return permit, retryAfter, nil
	}
	if err := b.refresh(policy, now, deadline); err != nil {
		return Permit{}, 0, err
	}
	now = b.Now() // the view may be newer than the request
	b.Mu.Lock()
	if b.machine.state == closed {
		permit = Permit{generation: b.machine.generation, counts: true}
		b.Mu.Unlock()
		return permit, 0, nil
	}
	retryAfter, refused := b.refuses(upload, now)
	b.Mu.Unlock()
	if refused {
		return Permit{}, retryAfter, nil
	}
	return b.Await(newAsked(policy, upload), deadline)
}

// Last decides as Redis last said, for a request that it has not answered in time although it is there. Where that is not known,
// or Redis is away, known is false.
func (b *Breaker) Last(now int64) (permit Permit, retryAfter time.Duration, known bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.asked == 0 || b.ours || b.Store.Down() {
		return Permit{}, 0, false
	}
	if b.machine.state == closed {
		return Permit{generation: b.machine.generation, counts: true}, 0, true
	}
	if wait := b.machine.wait(now); wait > 0 {
		return Permit{}, time.Duration(wait) * time.Microsecond, true
	}
	return Permit{}, oneRetry, true
}

// refresh sees to it that a closed view is not too old.
func (b *Breaker) refresh(policy *Policy, now int64, deadline time.Time) error {
	b.Mu.Lock()
	age := now - b.asked
	known := b.asked != 0 && !b.ours
	if known && (b.machine.state != closed || age < fresh) {
		b.Mu.Unlock()
		return nil
	}
	if known && age < stale {
		b.renewBeside(now, policy)
		b.Mu.Unlock()
		return nil
	}
	l := b.looking
	if l != nil && !l.deadline.After(deadline) {
		b.Mu.Unlock()
		l.done.Wait()
		return l.err
	}
	l = &look{deadline: deadline, err: store.ErrUnavailable}
	l.done.Add(1)
	b.looking = l
	b.Mu.Unlock()
	b.look(l, policy)
	return l.err
}

// look takes a look at the state in Redis.
func (b *Breaker) look(l *look, policy *Policy) {
	defer func() {
		b.Mu.Lock()
		if b.looking == l {
			b.looking = nil
		}
		b.Mu.Unlock()
		l.done.Done()
	}()
	l.err = b.run(b.viewCall(b.Now(), policy), l.deadline)
}

func (b *Breaker) refreshBeside(policy *Policy) {
	defer func() {
		recover()
		b.Mu.Lock()
		b.asking = false
		b.Mu.Unlock()
	}()
	b.run(b.viewCall(b.Now(), policy), time.Now().Add(b.Timeout))
}

// run runs one call and has its answer learnt.
func (b *Breaker) run(call *store.Call, deadline time.Time) error {
	b.Store.Run([]*store.Call{call}, deadline)
	if call.Err == nil && len(call.Reply) != words {
		call.Err = errBadReply
	}
	store.Finish(call)
	return call.Err
}

// learn takes the answer of a script for the view, unless a later one is known, or Redis has lost what it knew.
func (b *Breaker) learn(call *store.Call, asked int64, policy *Policy) {
	if call.Err == nil && len(call.Reply) == words && !b.restoreLost(call, policy) {
		b.take(call, asked, policy)
	}
}

// take takes the answer of a script for the view, unless a later one is known.
func (b *Breaker) take(call *store.Call, asked int64, policy *Policy) {
	if call.Err == nil && len(call.Reply) == words {
		before, after := b.taken(call, asked, policy)
		b.tell(before, after)
	}
}

func (b *Breaker) taken(call *store.Call, asked int64, policy *Policy) (before, after int64) {
	now := b.Now()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	m := &b.machine
	before = m.state
	generation := call.Reply[1]
	// Redis may have answered in another order than this gateway heard. A generation lower than the known one is a new
	// truth (Redis lost its data) only if it was asked for after the known one had come.
	if asked < b.heard && (generation < m.generation || generation == m.generation && asked < b.asked) {
		return before, before
	}
	b.asked, b.heard, b.ours = asked, now, false
	if call.Conn > b.conn {
		b.conn = call.Conn
	}
	m.state, m.generation, m.failures, m.successes = call.Reply[0], generation, call.Reply[2], call.Reply[3]
	m.deadline = asked + call.Reply[4]
	m.issued = 0
	m.probes = map[int64]int64{}
	m.uploads = map[int64]int64{}
	b.tellUntold(policy)
	b.show()
	return before, m.state
}

func (b *Breaker) tell(before, after int64) {
	if before != after && b.Changed != nil {
		b.Changed(stateNames[before], stateNames[after])
	}
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func digits(n int64) string {
	return strconv.FormatInt(n, 10)
}
