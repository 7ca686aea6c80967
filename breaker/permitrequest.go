package breaker

import (
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Asked is a permit that a request asks Redis for. What comes too late for the request gives its place back.
type PermitRequest struct {
	policy *Policy
	upload bool
	done   sync.WaitGroup // done when the answer is there, or when nobody waits for it any more

	// Guarded by the breaker's Mu.
	sent       bool // to Redis
	settled    bool // settled
	claimed    bool // by Await or Forgo
	repeated   bool
	permit     Permit
	retryAfter time.Duration
	err        error
}

var errNoPermit = fmt.Errorf("%w: no permit in time", store.ErrUnavailable)

func newPermitRequest(policy *Policy, upload bool) *PermitRequest {
	a := &PermitRequest{policy: policy, upload: upload, err: errNoPermit}
	a.done.Add(1)
	return a
}

// Ask asks for a permit for a request that also asks Redis for a token. Rider returns the call, which goes with the token's: both take
// one round trip. Ask returns nil where no permit is needed, or there is none. What it returns goes to Await or to Forgo.
func (b *Breaker) RequestPermit(policy *Policy, upload bool, now int64) *PermitRequest {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.divergedLocally || b.machine.state == stateClosed || b.Store.IsUnavailable() {
		return nil
	}
	if _, refused := b.mustRefuseLocked(upload, now); refused {
		return nil
	}
	a := newPermitRequest(policy, upload)
	if b.pendingRequest == nil || b.pendingRequest.settled {
		b.pendingRequest = a
	}
	return a
}

// Await waits until the permit is there, and no longer than the deadline. It asks for one that has not gone with another call.
func (b *Breaker) Await(a *PermitRequest, deadline time.Time) (Permit, time.Duration, error) {
	timer := time.AfterFunc(time.Until(deadline), func() {
		defer func() { recover() }()
		b.settle(a)
	})
	defer timer.Stop()
	if b.markSent(a) {
		go b.runPermitRequest(a)
	}
	a.done.Wait()
	b.Mu.Lock()
	defer b.Mu.Unlock()
	a.claimed = true
	return a.permit, a.retryAfter, a.err
}

// send tells whether the permit is still to be asked for, by the caller then.
func (b *Breaker) markSent(a *PermitRequest) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	first := !a.sent
	a.sent = true
	if b.pendingRequest == a {
		b.pendingRequest = nil
	}
	return first
}

// Forgo says that the request does not pass: the permit, if there is one, gives its place back.
func (b *Breaker) Cancel(a *PermitRequest) {
	b.markSent(a)
	if b.settle(a) {
		return
	}
	b.Mu.Lock()
	a.claimed = true
	permit := a.permit
	b.Mu.Unlock()
	b.releasePlace(permit, a.policy)
}

// Abandon is Forgo where neither that nor Await was called: the request has ended in a panic.
func (b *Breaker) CancelUnclaimed(a *PermitRequest) {
	b.Mu.Lock()
	claimed := a.claimed
	b.Mu.Unlock()
	if !claimed {
		b.Cancel(a)
	}
}

// settle ends the wait for a permit. It tells whether it was this call that did.
func (b *Breaker) settle(a *PermitRequest) bool {
	b.Mu.Lock()
	first := !a.settled
	a.settled = true
	b.Mu.Unlock()
	if first {
		a.done.Done()
	}
	return first
}

// askBeside asks in the background: an answer that comes too late must be heard, too.
func (b *Breaker) runPermitRequest(a *PermitRequest) {
	defer func() {
		recover()
		b.settle(a)
	}()
	b.run(b.permitCall(a), time.Now().Add(b.Timeout))
}

func (b *Breaker) permitCall(a *PermitRequest) *store.Call {
	asked := b.Now()
	call := &store.Call{Script: permitScript, Keys: b.keys, Args: withArgs(a.policy, newCallID(), boolArg(a.upload))}
	call.Then = func(c *store.Call) {
		b.applyUnlessLost(c, asked, a.policy)
		b.settleWith(a, c, asked)
	}
	return call
}

// answered takes the answer for the request, if it waits still. Where there is none, Redis may have given a place all the same: the
// call is made again, and answered alike.
func (b *Breaker) settleWith(a *PermitRequest, call *store.Call, asked int64) {
	permit, retryAfter, err := b.readPermit(call, a.upload, asked)
	b.Mu.Lock()
	late := a.settled
	if !late {
		a.settled = true // together with the permit: whoever settles later must find it
		a.permit = permit
		a.retryAfter = retryAfter
		a.err = err
	}
	unclear := !a.repeated && errors.Is(err, store.ErrUnavailable)
	a.repeated = a.repeated || unclear
	b.Mu.Unlock()
	if late {
		b.releasePlace(permit, a.policy)
	} else {
		a.done.Done()
	}
	if unclear {
		b.repeatAsync(call, b.repeatFor(1, a.policy)) // it may be about a probe
	}
}

// permitOf reads the answer of the permit script.
func (b *Breaker) readPermit(call *store.Call, upload bool, asked int64) (Permit, time.Duration, error) {
	if call.Err != nil {
		return Permit{}, 0, call.Err
	}
	if len(call.Reply) != replyLen {
		return Permit{}, 0, errBadReply
	}
	generation, probe := call.Reply[1], call.Reply[5]
	if call.Reply[0] == stateClosed || probe != 0 {
		return Permit{generation: generation, probe: probe, upload: upload && probe != 0, requestedAt: asked, counts: true}, 0, nil
	}
	if wait := call.Reply[4]; wait > 0 {
		return Permit{}, time.Duration(wait) * time.Microsecond, nil
	}
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if upload {
		b.noUploadPlaceUntil = b.Now() + noPlaceFor
	} else {
		b.noPlaceUntil = b.Now() + noPlaceFor
	}
	return Permit{}, retryInASecond, nil
}

// giveBack gives the place of a probe back that is not sent.
func (b *Breaker) releasePlace(permit Permit, policy *Policy) {
	if permit.probe != 0 {
		b.Done(permit, Unknown, policy, 0)
	}
}

// withArgs returns the arguments of a script: the policy's, and its own.
func withArgs(policy *Policy, own ...string) []string {
	args := make([]string, 0, len(policy.args)+len(own))
	args = append(args, policy.args...)
	return append(args, own...)
}

// newID returns an id that no other call has. It does not look like a number.
func newCallID() string {
	return "c" + strconv.FormatInt(rand.Int63(), 36)
}
