package ratelimit

import (
	"github.com/resilient-gateway/resilience/internal/store"
)

// Entry is what this process knows of one key. It is guarded by its limiter's Mu. The first fields are all that most
// requests need.
type Grant struct {
	Limit       *Limit // that it is all under; a hand holds none of another than its own
	Tokens      int64  // of the lease that are left
	Until       int64  // when the lease is to be renewed, or ends
	RefuseUntil int64  // until then the bucket is taken for empty
	NextToken   int64  // when it will have a token again

	Refused int64 // requests, since the last note of it
	NoteAt  int64 // from then on another note is due

	bucket bucket // as Redis told of it, or the bucket itself while there is no Redis

	borrowed int64 // tokens that were taken here and not in Redis, ever (debt.go)
	repaid   int64 // of them, those that Redis has heard of, or that time has refilled
	paidBy   int64 // number of the last batch that pays for the others

	replySeq int64 // the number of the answer that told of it

	leaseNumber int64 // number of the lease; 0: none
	leaseTokens int64 // tokens that it had
	leaseEnds   int64 // when it ends
	renewing    bool  // it is to be renewed, and its line knows
	cappedFor   int64 // number of the last lease that the bucket here minds

	common        bool  // of all keys that were first asked for in one batch, and not since
	prefetchBatch int64 // number of the one that asks ahead for this key; 0: none does
	prefetchPlace int   // in it
	prefetchedAt  int64 // when Redis was last asked ahead
	requests      int64 // requests since then that asked for themselves, and that one
	shortUse      int64 // tokens in the time of a short lease before that
	longUse       int64 // and in that of a long one, where the limit has such
}

// spend is Spend for one entry, which may be nil. The limiter's lock is held.
func spendLocked(e *Grant, limit *Limit, now int64) int64 {
	if e == nil || e.Limit != limit {
		return 0
	}
	if e.Tokens > 0 && now < e.Until {
		e.Tokens--
		return 1
	}
	if now < e.RefuseUntil {
		return now - e.NextToken
	}
	return 0
}

// know takes the bucket for full where Redis never told of it, or only that there is plenty. mu is held.
func assumeFull(e *Grant) {
	if e.bucket.period == 0 {
		e.bucket.level, e.bucket.period = e.Limit.full, e.Limit.period
	}
}

// pass makes another entry for a key that is to be asked for under another limit. The old one has nothing to give any more to the
// hands that hold it. mu is held.
func changeLimit(e *Grant, limit *Limit) *Grant {
	assumeFull(e)
	other := *e
	other.Limit = limit
	other.RefuseUntil = 0
	other.prefetchBatch = 0
	other.renewing = false
	e.Tokens = 0
	e.RefuseUntil = 0
	return &other
}

// askOne is what a request asks for that is content with one token.
var askOne = store.Word("1 0")

// askFor returns what to ask Redis for, for the request at a place of a batch: a token, and some ahead of need, in exchange for the lease
// that there is. It tells whether it ends that. One batch at a time asks ahead for a key. mu is held.
func askLocked(e *Grant, b *batch, place int, now int64) (string, bool) {
	if e.prefetchBatch != 0 {
		e.requests++
		return askOnly(e, b, place, now), false
	}
	if e.leaseNumber == 0 && e.shortUse == 0 && e.requests <= 1 && now-e.prefetchedAt > e.Limit.coldAfter {
		e.prefetchedAt = now // as most keys are, where there are many
		e.requests = 1
		return askOnly(e, b, place, now), false
	}
	return askAndPrefetch(e, b, place, 1, now)
}

// tokenWords are how an ask for no token begins, and one for one.
var tokenArgs = []string{"0 ", "1 "}

