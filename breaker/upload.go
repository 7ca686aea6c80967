package breaker

import (
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Upload tells whether the request is a probe with a body that is still coming: its time counts from when Sent is told.
func (p Permit) Upload() bool { return p.upload }

// Late tells whether an upload has been under way for longer than a probe may take: it has given its place back.
func (b *Breaker) BodyLate(permit Permit, policy *Policy) bool {
	return b.Now()-permit.requestedAt >= policy.probeTimeout
}

// Sent tells that the body of an upload has been sent whole. It waits for Redis. Where it is late, it takes a place again if there
// is one, and its verdict must not be told before Sent has returned.
func (b *Breaker) BodySent(permit Permit, late bool, policy *Policy) {
	if b.Store == nil || permit.local || b.Store.IsUnavailable() {
		b.bodySentLocal(permit, late, policy)
		return
	}
	asked := b.Now()
	call := &store.Call{
		Script: bodySentScript, Keys: b.keys, Args: withArgs(policy, intArg(permit.generation), intArg(permit.probe), boolArg(late)),
	}
	call.Then = func(c *store.Call) { b.applyUnlessLost(c, asked, policy) }
	b.run(call, time.Now().Add(b.Timeout))
}
