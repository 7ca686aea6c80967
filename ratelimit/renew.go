package ratelimit

// A long lease is renewed in its second half, in the background: its client continues to spend what it has, and the key waits for the
// next batch, which takes it along. So hardly any client that comes again within a minute ever waits for Redis.
const (
	renewTogether = 8  // keys that wait for a batch; when there are more, they get one for themselves
	maxRenewals   = 32 // in a batch
)

// takeAndRenew takes a token of a grant that is to be renewed, and puts the key on the list of renewals. It returns the verdict.
// Mu must be held, and is released.
func takeAndRenew(cache *Cache, g *Grant, key string, now int64) int64 {
	l, queue := cache.limiter, cache.queue
	g.Tokens--
	g.Until = g.ends // the next requests spend the rest meanwhile
	if !l.Unavailable.Load() {
		g.renewing = true
		queue.renewals = append(queue.renewals, key)
		if len(queue.renewals) >= renewTogether && queue.open == nil {
			cannotJoinLocked(cache, now) // begins the batch
		}
	}
	healthy := now < *l.HealthyUntil
	l.Mu.Unlock()
	if healthy {
		return now
	}
	return 1
}

// addRenewals lets a batch that is about to be sent renew leases, in exchange for what is left of them. Mu must be held.
func addRenewals(l *Limiter, b *batch, now int64) {
	queue := b.cache.queue
	keys := queue.renewals
	queue.renewals = nil
	if len(keys) > maxRenewals {
		queue.renewals = keys[maxRenewals:]
		keys = keys[:maxRenewals]
	}
	for _, key := range keys {
		lease := lookup(l, key)
		if lease == nil || !lease.renewing || lease.prefetchBatch != 0 || lease.limit != b.limit {
			continue // it was asked for since, or forgotten
		}
		arg, returns := argAndPrefetch(lease, b, len(b.keys), 0, now)
		lease.requests = 0
		addArg(b, lease, arg, returns, len(b.keys))
		b.keys = append(b.keys, key)
	}
}
