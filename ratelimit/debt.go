package ratelimit

import "strings"

// A token that this process gave out while Redis was unavailable or late was borrowed: it is still in the bucket in Redis. This process
// subtracts it from each level that Redis reports, and the next call for the key takes it in Redis as well. Without this, occasional
// late replies would double a bucket.
//
// A call takes at most the tokens that the bucket has. The rest of the debt is forgiven: otherwise, after a long outage, each gateway's
// debt would cost a client another bucketful. A debt also ends when the bucket would be full without it. Each batch that is sent before
// the first reply pays the whole debt. Otherwise a batch that pays nothing could overtake the batch that pays and take tokens that are
// owed. The client loses the tokens that are paid twice, but only once.

// debt counts the tokens that this process owes to a bucket in Redis. The limiter's Mu guards it.
type debt struct {
	borrowed int64 // total tokens taken here but not in Redis
	repaid   int64 // of these, the tokens since taken in Redis, forgiven, or refilled by time
	paidBy   int64 // number of the last batch that pays the debt
}

// payment is the part of a debt that the request at a place of a batch pays: it takes these tokens in Redis in addition to its own.
type payment struct {
	lease  *Lease
	place  int
	tokens int64
	upTo   int64 // what repaid becomes when Redis has answered
}

// borrowLocked adds a token taken in this process to the debt.
func borrowLocked(l *Limiter, lease *Lease, now int64) {
	l.borrowedTotal++
	lease.borrowed++
	owedLocked(lease, now)
}

// owedLocked returns how many tokens this process owes to a bucket. It first writes off what time has refilled.
func owedLocked(lease *Lease, now int64) int64 {
	missing := lease.limit.full - lease.bucket.refilled(lease.limit, now)
	most := (missing + lease.limit.period - 1) / lease.limit.period // time has refilled the rest
	if lease.borrowed-lease.repaid > most {
		lease.repaid = lease.borrowed - most
	}
	return lease.borrowed - lease.repaid
}

// lessOwedLocked returns a level that Redis reported, minus the tokens owed.
func lessOwedLocked(lease *Lease, level int64) int64 {
	level -= (lease.borrowed - lease.repaid) * lease.limit.period
	if level < 0 {
		return 0
	}
	return level
}

// payLocked returns how many tokens the request at a place of a batch must take to pay the debt, and records the payment.
func payLocked(lease *Lease, b *batch, place int, now int64) int64 {
	if lease.paidBy == b.number {
		return 0 // another request of the batch pays
	}
	tokens := owedLocked(lease, now)
	if tokens > 0 {
		lease.paidBy = b.number
		b.payments = append(b.payments, &payment{lease: lease, place: place, tokens: tokens, upTo: lease.borrowed})
	}
	return tokens
}

// payLateLocked settles tokens that this process gave out while the request's call was in flight. If the bucket, now at level, cannot
// cover them, it uses the tokens of the new lease, and then the request's own token. It reports whether it used the request's own token.
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

// applyPlentyLocked applies the answer plenty for a bucket to which this process may owe tokens.
func applyPlentyLocked(lease *Lease, b *batch, place int) {
	if lease.borrowed > lease.repaid && lease.limit == b.limit && payLateLocked(lease, b.limit.full/8*nearlyFull) {
		b.answers[place] = noneTaken + digits(b.limit.full/8*nearlyFull) + ":0"
	}
}

// repayLocked subtracts the payments of an answered batch from the debts. It also removes them from the answers, so that each answer only
// counts the token that the request asked for itself.
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
