package breaker

import (
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Upload reports whether the request is a probe whose body is still being received: its probeTimeout starts at BodySent.
func (p Permit) Upload() bool { return p.upload }

// BodyLate reports whether an upload has been under way for longer than probeTimeout: it has lost its place.
func (b *Breaker) BodyLate(permit Permit, policy *Policy) bool {
	return b.Now()-permit.requestedAt >= policy.probeTimeout
}

// BodySent says that the body of an upload has been sent completely, and waits for Redis for at most Timeout. An upload that
// is late takes another place if there is one: its outcome must not be reported before BodySent has returned.
func (b *Breaker) BodySent(permit Permit, late bool, policy *Policy) {
	if b.Store == nil || permit.local || b.Store.IsUnavailable() {
		b.bodySentLocal(permit, late, policy)
		return
	}
	requestedAt := b.Now()
	call := &store.Call{
		Script: bodySentScript, Keys: b.keys,
		Args: withArgs(policy, intArg(permit.generation), intArg(permit.probe), boolArg(late), b.gatewayArg(policy)),
	}
	call.Then = func(c *store.Call) { b.applyUnlessLost(c, requestedAt, policy) }
	b.run(call, time.Now().Add(b.Timeout))
}
