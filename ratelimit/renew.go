package ratelimit

// A long lease is renewed in its second half, beside the requests: its client goes on with what it has, and the key waits for the next
// batch of its line to take it along. Few of those who come again within a minute ever wait for Redis.
const (
	company   = 8  // so many keys wait for a batch that somebody asks in; then they make one of their own
	maxEnding = 32 // and no batch takes along more
)

// prolong takes a token of a lease that is to be renewed, and lets its line know. It returns the verdict. The limiter's Mu is held,
// and given back.
func prolong(hand *Hand, e *Entry, key string, now int64) int64 {
	l, line := hand.limiter, hand.line
	e.Tokens--
	e.Until = e.ends // the rest may be taken without more ado
	if !l.Away.Load() {
		e.ending = true
		line.ending = append(line.ending, key)
		if len(line.ending) >= company && line.forming == nil {
			shut(hand, now) // begins the batch
		}
	}
	passes := now < *l.Clear
	l.Mu.Unlock()
	if passes {
		return now
	}
	return 1
}

// renew has a batch that leaves renew leases, in exchange for what is left of them. mu is held.
func renew(l *Limiter, b *batch, now int64) {
	line := b.hand.line
	keys := line.ending
	line.ending = nil
	if len(keys) > maxEnding {
		line.ending = keys[maxEnding:]
		keys = keys[:maxEnding]
	}
	for _, key := range keys {
		e := get(l, key)
		if e == nil || !e.ending || e.batch != 0 || e.Limit != b.limit {
			continue // it was asked for since, or forgotten
		}
		word, ends := askAhead(e, b, len(b.keys), 0, now)
		e.asks = 0
		enter(b, e, word, ends, len(b.keys))
		b.keys = append(b.keys, key)
	}
}
