package ratelimit

import (
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// A token that is taken in this process, because Redis was away or late, is one that Redis still has. The entry owes it: it is taken off
// each level that Redis tells, and the next ask for the key takes it in Redis too, before its own. So a Redis that is late now and then
// gives no bucket twice.
//
// An ask takes as many tokens as there are. What an empty bucket cannot pay is forgiven: else, after Redis was away for long, the debts of
// a fleet would keep a client out for as many bucketfuls as there are gateways. A debt ends where the bucket would be full without it. Each
// batch that leaves before the first answer pays the whole debt: one that does not could overtake the one that does, and take tokens that
// are owed. What is paid twice so is lost to the client, once.

// payment is tokens that the ask at a place of a batch takes before its own.
type payment struct {
	entry  *Entry
	place  int
	tokens int64
	upTo   int64 // the entry's borrowed tokens that are paid then
}

// borrow notes a token that was taken in this process. mu is held.
func borrow(l *Limiter, e *Entry, now int64) {
	l.debts++
	e.borrowed++
	owed(e, now)
}

// owed returns how many tokens an entry owes. mu is held.
func owed(e *Entry, now int64) int64 {
	missing := e.Limit.full - e.bucket.refilled(e.Limit, now)
	most := (missing + e.Limit.period - 1) / e.Limit.period // of more, time has refilled some
	if e.borrowed-e.repaid > most {
		e.repaid = e.borrowed - most
	}
	return e.borrowed - e.repaid
}

// lessOwed returns the level that Redis told, less what the entry owes. mu is held.
func lessOwed(e *Entry, level int64) int64 {
	level -= (e.borrowed - e.repaid) * e.Limit.period
	if level < 0 {
		return 0
	}
	return level
}

// pay returns how many tokens the ask at a place of a batch is to take for a debt. mu is held.
func pay(e *Entry, b *batch, place int, now int64) int64 {
	if e.paidBy == b.number {
		return 0 // another ask of the batch does
	}
	tokens := owed(e, now)
	if tokens > 0 {
		e.paidBy = b.number
		b.payments = append(b.payments, &payment{entry: e, place: place, tokens: tokens, upTo: e.borrowed})
	}
	return tokens
}

// askAlone returns what to ask Redis for at a place of a batch, for one request and nothing ahead of need. mu is held.
func askAlone(e *Entry, b *batch, place int, now int64) string {
	if e.borrowed == e.repaid {
		return askOne
	}
	return store.Word(digits(1+pay(e, b, place, now)) + " 0")
}

// payLate has the tokens that were taken for a request pay a debt that the bucket cannot pay, and tells whether the request has none
// then: while it was under way, what it asked for was taken here. level is the bucket's afterwards. mu is held.
func payLate(e *Entry, level int64) bool {
	missing := e.borrowed - e.repaid - level/e.Limit.period
	if missing <= 0 {
		return false
	}
	if missing > e.Tokens {
		e.repaid += e.Tokens + 1
		e.Tokens = 0
		return true
	}
	e.repaid += missing
	e.Tokens -= missing
	return false
}

// hearPlenty takes an answer that says no more than that there is plenty, after tokens were taken here. mu is held.
func hearPlenty(e *Entry, b *batch, place int) {
	if e.borrowed > e.repaid && e.Limit == b.limit && payLate(e, b.limit.full/8*nearlyFull) {
		b.words[place] = noneTaken + digits(b.limit.full/8*nearlyFull) + ":0"
	}
}

// repay notes that a batch was answered, which takes its payments off the debts, and has each answer tell only of the tokens that the
// request itself asked for. mu is held.
func repay(b *batch) {
	for _, p := range b.payments {
		if !b.plain && b.words[p.place] != plenty {
			word := b.words[p.place]
			taken := read(word).taken
			if taken < 0 {
				continue
			}
			rest := taken - p.tokens
			if rest < 0 {
				rest = 0
			}
			b.words[p.place] = digits(rest) + word[strings.Index(word, ":"):]
		}
		if p.entry.repaid < p.upTo {
			p.entry.repaid = p.upTo
		}
	}
}
