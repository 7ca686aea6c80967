package ratelimit

// A long lease is renewed in its second half, beside the requests: its client goes on with what it has, and the key waits for the next
// batch of its line to take it along. Few of those who come again within a minute ever wait for Redis.
const (
	renewTogether = 8  // so many keys wait for a batch that somebody asks in; then they make one of their own
	maxRenewals   = 32 // and no batch takes along more
)

// prolong takes a token of a lease that is to be renewed, and lets its line know. It returns the verdict. The limiter's Mu is held,
// and given back.
func takeAndRenew(hand *Cache, e *Grant, key string, now int64) int64 {
	l, line := hand.limiter, hand.queue
	e.Tokens--
	e.Until = e.leaseEnds // the rest may be taken without more ado
	if !l.Unavailable.Load() {
		e.renewing = true
		line.renewals = append(line.renewals, key)
		if len(line.renewals) >= renewTogether && line.open == nil {
			cannotJoin(hand, now) // begins the batch
		}
	}
	passes := now < *l.HealthyUntil
	l.Mu.Unlock()
	if passes {
		return now
	}
	return 1
}

// renew has a batch that leaves renew leases, in exchange for what is left of them. mu is held.
func addRenewals(l *Limiter, b *batch, now int64) {
	line := b.cache.queue
	keys := line.renewals
	line.renewals = nil
	if len(keys) > maxRenewals {
		line.renewals = keys[maxRenewals:]
		keys = keys[:maxRenewals]
	}
	for _, key := range keys {
		e := lookup(l, key)
		if e == nil || !e.renewing || e.prefetchBatch != 0 || e.Limit != b.limit {
			continue // it was asked for since, or forgotten
		}
		word, ends := askAndPrefetch(e, b, len(b.keys), 0, now)
		e.requests = 0
		addArg(b, e, word, ends, len(b.keys))
		b.keys = append(b.keys, key)
	}
}
