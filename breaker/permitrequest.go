package breaker

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

const noPlaceFor = 50000 // microseconds for which a gateway remembers that there is no place for a probe

var errNoPermit = fmt.Errorf("%w: no permit in time", store.ErrUnavailable)

// PermitRequest is a permit that a request asks Redis for. It is settled once: by Redis's answer, or by the deadline, or
// because the request no longer needs it. The place of a permit that arrives after that is given back.
type PermitRequest struct {
	policy *Policy
	upload bool
	done   sync.WaitGroup // until it is settled

	// Guarded by the breaker's Mu.
	sent       bool // to Redis, or about to be
	settled    bool
	claimed    bool // Await or Cancel has dealt with it
	repeated   bool // its call was made again
	permit     Permit
	retryAfter time.Duration
	err        error
}

func newPermitRequest(policy *Policy, upload bool) *PermitRequest {
	p := &PermitRequest{policy: policy, upload: upload, err: errNoPermit}
	p.done.Add(1)
	return p
}

// RequestPermit asks for a permit for a request that also asks Redis for a token: PiggybackCall returns the call, so that
// both take one round trip. It returns nil if no permit is needed or none can be given; otherwise the caller must pass the
// result to Await or Cancel.
func (b *Breaker) RequestPermit(policy *Policy, upload bool, now int64) *PermitRequest {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.divergedLocally || b.machine.passes() || b.Store.IsUnavailable() {
		return nil
	}
	if _, refused := b.mustRefuseLocked(upload, now); refused {
		return nil
	}
	p := newPermitRequest(policy, upload)
	if b.pendingRequest == nil || b.pendingRequest.settled {
		b.pendingRequest = p
	}
	return p
}

// PiggybackCall returns a call to make in the round trip of other calls, or nil: the call for a requested permit, or a call
// that refreshes the view if the view is stale.
func (b *Breaker) PiggybackCall(now int64, policy *Policy) *store.Call {
	b.Mu.Lock() // only fields are read until it is unlocked: nothing can panic
	due := b.Store != nil && now >= b.View.Healthy && (b.divergedLocally || b.machine.state == stateClosed && (b.requestedAt == 0 || now-b.requestedAt >= freshFor))
	p := b.pendingRequest
	b.pendingRequest = nil
	if p != nil {
		p.sent = true
	}
	b.Mu.Unlock()
	if p != nil {
		return b.permitCall(p)
	}
	if !due {
		return nil
	}
	return b.viewCall(now, policy)
}

// Await waits for the permit, at most until the deadline. If no piggyback call has taken the request, Await makes a call.
func (b *Breaker) Await(p *PermitRequest, deadline time.Time) (Permit, time.Duration, error) {
	timer := time.AfterFunc(time.Until(deadline), func() {
		defer func() { recover() }()
		b.settle(p)
	})
	defer timer.Stop()
	if b.markSent(p) {
		go b.runPermitRequest(p)
	}
	p.done.Wait()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	p.claimed = true
	return p.permit, p.retryAfter, p.err
}

// Cancel says that the request does not pass. If Redis has given it a permit, the place is given back.
func (b *Breaker) Cancel(p *PermitRequest) {
	b.markSent(p)
	if !b.settle(p) {
		b.releasePlace(b.claim(p), p.policy)
	}
}

// CancelUnclaimed is Cancel, unless Await or Cancel was called before. A request may panic before it calls either.
func (b *Breaker) CancelUnclaimed(p *PermitRequest) {
	if !b.isClaimed(p) {
		b.Cancel(p)
	}
}

func (b *Breaker) claim(p *PermitRequest) Permit {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	p.claimed = true
	return p.permit
}

func (b *Breaker) isClaimed(p *PermitRequest) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return p.claimed
}

// markSent notes that the request is sent. It reports whether this call is the first: then the caller must send it.
func (b *Breaker) markSent(p *PermitRequest) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	first := !p.sent
	p.sent = true
	if b.pendingRequest == p {
		b.pendingRequest = nil
	}
	return first
}

