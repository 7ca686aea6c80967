package ratelimit

// A long lease is renewed in the background in its second half: the client continues to spend its tokens, and the next trip renews the
// lease. As a result, a client that sends a request at least once a minute hardly ever waits for Redis.
const (
	renewTogether = 8  // this many waiting keys start a trip if none is pending
	maxRenewals   = 32 // keys per trip
)

// renewal is a lease to be renewed.
type renewal struct {
	key   string
	cache *Cache // of the request that found the renewal due
}

// takeAndRenewLocked takes a token of a grant that is due for renewal, adds the key to the list of renewals, and returns the verdict. It
// releases Mu.
func takeAndRenewLocked(cache *Cache, g *Grant, key string, now int64) int64 {
	l := cache.limiter
	g.Tokens--
	g.Until = g.ends // further requests spend the rest meanwhile
	if !l.Unavailable.Load() {
		g.renewing = true
		l.renewals = append(l.renewals, renewal{key: key, cache: cache})
		if len(l.renewals) >= renewTogether && l.waiting == 0 {
			cannotJoinLocked(cache, now) // opens a batch
		}
	}
	healthy := now < *l.HealthyUntil
	l.Mu.Unlock()
	if healthy {
		return now
	}
	return 1
}

// addRenewalsLocked adds renewals to a trip that is about to be sent. Each returns the unused tokens of its lease. The trip may get more
// batches.
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
			continue // another request asked for the key meanwhile, or the table has dropped it
		}
		b := batchOf(state.trip, one.cache.lane)
		if b == nil {
			if one.cache.lane.open != nil {
				l.renewals = append(l.renewals, one) // the open batch is in a later trip: renew with that
				continue
			}
			b = one.cache.openBatch
			state.trip = append(state.trip, b) // add it first: if the code below panics, the batch fails with the trip
			l.mixed = true
			beginLocked(l, b, now)
		}
		arg, returns := argAndPrefetchLocked(lease, b, len(b.keys), 0, now)
		lease.requests = 0
		addArgLocked(b, lease, arg, returns, len(b.keys))
		b.keys = append(b.keys, one.key)
	}
}
