package breaker

import (
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// restoreLost reports whether a reply shows that Redis has lost an open circuit, or one that was made by hand, and then writes the circuit back in
// the background. The circuit was lost if, on a connection made after another connection broke, the key is missing, or holds a
// closed circuit from before the opening: a replica that lagged has become the master. What was made by hand is lost whatever the
// state before it was. If no connection broke since the circuit was last seen, an operator deleted the key. A circuit that is half-open or past its deadline is not written back:
// others may have closed it since this gateway last saw it.
func (b *Breaker) restoreLost(call *store.Call, policy *Policy) bool {
	now := b.Now()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	m := &b.machine
	isOpen := (m.state == stateOpen || m.forced != 0) && !b.divergedLocally && m.deadline > now
	isOlder := call.Reply[6] == 1 || call.Reply[1] < m.generation
	isLost := isOlder && (call.Reply[0] == stateClosed || m.forced != 0)
	if !isOpen || !isLost || call.Conn <= b.latestConn || b.Store.Lost() < b.latestConn {
		return false
	}
	if !b.restoring {
		b.restoring = true
		go b.runRestore(policy, call.Reply[1], m.generation)
	}
	return true
}

// runRestore writes the open circuit of a generation back with the rest of its time. found is the generation of the hash that
// replaced it.
func (b *Breaker) runRestore(policy *Policy, found, generation int64) {
	defer func() {
		recover()
		b.Mu.Lock()
		defer b.Mu.Unlock()
		b.restoring = false
	}()
	requestedAt := b.Now()
	deadline, repeats, forced := b.openUntil()
	left := deadline - requestedAt
	if left <= 0 {
		return
	}
	call := &store.Call{Script: restoreScript, Keys: b.keys, Args: withArgs(policy, intArg(found), intArg(left), intArg(repeats), forced, intArg(generation))}
	call.Then = func(c *store.Call) { b.apply(c, requestedAt, policy) }
	b.run(call, time.Now().Add(b.Timeout))
}

func (b *Breaker) openUntil() (deadline, repeats int64, forced string) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.machine.deadline, b.machine.repeats, forcedNames[b.machine.forced]
}
