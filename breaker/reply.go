package breaker

import (
	"errors"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// errBadReply says that the key does not hold what a breaker's script writes.
var errBadReply = errors.New("breaker: the key in redis does not hold a breaker")

// run makes one call by the deadline and applies its reply.
func (b *Breaker) run(call *store.Call, deadline time.Time) error {
	b.Store.Run([]*store.Call{call}, deadline)
	if call.Err == nil && len(call.Reply) != replyLen {
		call.Err = errBadReply
	}
	store.Finish(call)
	return call.Err
}

// applyUnlessLost applies a script's reply, unless it shows that Redis has lost an open circuit: that is written back.
// requestedAt is when the call was made.
func (b *Breaker) applyUnlessLost(call *store.Call, requestedAt int64, policy *Policy) {
	if call.Err == nil && len(call.Reply) == replyLen && !b.restoreLost(call, policy) {
		b.apply(call, requestedAt, policy)
	}
}

// apply applies a script's reply, unless a later one has been applied.
func (b *Breaker) apply(call *store.Call, requestedAt int64, policy *Policy) {
	if call.Err == nil && len(call.Reply) == replyLen {
		before, after := b.applyReply(call, requestedAt, policy)
		b.notifyChange(before, after)
	}
}

// applyReply copies a reply into the machine and the view, and returns the states before and after.
func (b *Breaker) applyReply(call *store.Call, requestedAt int64, policy *Policy) (before, after int64) {
	now := b.Now()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	m := &b.machine
	before = m.state
	generation := call.Reply[1]
	// Replies may arrive in another order than Redis made them. A lower generation is that of a Redis which lost its data only
	// if it was asked for after the known generation had arrived.
	if requestedAt < b.answeredAt && (generation < m.generation || generation == m.generation && requestedAt < b.requestedAt) {
		return before, before
	}
	b.requestedAt, b.answeredAt, b.divergedLocally = requestedAt, now, false
	if call.Conn > b.latestConn {
		b.latestConn = call.Conn
	}
	m.state, m.generation, m.failures, m.successes = call.Reply[0], generation, call.Reply[2], call.Reply[3]
	m.deadline = requestedAt + call.Reply[4]
	m.repeats = call.Reply[7]
	m.forced = call.Reply[8]
	m.forcedFor = call.Reply[4]
	m.recent = nil
	m.window = nil
	m.gateways = nil
	if m.state == stateClosed && m.failures > 0 && policy.rules.FailureAge > 0 {
		m.recent = addToSlots(nil, policy.rules.FailureAge.Microseconds(), slot{failed: m.failures}, requestedAt) // as if they had just happened
	}
	m.issued = 0
	m.probes = map[int64]int64{}
	m.uploads = map[int64]int64{}
	m.holders = map[int64]string{}
	b.reportUnreportedLocked(policy)
	b.publishLocked()
	return before, m.state
}

func (b *Breaker) notifyChange(before, after int64) {
	if before != after && b.Changed != nil {
		b.Changed(stateNames[before], stateNames[after])
	}
}
