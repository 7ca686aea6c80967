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
