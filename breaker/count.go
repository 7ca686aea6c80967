package breaker

import (
	"errors"
	"math"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// With ratios the outcomes of all requests count. They are counted here and reported in bulk, at most once in reportEvery: by a refresh of
// the view if one is due, and else by a separate call, which refreshes the view as well. Successes on the fast path are only a number
// (View.Passes); it is added to the tally before the next failure, so that their order is kept.

const (
	reportEvery = 50000                 // microseconds
	reportPause = 10 * time.Millisecond // while a refresh runs
)

// CountPassLocked counts a success of a request that passed at the time at. What was counted is reported when the last report is reportEvery ago,
// also if no other request comes. Mu is held.
func (b *Breaker) CountPassLocked(at int64, policy *Policy) {
	if at < b.publishedAt {
		return
	}
	b.View.Passes++
	b.View.PassesSince = b.publishedAt
	b.reportSoonLocked(policy)
}

// takePassesLocked returns the successes of the fast path. The next one calls CountPassLocked again.
func (b *Breaker) takePassesLocked() int64 {
	n := b.View.Passes
	b.View.Passes = 0
	b.View.PassesSince = math.MaxInt64
	return n
}

// ReportPending reports whether there is something that was counted and is not reported yet, or whose report has no answer yet.
func (b *Breaker) ReportPending() bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return b.reportDue || b.View.Passes > 0 || b.counted.requests > 0 || b.refreshing
}

// count counts the outcome of an ordinary request.
func (b *Breaker) count(permit Permit, outcome Outcome, policy *Policy) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if outcome == Unknown || b.machine.state != stateClosed || permit.generation != b.machine.generation {
		return
	}
	b.counts = true
	b.addPassesLocked(policy)
	b.counted.add(outcome, 1)
	b.reportSoonLocked(policy)
}

// addPassesLocked adds the successes of the fast path to the tally.
func (b *Breaker) addPassesLocked(policy *Policy) {
	n := b.takePassesLocked()
	if n == 0 {
		return
	}
	b.counted.add(Success, n)
	if b.ownPassesLocked != nil && policy.own != nil && !b.isForcedClosedLocked() {
		b.ownPassesLocked(n, policy.own)
	}
}

// forgetCountedLocked forgets what was counted under another generation.
func (b *Breaker) forgetCountedLocked() {
	b.takePassesLocked()
	b.counted = tally{}
}

// takeCountedLocked takes what was counted, to report it.
func (b *Breaker) takeCountedLocked(policy *Policy) tally {
	b.addPassesLocked(policy)
	t := b.counted
	b.counted = tally{}
	b.reportedAt = b.Now()
	return t
}

// reportSoonLocked has what was counted reported when the last report is reportEvery ago, also if no other request comes.
func (b *Breaker) reportSoonLocked(policy *Policy) {
	if !b.reportDue {
		b.reportDue = true
		go b.runCounted(b.untilReportLocked(), policy)
	}
}

// untilReportLocked returns how long it is until the next report may be made. A refresh of the view is a report.
func (b *Breaker) untilReportLocked() time.Duration {
	b.reportDueSince = b.lastReportLocked()
	wait := b.reportDueSince + reportEvery - b.Now()
	if b.reportDueSince == 0 || wait < 0 {
		return 0
	}
	return time.Duration(wait) * time.Microsecond
}

func (b *Breaker) lastReportLocked() int64 {
	if b.requestedAt > b.reportedAt {
		return b.requestedAt
	}
	return b.reportedAt
}

// runCounted reports what was counted, after the wait. It is a loop, because timers that start each other would keep the frames of all before
// them alive (R10).
func (b *Breaker) runCounted(wait time.Duration, policy *Policy) {
	defer func() { recover() }()
	for {
		time.Sleep(wait)
		wait = b.reportCounted(policy)
		if wait == 0 {
			return
		}
	}
}

// reportCounted reports what was counted. If that is due only later, it returns the wait until then.
func (b *Breaker) reportCounted(policy *Policy) (wait time.Duration) {
	if b.Store == nil || b.Store.IsUnavailable() {
		b.reportCountedLocal(policy)
		return 0
	}
	generation, t, wait := b.takeDue(policy)
	if t.requests == 0 {
		return wait
	}
	defer b.endRefresh()
	b.run(b.countedCall(generation, t, policy), time.Now().Add(b.Timeout))
	return 0
}

// reportCountedLocal reports what was counted to the machine in this process.
func (b *Breaker) reportCountedLocal(policy *Policy) {
	now := b.Now()
	c := beginLocalChange(b)
	defer c.commit()
	b.reportDue = false
	t := b.takeCountedLocked(policy)
	t.gateway = b.gateway
	if t.requests > 0 {
		b.machine.report(b.machine.generation, 0, t, now, policy)
	}
}

// takeDue takes what is due. Its report is a refresh of the view. If a refresh has come before it, it is due after the wait.
func (b *Breaker) takeDue(policy *Policy) (generation int64, t tally, wait time.Duration) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.refreshing || b.lastReportLocked() != b.reportDueSince {
		wait = b.untilReportLocked()
		if wait < reportPause {
			wait = reportPause
		}
		return 0, tally{}, wait
	}
	b.reportDue = false
	t = b.takeCountedLocked(policy)
	b.refreshing = t.requests > 0
	return b.machine.generation, t, 0
}

// countedCall reports a tally. If the call gets no answer, it is repeated in the background, and counts here if Redis is unavailable.
func (b *Breaker) countedCall(generation int64, t tally, policy *Policy) *store.Call {
	call := b.reportCall(Permit{generation: generation}, t, policy)
	apply, again := call.Then, true
	call.Then = func(c *store.Call) {
		apply(c)
		if c.Err == nil || !again {
			return
		}
		again = false
		unavailable := errors.Is(c.Err, store.ErrUnavailable)
		if unavailable {
			b.repeatAsync(c, b.repeatFor(0, policy))
		}
		if !unavailable || b.Store.IsUnavailable() {
			b.reportTallyLocal(generation, 0, t, policy)
		}
	}
	return call
}
