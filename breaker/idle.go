package breaker

// IdleLocked reports whether the breaker of a scope that was last used at that time may be forgotten: its circuit is closed, and it has nothing
// to report. With Redis, another breaker with the same key then continues where this one was. A circuit that is not closed may be forgotten when
// Redis has forgotten it, too, because no request came. Mu is held.
func (b *Breaker) IdleLocked(used, now int64) bool {
	if b.reportDue || b.View.Passes > 0 || b.counted.requests > 0 || b.unreported.failed > 0 || b.refreshing || b.restoring || b.rechecking {
		return false
	}
	m := &b.machine
	if m.state == stateClosed && m.forced == 0 {
		return true
	}
	return now-used > scopeKeptFor && now-m.deadline > scopeKeptFor
}
