package breaker

import (
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

const recheckEvery = 75000 // microseconds between two refreshes of an open circuit

// sharedRefresh is a refresh that requests wait for: concurrent requests that find the view too old share one.
type sharedRefresh struct {
	deadline time.Time
	done     sync.WaitGroup // until err is set
	err      error
}

// ExtendView reports whether a view that is no longer fresh may still be used: up to an age of 100 ms. If so it extends
// View.Healthy to that age and starts a refresh in the background, unless one runs.
func (b *Breaker) ExtendView(now int64, policy *Policy) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	age := now - b.requestedAt
	usable := b.machine.state == stateClosed && (b.machine.failures == 0 || policy.Counts()) && b.requestedAt != 0 && !b.divergedLocally && age < staleAfter
	if b.ownHealthyLocked != nil {
		usable = usable && b.ownHealthyLocked()
	}
	if usable && age >= freshFor {
		b.View.Healthy = b.requestedAt + staleAfter
		b.refreshAsyncLocked(now, policy)
	}
	return usable
}

// RefreshIfStale refreshes the view of a closed circuit in the background if it is no longer fresh.
func (b *Breaker) RefreshIfStale(now int64, policy *Policy) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store != nil && b.machine.state == stateClosed && !b.Store.IsUnavailable() {
		b.refreshAsyncLocked(now, policy)
	}
}

// RecheckOpen keeps an open circuit open for no longer than the policy says, and refreshes its view in the background every
// 75 ms: an operator may have closed it, another gateway's policy may be shorter, and the key may have been deleted.
func (b *Breaker) RecheckOpen(now int64, policy *Policy) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.machine.state != stateOpen {
		return
	}
	deadline := b.machine.deadline
	b.machine.capDeadline(now, policy)
	shortened := b.machine.deadline != deadline
	if shortened {
		b.publishLocked()
	}
	if b.Store != nil && !b.divergedLocally && !b.refreshing && (shortened || now-b.requestedAt >= recheckEvery) && !b.Store.IsUnavailable() {
		b.refreshing = true
		go b.runRefresh(policy)
	}
}

// ensureFresh makes sure that the view of a closed circuit is not too old, waiting for Redis until the deadline if it is.
func (b *Breaker) ensureFresh(policy *Policy, now int64, deadline time.Time) error {
	refresh, isMine := b.refreshToWaitFor(policy, now, deadline)
	if refresh == nil {
		return nil
	}
	if isMine {
		b.runSharedRefresh(refresh, policy)
	} else {
		refresh.done.Wait()
	}
	return refresh.err
}

// refreshToWaitFor returns the refresh that a request must wait for, and whether the request must run it; or nil if the view
// can be used. A request does not wait for a refresh that may end after its deadline.
func (b *Breaker) refreshToWaitFor(policy *Policy, now int64, deadline time.Time) (refresh *sharedRefresh, isMine bool) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	age := now - b.requestedAt
	known := b.requestedAt != 0 && !b.divergedLocally
	if known && (!b.machine.passes() || age < freshFor) {
		return nil, false
	}
	if known && age < staleAfter {
		b.refreshAsyncLocked(now, policy)
		return nil, false
	}
	if b.shared != nil && !b.shared.deadline.After(deadline) {
		return b.shared, false
	}
	b.shared = &sharedRefresh{deadline: deadline, err: store.ErrUnavailable}
	b.shared.done.Add(1)
	return b.shared, true
}

func (b *Breaker) runSharedRefresh(refresh *sharedRefresh, policy *Policy) {
	defer func() {
		b.endSharedRefresh(refresh)
		refresh.done.Done()
	}()
	refresh.err = b.run(b.viewCall(b.Now(), policy), refresh.deadline)
}

func (b *Breaker) endSharedRefresh(refresh *sharedRefresh) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.shared == refresh {
		b.shared = nil
	}
}

// refreshAsyncLocked refreshes the view in the background if it is no longer fresh, unless a refresh runs.
func (b *Breaker) refreshAsyncLocked(now int64, policy *Policy) {
	if now-b.requestedAt >= freshFor {
		b.startRefreshLocked(policy)
	}
}

// startRefreshLocked refreshes the view in the background, unless a refresh runs.
func (b *Breaker) startRefreshLocked(policy *Policy) {
	if !b.refreshing {
		b.refreshing = true
		go b.runRefresh(policy)
	}
}

func (b *Breaker) runRefresh(policy *Policy) {
	defer func() {
		recover()
		b.endRefresh()
	}()
	b.run(b.viewCall(b.Now(), policy), time.Now().Add(b.Timeout))
}

func (b *Breaker) endRefresh() {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.refreshing = false
}

// viewCall returns a call that refreshes the view. It reports what was counted.
func (b *Breaker) viewCall(now int64, policy *Policy) *store.Call {
	if policy.Counts() {
		generation, t := b.takeForRefresh(policy)
		if t.requests > 0 {
			return b.countedCall(generation, t, policy)
		}
	}
	call := &store.Call{Script: viewScript, Keys: b.keys, Args: policy.args}
	call.Then = func(c *store.Call) { b.applyUnlessLost(c, now, policy) }
	return call
}

// takeForRefresh takes what was counted. From now on the view says that the circuit is healthy while failures are pending: they need no
// success to reset them at once.
func (b *Breaker) takeForRefresh(policy *Policy) (generation int64, t tally) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	b.counts = true
	t = b.takeCountedLocked(policy)
	return b.machine.generation, t
}
