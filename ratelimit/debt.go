package ratelimit

import (
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// A token that this process gave out while Redis was away or late is still in the bucket in Redis. The entry owes it: it is subtracted from
// each level that Redis tells, and the next call for the key takes it in Redis as well. So a Redis that is late now and then does not
// double a bucket.
//
// A call takes as many tokens as there are. What an empty bucket cannot pay is forgiven: otherwise, after a long outage, the debts of
// a fleet would shut a client out for as many bucketfuls as there are gateways. A debt ends when the bucket would be full without it. Each
// batch that is sent before the first answer pays the whole debt, because a batch that pays nothing could overtake the one that pays, and
// take tokens that are owed. Tokens paid twice in this way are lost to the client, once.

// payment is tokens that the ask at a place of a batch takes before its own.
type payment struct {
	entry  *Grant
	place  int
	tokens int64
	upTo   int64 // the entry's borrowed tokens that are paid then
}

// borrow notes a token that was taken in this process. mu is held.
func borrow(l *Limiter, e *Grant, now int64) {
	l.borrowedTotal++
	e.borrowed++
	owed(e, now)
}

// owed returns how many tokens an entry owes. mu is held.
func owed(e *Grant, now int64) int64 {
	missing := e.Limit.full - e.bucket.refilled(e.Limit, now)
	most := (missing + e.Limit.period - 1) / e.Limit.period // of more, time has refilled some
	if e.borrowed-e.repaid > most {
		e.repaid = e.borrowed - most
	}
	return e.borrowed - e.repaid
}

// lessOwed returns the level that Redis told, less what the entry owes. mu is held.
func lessOwed(e *Grant, level int64) int64 {
	level -= (e.borrowed - e.repaid) * e.Limit.period
	if level < 0 {
		return 0
	}
	return level
}

// pay returns how many tokens the ask at a place of a batch is to take for a debt. mu is held.
func pay(e *Grant, b *batch, place int, now int64) int64 {
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
func askOnly(e *Grant, b *batch, place int, now int64) string {
	if e.borrowed == e.repaid {
		return askOne
	}
	return store.Word(digits(1+pay(e, b, place, now)) + " 0")
}

// payLate pays what the bucket cannot pay of a debt with the tokens that were just taken for a request, and reports whether none is left
// for the request itself: while its call was under way, this process gave those tokens out. level is the bucket's afterwards. mu is held.
func payLate(e *Grant, level int64) bool {
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

// hearPlenty applies an answer that only says that the bucket is nearly full, where this process owes tokens. mu is held.
func applyPlenty(e *Grant, b *batch, place int) {
	if e.borrowed > e.repaid && e.Limit == b.limit && payLate(e, b.limit.full/8*nearlyFull) {
		b.answers[place] = noneTaken + digits(b.limit.full/8*nearlyFull) + ":0"
	}
}

// repay takes the payments of an answered batch off the debts, and leaves in each answer only the tokens that the request itself asked
// for. mu is held.
func repay(b *batch) {
	for _, p := range b.payments {
		if !b.allGranted && b.answers[p.place] != plenty {
			word := b.answers[p.place]
			taken := parseAnswer(word).taken
			if taken < 0 {
				continue
			}
			rest := taken - p.tokens
			if rest < 0 {
				rest = 0
			}
			b.answers[p.place] = digits(rest) + word[strings.Index(word, ":"):]
		}
		if p.entry.repaid < p.upTo {
			p.entry.repaid = p.upTo
		}
	}
}
