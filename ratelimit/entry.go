package ratelimit

import (
	"github.com/resilient-gateway/resilience/internal/store"
)

// Entry is what this process knows of one key. It is guarded by its limiter's Mu. The first fields are all that most
// requests need.
type Entry struct {
	Limit  *Limit // that it is all under; a hand holds none of another than its own
	Tokens int64  // of the lease that are left
	Until  int64  // when the lease is to be renewed, or ends
	Empty  int64  // until then the bucket is taken for empty
	Token  int64  // when it will have a token again

	Refused int64 // requests, since the last note of it
	Note    int64 // from then on another note is due

	bucket bucket // as Redis told of it, or the bucket itself while there is no Redis

	borrowed int64 // tokens that were taken here and not in Redis, ever (debt.go)
	repaid   int64 // of them, those that Redis has heard of, or that time has refilled
	paidBy   int64 // number of the last batch that pays for the others

	heard int64 // the number of the answer that told of it

	lease  int64 // number of the lease; 0: none
	leased int64 // tokens that it had
	ends   int64 // when it ends
	ending bool  // it is to be renewed, and its line knows
	minded int64 // number of the last lease that the bucket here minds

	first bool  // of all keys that were first asked for in one batch, and not since
	batch int64 // number of the one that asks ahead for this key; 0: none does
	place int   // in it
	asked int64 // when Redis was last asked ahead
	asks  int64 // requests since then that asked for themselves, and that one
	usage int64 // tokens in the time of a short lease before that
	used  int64 // and in that of a long one, where the limit has such
}

// spend is Spend for one entry, which may be nil. The limiter's lock is held.
func spend(e *Entry, limit *Limit, now int64) int64 {
	if e == nil || e.Limit != limit {
		return 0
	}
	if e.Tokens > 0 && now < e.Until {
		e.Tokens--
		return 1
	}
	if now < e.Empty {
		return now - e.Token
	}
	return 0
}

// know takes the bucket for full where Redis never told of it, or only that there is plenty. mu is held.
func know(e *Entry) {
	if e.bucket.period == 0 {
		e.bucket.level, e.bucket.period = e.Limit.full, e.Limit.period
	}
}

// pass makes another entry for a key that is to be asked for under another limit. The old one has nothing to give any more to the
// hands that hold it. mu is held.
func pass(e *Entry, limit *Limit) *Entry {
	know(e)
	other := *e
	other.Limit = limit
	other.Empty = 0
	other.batch = 0
	other.ending = false
	e.Tokens = 0
	e.Empty = 0
	return &other
}

// askOne is what a request asks for that is content with one token.
var askOne = store.Word("1 0")

// askFor returns what to ask Redis for, for the request at a place of a batch: a token, and some ahead of need, in exchange for the lease
// that there is. It tells whether it ends that. One batch at a time asks ahead for a key. mu is held.
func askFor(e *Entry, b *batch, place int, now int64) (string, bool) {
	if e.batch != 0 {
		e.asks++
		return askAlone(e, b, place, now), false
	}
	if e.lease == 0 && e.usage == 0 && e.asks <= 1 && now-e.asked > e.Limit.forgets {
		e.asked = now // as most keys are, where there are many
		e.asks = 1
		return askAlone(e, b, place, now), false
	}
	return askAhead(e, b, place, 1, now)
}

// tokenWords are how an ask for no token begins, and one for one.
var tokenWords = []string{"0 ", "1 "}

// askAhead is askFor, for no token or one besides those ahead of need. mu is held.
func askAhead(e *Entry, b *batch, place int, token int64, now int64) (string, bool) {
	tokens := tokenWords[token]
	if e.borrowed > e.repaid {
		tokens = digits(token+pay(e, b, place, now)) + " "
	}
	e.batch = b.number
	b.ahead = append(b.ahead, e)
	ahead := demand(e, now)
	word := askOne
	ends := e.lease != 0 && now < e.ends // not a named result: the interpreter does not clear those
	if ends {
		word = store.Word(tokens + ahead + " " + digits(e.lease) + " " + digits(e.Tokens))
	} else if ahead != "0 0" || tokens != tokenWords[1] {
		word = store.Word(tokens + ahead)
	}
	if e.lease != e.minded {
		mindLease(e, now)
	}
	e.lease = 0
	e.minded = 0
	e.leased = 0
	e.ending = false
	e.Tokens = 0
	return word, ends
}

// demand returns how many tokens to ask for ahead of need, for a short time and for a long one. For a short one it is what the key
// used in that time, and of a large use a part, for what is left of a lease when its client goes elsewhere is lost to the client,
// and one more call for so many tokens costs little. mu is held.
func demand(e *Entry, now int64) string {
	passed := now - e.asked
	spent := e.asks + e.leased - e.Tokens
	e.asked = now
	e.asks = 1
	usage := spent
	if passed < leaseMicros {
		usage += e.usage * (leaseMicros - passed) / leaseMicros
	} else {
		usage = spent * leaseMicros / passed
	}
	e.usage = usage
	if usage > smallUse {
		usage = smallUse + (usage-smallUse)/largeUseShare
	}
	if e.Limit.few == 0 || passed > quiet {
		return digits(usage) + " 0"
	}
	return digits(usage) + " " + digits(demandLong(e, spent, passed))
}

// demandLong returns how many to ask for a long time: twice what the key used in that, and two, for use varies; or as many as may be
// leased for so long. mu is held.
func demandLong(e *Entry, spent, passed int64) int64 {
	if passed < longMicros {
		spent += e.used * (longMicros - passed) / longMicros
	} else {
		spent = spent * longMicros / passed
	}
	e.used = spent
	spent = 2*spent + 2
	if spent > e.Limit.few {
		return e.Limit.few
	}
	return spent
}

// learn takes Redis's answer, which came now, to the request at a place of a batch. Redis gave it somewhere between the two: each time is counted from
// the end that lets less through. Where that asked ahead for the key, the lease is its. mu is held.
func learn(l *Limiter, e *Entry, b *batch, place int, now int64) {
	a := read(b.words[place])
	if a.taken < 0 || e.Limit != b.limit {
		return // a lease that nobody takes ends by its time
	}
	know(e)
	level := lessOwed(e, a.level)
	// Calls overtake each other: of two that were under way at once, the lower level is the later.
	if e.heard <= b.heard || e.bucket.period != b.limit.period || e.bucket.level > level {
		e.bucket.level, e.bucket.at, e.bucket.period = level, now, b.limit.period
	}
	e.heard = l.heard
	if e.batch == b.number && e.place == place {
		e.lease = a.lease
		e.leased = a.leased
		e.Tokens = a.leased
		e.ends = b.sent + lasts(a.length)
		e.Until = e.ends
		if a.length > leaseMicros {
			e.Until = b.sent + renewMicros
		}
	}
	if a.taken > 0 && e.borrowed > e.repaid && payLate(e, a.level) {
		b.words[place] = noneTaken + digits(a.level) + ":0"
	}
	e.Empty = 0
	if a.level < b.limit.period {
		e.Token = b.sent + untilToken(b.limit, a.level)
		e.Empty = e.Token
		if e.Empty > b.sent+maxEmpty {
			e.Empty = b.sent + maxEmpty
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