// askAhead is askFor, for no token or one besides those ahead of need. mu is held.
func askAndPrefetch(e *Grant, b *batch, place int, token int64, now int64) (string, bool) {
	tokens := tokenArgs[token]
	if e.borrowed > e.repaid {
		tokens = digits(token+pay(e, b, place, now)) + " "
	}
	e.prefetchBatch = b.number
	b.prefetching = append(b.prefetching, e)
	ahead := prefetchSize(e, now)
	word := askOne
	ends := e.leaseNumber != 0 && now < e.leaseEnds // not a named result: the interpreter does not clear those
	if ends {
		word = store.Word(tokens + ahead + " " + digits(e.leaseNumber) + " " + digits(e.Tokens))
	} else if ahead != "0 0" || tokens != tokenArgs[1] {
		word = store.Word(tokens + ahead)
	}
	if e.leaseNumber != e.cappedFor {
		capByLease(e, now)
	}
	e.leaseNumber = 0
	e.cappedFor = 0
	e.leaseTokens = 0
	e.renewing = false
	e.Tokens = 0
	return word, ends
}

// demand returns how many tokens to ask for ahead of need, for a short time and for a long one. For a short one it is what the key
// used in that time, and of a large use a part, for what is left of a lease when its client goes elsewhere is lost to the client,
// and one more call for so many tokens costs little. mu is held.
func prefetchSize(e *Grant, now int64) string {
	passed := now - e.prefetchedAt
	spent := e.requests + e.leaseTokens - e.Tokens
	e.prefetchedAt = now
	e.requests = 1
	usage := spent
	if passed < leaseMicros {
		usage += e.shortUse * (leaseMicros - passed) / leaseMicros
	} else {
		usage = spent * leaseMicros / passed
	}
	e.shortUse = usage
	if usage > smallUse {
		usage = smallUse + (usage-smallUse)/largeUseShare
	}
	if e.Limit.longLeaseMax == 0 || passed > quiet {
		return digits(usage) + " 0"
	}
	return digits(usage) + " " + digits(longPrefetchSize(e, spent, passed))
}

// demandLong returns how many to ask for a long time: twice what the key used in that, and two, for use varies; or as many as may be
// leased for so long. mu is held.
func longPrefetchSize(e *Grant, spent, passed int64) int64 {
	if passed < longMicros {
		spent += e.longUse * (longMicros - passed) / longMicros
	} else {
		spent = spent * longMicros / passed
	}
	e.longUse = spent
	spent = 2*spent + 2
	if spent > e.Limit.longLeaseMax {
		return e.Limit.longLeaseMax
	}
	return spent
}

// learn takes Redis's answer, which came now, to the request at a place of a batch. Redis gave it somewhere between the two: each time is counted from
// the end that lets less through. Where that asked ahead for the key, the lease is its. mu is held.
func applyAnswer(l *Limiter, e *Grant, b *batch, place int, now int64) {
	a := parseAnswer(b.answers[place])
	if a.taken < 0 || e.Limit != b.limit {
		return // a lease that nobody takes ends by its time
	}
	assumeFull(e)
	level := lessOwed(e, a.level)
	// Calls overtake each other: of two that were under way at once, the lower level is the later.
	if e.replySeq <= b.replySeq || e.bucket.period != b.limit.period || e.bucket.level > level {
		e.bucket.level, e.bucket.at, e.bucket.period = level, now, b.limit.period
	}
	e.replySeq = l.replySeq
	if e.prefetchBatch == b.number && e.prefetchPlace == place {
		e.leaseNumber = a.lease
		e.leaseTokens = a.leased
		e.Tokens = a.leased
		e.leaseEnds = b.sentAt + lasts(a.length)
		e.Until = e.leaseEnds
		if a.length > leaseMicros {
			e.Until = b.sentAt + renewMicros
		}
	}
	if a.taken > 0 && e.borrowed > e.repaid && payLate(e, a.level) {
		b.answers[place] = noneTaken + digits(a.level) + ":0"
	}
	e.RefuseUntil = 0
	if a.level < b.limit.period {
		e.NextToken = b.sentAt + untilToken(b.limit, a.level)
		e.RefuseUntil = e.NextToken
		if e.RefuseUntil > b.sentAt+maxEmpty {
			e.RefuseUntil = b.sentAt + maxEmpty
		}
	}
}

// plenty is an answer that says no more than that the token was taken, and that the bucket is nearly full. Any other that it was begins
// with oneTaken.
const (
	plenty    = "+"
	oneTaken  = "1:"
	noneTaken = "0:"
)
