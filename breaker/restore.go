package breaker

import (
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// restoreLost reports whether Redis has lost an open circuit, and has it written back then. It was lost if the key is missing on a
// connection that was made after another one broke. Where none broke since one told of the circuit, somebody deleted the key. A circuit
// that is half-open or past its deadline begins anew: others may have closed it since this gateway heard of it.
func (b *Breaker) restoreLost(call *store.Call, policy *Policy) bool {
	now := b.Now()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	m := &b.machine
	known := m.state == stateOpen && !b.divergedLocally && m.deadline > now
	missing := call.Reply[0] == stateClosed && call.Reply[6] == 1
	if !known || !missing || call.Conn <= b.latestConn || b.Store.Lost() < b.latestConn {
		return false
	}
	if !b.restoring {
		b.restoring = true
		go b.restore(policy, call.Reply[1])
	}
	return true
}

// restore writes an open circuit back that Redis has lost, with the rest of its time. generation is that of the hash which is there
// instead.
func (b *Breaker) restore(policy *Policy, generation int64) {
	defer func() {
		recover()
		b.Mu.Lock()
		b.restoring = false
		b.Mu.Unlock()
	}()
	asked := b.Now()
	b.Mu.Lock()
	left := b.machine.deadline - asked
	b.Mu.Unlock()
	if left <= 0 {
		return
	}
	call := &store.Call{Script: restoreScript, Keys: b.keys, Args: withArgs(policy, intArg(generation), intArg(left))}
	call.Then = func(c *store.Call) { b.apply(c, asked, policy) }
	b.run(call, time.Now().Add(b.Timeout))
}
