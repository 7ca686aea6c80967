package ratelimit

// A long lease is renewed in its second half, in the background: its client continues to spend what it has, and the key waits for the
// next batch, which takes it along. So hardly any client that comes again within a minute ever waits for Redis.
const (
	renewTogether = 8  // keys that wait for a trip; when there are as many, they get one for themselves
	maxRenewals   = 32 // in a trip
)

// renewal is a lease to be renewed.
type renewal struct {
	key   string
	cache *Cache // that a request came by
}

// takeAndRenewLocked takes a token of a grant that is to be renewed, and puts the key on the list of renewals. It returns the verdict.
// Mu must be held, and is released.
func takeAndRenewLocked(cache *Cache, g *Grant, key string, now int64) int64 {
	l := cache.limiter
	g.Tokens--
	g.Until = g.ends // the next requests spend the rest meanwhile
	if !l.Unavailable.Load() {
		g.renewing = true
		l.renewals = append(l.renewals, renewal{key: key, cache: cache})
		if len(l.renewals) >= renewTogether && l.waiting == 0 {
			cannotJoinLocked(cache, now) // begins a batch
		}
	}
	healthy := now < *l.HealthyUntil
	l.Mu.Unlock()
	if healthy {
		return now
	}
	return 1
}

// addRenewalsLocked lets a trip that is about to be sent renew leases, in exchange for what is left of them. The trip may have more batches then.
// Mu must be held.
func addRenewalsLocked(l *Limiter, state *tripState, now int64) {
	renewals := l.renewals
	l.renewals = nil
	if len(renewals) > maxRenewals {
		l.renewals = renewals[maxRenewals:]
		renewals = renewals[:maxRenewals]
	}
	for _, one := range renewals {
		lease := lookupLocked(l, one.key)
		if lease == nil || !lease.renewing || lease.prefetchBatch != 0 || lease.limit != one.cache.limit {
			continue // it was asked for since, or forgotten
		}
		b := batchOf(state.trip, one.cache.lane)
		if b == nil {
			if one.cache.lane.open != nil {
				l.renewals = append(l.renewals, one) // for the later trip where that batch waits
				continue
			}
			b = one.cache.openBatch
			state.trip = append(state.trip, b) // first: if anything panics from here on, it fails with the trip
			l.mixed = true
			beginLocked(l, b, now)
		}
		arg, returns := argAndPrefetchLocked(lease, b, len(b.keys), 0, now)
		lease.requests = 0
		addArgLocked(b, lease, arg, returns, len(b.keys))
		b.keys = append(b.keys, one.key)
	}
}
