package ratelimit

import "strings"

// A token that this process gave out while Redis was unavailable or late is still in the bucket in Redis: it was borrowed. It is
// subtracted from each level that Redis reports, and the next call for the key takes it in Redis as well. So a Redis that is late now
// and then does not double a bucket.
//
// A call takes as many tokens as there are. What an empty bucket cannot pay is forgiven: otherwise, after a long outage, the debts of
// a fleet would shut a client out for as many bucketfuls as there are gateways. A debt ends when the bucket would be full without it. Each
// batch that is sent before the first reply pays the whole debt, because a batch that pays nothing could overtake the one that pays, and
// take tokens that are owed. Tokens paid twice in this way are lost to the client, once.
//
// All of it needs Mu.

// debt is what a bucket is owed.
type debt struct {
	borrowed int64 // tokens that were taken here and not in Redis, ever
	repaid   int64 // of them, those that Redis was told of since, or that time has refilled
	paidBy   int64 // number of the last batch that pays for the others
}

// payment is tokens that the request at a place of a batch takes in Redis before its own.
type payment struct {
	lease  *Lease
	place  int
	tokens int64
	upTo   int64 // the borrowed tokens that are repaid then
}

// borrowLocked adds a token that was taken in this process to the debt.
func borrowLocked(l *Limiter, lease *Lease, now int64) {
	l.borrowedTotal++
	lease.borrowed++
	owedLocked(lease, now)
}

// owedLocked returns how many tokens are owed to a bucket.
func owedLocked(lease *Lease, now int64) int64 {
	missing := lease.limit.full - lease.bucket.refilled(lease.limit, now)
	most := (missing + lease.limit.period - 1) / lease.limit.period // the rest has been refilled by time
	if lease.borrowed-lease.repaid > most {
		lease.repaid = lease.borrowed - most
	}
	return lease.borrowed - lease.repaid
}

// lessOwedLocked returns a level that Redis reported, less what is owed.
func lessOwedLocked(lease *Lease, level int64) int64 {
	level -= (lease.borrowed - lease.repaid) * lease.limit.period
	if level < 0 {
		return 0
	}
	return level
}

// payLocked returns how many tokens the request at a place of a batch is to take for a debt.
func payLocked(lease *Lease, b *batch, place int, now int64) int64 {
	if lease.paidBy == b.number {
		return 0 // another request of the batch does
	}
	tokens := owedLocked(lease, now)
	if tokens > 0 {
		lease.paidBy = b.number
		b.payments = append(b.payments, &payment{lease: lease, place: place, tokens: tokens, upTo: lease.borrowed})
	}
	return tokens
}

// payLateLocked pays what the bucket cannot pay of a debt with the tokens that were just taken for a request, and reports whether none is left
// for the request itself: while its call was in flight, this process gave those tokens out. level is the bucket's afterwards.
func payLateLocked(lease *Lease, level int64) bool {
	missing := lease.borrowed - lease.repaid - level/lease.limit.period
	if missing <= 0 {
		return false
	}
	if missing > lease.Tokens {
		lease.repaid += lease.Tokens + 1
		lease.Tokens = 0
		return true
	}
	lease.repaid += missing
	lease.Tokens -= missing
	return false
}

// applyPlentyLocked applies an answer that only says that the bucket is nearly full, where this process may owe tokens.
func applyPlentyLocked(lease *Lease, b *batch, place int) {
	if lease.borrowed > lease.repaid && lease.limit == b.limit && payLateLocked(lease, b.limit.full/8*nearlyFull) {
		b.answers[place] = noneTaken + digits(b.limit.full/8*nearlyFull) + ":0"
	}
}

// repayLocked takes the payments of an answered batch off the debts, and leaves in each answer only the tokens that the request itself asked
// for.
func repayLocked(b *batch) {
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
		if p.lease.repaid < p.upTo {
			p.lease.repaid = p.upTo
		}
	}
}
