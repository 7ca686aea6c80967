package breaker

import "time"

// Notice is the prepared refusal of an open circuit. It holds until the state or the value of Retry-After changes.
type Notice struct {
	Seconds int64 // the value of Retry-After
	// Holds has length 1 while the notice holds, then 0. Requests read only its length, which needs neither a call nor a
	// lock.
	Holds chan struct{}
}

// OpenNotice returns the notice that holds at the time now, or nil unless the circuit is known to be open.
func (b *Breaker) OpenNotice(now int64) *Notice {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	left := b.View.Open - now
	if left <= 0 {
		return nil
	}
	if b.notice != nil {
		return b.notice
	}
	notice := &Notice{Seconds: (left + 999999) / 1000000, Holds: make(chan struct{}, 1)}
	setLength(notice.Holds, 1)
	b.notice = notice
	untilNextSecond := time.Duration((left-1)%1000000+1) * time.Microsecond
	time.AfterFunc(untilNextSecond, func() {
		defer func() { recover() }()
		b.Mu.Lock()
		defer b.Mu.Unlock()
		b.endNoticeLocked(notice)
	})
	return notice
}

// endNoticeLocked ends a notice if it still holds.
func (b *Breaker) endNoticeLocked(notice *Notice) {
	if notice != nil && notice == b.notice {
		setLength(notice.Holds, 0)
		b.notice = nil
	}
}

// setLength sends to or receives from a channel until it has the given length. The caller holds the lock that guards the
// channel.
func setLength(c chan struct{}, length int64) {
	for int64(len(c)) < length {
		c <- struct{}{}
	}
	for int64(len(c)) > length {
		<-c
	}
}

const recheckNoticeEvery = 75 * time.Millisecond

// RecheckWhile refreshes the view in the background while requests are refused by a notice: an operator may have closed the circuit, and all
// gateways follow within 100 ms.
func (b *Breaker) RecheckWhile(notice *Notice, policy *Policy) {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.Store == nil || b.rechecking || notice != b.notice {
		return
	}
	b.rechecking = true
	go b.runRechecks(policy)
}

// runRechecks is a loop, because timers that start each other would keep the frames of all before them alive (R10).
func (b *Breaker) runRechecks(policy *Policy) {
	defer func() { recover() }()
	for {
		time.Sleep(recheckNoticeEvery)
		if !b.recheckNotice(policy) {
			return
		}
	}
}

// recheckNotice refreshes the view if the notice still holds, or one that has replaced it. It reports whether there is one.
func (b *Breaker) recheckNotice(policy *Policy) bool {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	if b.notice == nil {
		b.rechecking = false
		return false
	}
	if !b.divergedLocally && !b.Store.IsUnavailable() {
		b.startRefreshLocked(policy)
	}
	return true
}
