package breaker

import (
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// restoreLost reports whether a reply shows that Redis has lost an open circuit, and then writes the circuit back in the
// background. The circuit was lost if the key is missing on a connection made after another connection broke. If none broke
// since the circuit was last seen, an operator deleted the key. A circuit that is half-open or past its deadline is not written back:
// others may have closed it since this gateway last saw it.
func (b *Breaker) restoreLost(call *store.Call, policy *Policy) bool {
	now := b.Now()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	m := &b.machine
	isOpen := m.state == stateOpen && !b.divergedLocally && m.deadline > now
	isMissing := call.Reply[0] == stateClosed && call.Reply[6] == 1
	if !isOpen || !isMissing || call.Conn <= b.latestConn || b.Store.Lost() < b.latestConn {
		return false
	}
	if !b.restoring {
		b.restoring = true
		go b.runRestore(policy, call.Reply[1])
	}
	return true
}

// runRestore writes the open circuit back with the rest of its time. generation is that of the hash that replaced it.
func (b *Breaker) runRestore(policy *Policy, generation int64) {
	defer func() {
		recover()
		b.Mu.Lock()
		defer b.Mu.Unlock()
		b.restoring = false
	}()
	requestedAt := b.Now()
	left := b.openUntil() - requestedAt
	if left <= 0 {
		return
	}
	call := &store.Call{Script: restoreScript, Keys: b.keys, Args: withArgs(policy, intArg(generation), intArg(left))}
	call.Then = func(c *store.Call) { b.apply(c, requestedAt, policy) }
	b.run(call, time.Now().Add(b.Timeout))
}

func (b *Breaker) openUntil() int64 {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.machine.deadline
}
