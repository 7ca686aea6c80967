package ratelimit

// entry is what this process knows of one key.
type entry struct {
	bucket       // the level that Redis told of, or the bucket itself while there is no Redis
	heard  int64 // the number of the answer that told of it

	limit  *Limit // that the lease and the emptiness are of
	tokens int64  // of the lease that are left
	until  int64  // when the lease ends
	lease  int64  // its number; 0: none
	empty  int64  // until then the bucket is taken for empty
	token  int64  // when it will have a token again

	batch int64 // number of the one that asks for this key; 0: none does
	place int   // of the key's group in it
	asked int64 // when the last one left
	spent int64 // tokens since then
	usage int64 // tokens in the lease time before it
}

// spend is Spend for one entry, which may be nil; what changes here changes there. The limiter's lock is held.
func spend(e *entry, limit *Limit, now int64) int64 {
	if e == nil || e.limit != limit {
		return 0
	}
	if e.tokens > 0 && now < e.until {
		e.tokens--
		e.spent++
		return 1
	}
	if now < e.empty {
		return now - e.token
	}
	return 0
}

// demand returns how many tokens to ask for ahead of need, besides so many requests that wait: what the key used in the
// lease time before, and of a large use a part, for what is left of a lease when its client goes elsewhere is lost to the
// client, and one more call for so many tokens costs little. mu is held.
func (e *entry) demand(waiting, now int64) int64 {
	length := leaseTime.Microseconds()
	passed := now - e.asked
	usage := e.spent
	if passed < length {
		usage += e.usage * (length - passed) / length
	} else {
		usage = e.spent * length / passed
	}
	e.usage = usage
	e.asked = now
	e.spent = waiting
	if usage > smallUse {
		return smallUse + (usage-smallUse)/largeUseShare
	}
	return usage
}

// endLease returns the lease to hand back, if there is one, and forgets it. mu is held.
func (e *entry) endLease(now int64) (lease, unused int64) {
	if e.lease != 0 && now < e.until {
		lease = e.lease
		unused = e.tokens
	}
	e.lease = 0
	e.tokens = 0
	return lease, unused
}

// learn takes Redis's answer, which came now, to a call that was sent at the time sent, when so many answers had been heard.
// Redis gave it somewhere between the two: each time is counted from the end that lets less through. mu is held.
func (l *Limiter) learn(e *entry, limit *Limit, a answer, sent, now, heardThen int64) {
	// Calls overtake each other: of two that were under way at once, the lower level is the later.
	if e.heard <= heardThen || e.period != limit.period || e.level > a.level {
		e.level, e.at, e.period = a.level, now, limit.period
	}
	e.heard = l.heard
	e.limit = limit
	e.lease = a.lease
	e.tokens = a.leased
	e.until = sent + leaseTime.Microseconds()
	e.empty = 0
	if a.level < limit.period {
		e.token = sent + limit.untilToken(a.level)
		e.empty = e.token
		if e.empty > sent+maxEmpty {
			e.empty = sent + maxEmpty
		}
	}
}