// settle ends the wait for the permit, and reports whether this call ended it.
func (b *Breaker) settle(p *PermitRequest) bool {
	if !b.markSettled(p) {
		return false
	}
	p.done.Done()
	return true
}

func (b *Breaker) markSettled(p *PermitRequest) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	first := !p.settled
	p.settled = true
	return first
}

// runPermitRequest makes the call in the background: an answer that comes after the deadline must be dealt with too.
func (b *Breaker) runPermitRequest(p *PermitRequest) {
	defer func() {
		recover()
		b.settle(p)
	}()
	b.run(b.permitCall(p), time.Now().Add(b.Timeout))
}

func (b *Breaker) permitCall(p *PermitRequest) *store.Call {
	requestedAt := b.Now()
	call := &store.Call{Script: permitScript, Keys: b.keys, Args: withArgs(p.policy, newCallID(), boolArg(p.upload), b.gatewayArg(p.policy))}
	call.Then = func(c *store.Call) {
		b.applyUnlessLost(c, requestedAt, p.policy)
		b.settleWith(p, c, requestedAt)
	}
	return call
}

// settleWith settles the request with an answered call. A call without an answer may have taken a place in Redis: it is made
// again, under the same id, so that the place is found and given back.
func (b *Breaker) settleWith(p *PermitRequest, call *store.Call, requestedAt int64) {
	permit, retryAfter, err := b.readPermit(call, p.upload, requestedAt)
	late, unclear := b.noteAnswer(p, permit, retryAfter, err)
	if late {
		b.releasePlace(permit, p.policy)
	} else {
		p.done.Done()
	}
	if unclear {
		b.repeatAsync(call, b.repeatFor(1, p.policy)) // 1: the call may have made a probe
	}
}

// noteAnswer stores the answer unless the request was settled before: that is late. Answer and settled are set together, so
// that a caller which finds the request settled also finds its permit. unclear says that the call must be repeated.
func (b *Breaker) noteAnswer(p *PermitRequest, permit Permit, retryAfter time.Duration, err error) (late, unclear bool) {
	unclear = errors.Is(err, store.ErrUnavailable)
	b.Mu.Lock()
	defer b.Mu.Unlock()
	late = p.settled
	if !late {
		p.settled = true
		p.permit = permit
		p.retryAfter = retryAfter
		p.err = err
	}
	unclear = unclear && !p.repeated
	p.repeated = p.repeated || unclear
	return late, unclear
}

// readPermit reads the answer of the permit script.
func (b *Breaker) readPermit(call *store.Call, upload bool, requestedAt int64) (Permit, time.Duration, error) {
	if call.Err != nil {
		return Permit{}, 0, call.Err
	}
	if len(call.Reply) != replyLen {
		return Permit{}, 0, errBadReply
	}
	generation, probe := call.Reply[1], call.Reply[5]
	if call.Reply[0] == stateClosed || call.Reply[0] == stateRamp || probe != 0 {
		return Permit{generation: generation, probe: probe, upload: upload && probe != 0, requestedAt: requestedAt, counts: true}, 0, nil
	}
	if left := call.Reply[4]; left > 0 {
		return Permit{}, time.Duration(left) * time.Microsecond, nil
	}
	b.noteNoPlace(upload)
	return Permit{}, retryInASecond, nil
}

// noteNoPlace remembers for a moment that there is no place for a probe, or for an upload.
func (b *Breaker) noteNoPlace(upload bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if upload {
		b.noUploadPlaceUntil = b.Now() + noPlaceFor
	} else {
		b.noPlaceUntil = b.Now() + noPlaceFor
	}
}

// releasePlace gives back the place of a probe that is not sent.
func (b *Breaker) releasePlace(permit Permit, policy *Policy) {
	if permit.probe != 0 {
		b.Done(permit, Unknown, policy, 0)
	}
}
