package ratelimit

import (
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// applyPlansLocked applies the reply to a batch of plans.
func applyPlansLocked(l *Limiter, b *batch, call *store.Call, now int64) {
	answers := strings.Fields(call.Answer)
	if b.err == nil && len(answers) != len(b.asks) {
		b.err = errBadReply
	}
	for i, ask := range b.asks {
		if b.err == nil {
			applyAskLocked(l, b, ask, answers[i], now)
		}
		endAskLocked(b, ask)
	}
}

// endAskLocked allows other batches to ask for leases for which this one asked.
func endAskLocked(b *batch, ask *planAsk) {
	for i := range ask.draws {
		lease := ask.draws[i].lease
		if lease.asking == b.number {
			lease.asking = 0
		}
	}
	if ask.renew != nil {
		ask.renew.renewing = false
	}
}

// applyAskLocked applies the answer to one request or renewal.
func applyAskLocked(l *Limiter, b *batch, ask *planAsk, word string, now int64) {
	if word == plenty {
		for i := range ask.draws {
			applyPlentyDrawLocked(&ask.draws[i])
			noteAnswerLocked(ask, i, nil)
		}
		if ask.taking != nil {
			ask.taking.answered = true
			ask.taking.taken = true
		}
		return
	}
	left := int64(0)
	if word[0] == penalised {
		left, word = parsePenalised(word)
		penaliseLocked(ask.client, now+left)
	}
	taken, answers := parseDraws(word)
	if taken < 0 || len(answers) != len(ask.draws) {
		return
	}
	for i := range ask.draws {
		if len(answers[i].levels) != len(ask.draws[i].lease.levels.limits) {
			return
		}
	}
	for i := range ask.draws {
		applyDrawLocked(l, b, &ask.draws[i], &answers[i], now)
		noteAnswerLocked(ask, i, &answers[i])
	}
	t := ask.taking
	if t == nil {
		return
	}
	t.answered = true
	t.taken = taken == 1
	if left > 0 {
		t.wait = left
		t.refusal = Refusal{Limit: PenaltyName}
	} else if !t.taken {
		refuseTakingLocked(t, ask, answers)
	}
}

// noteAnswerLocked notes what the answer to a draw says is left, if the request shows it.
func noteAnswerLocked(ask *planAsk, draw int, a *drawAnswer) {
	if ask.taking != nil && ask.taking.left != nil {
		ask.taking.left.noteAnswer(&ask.draws[draw], a)
	}
}

// applyPlentyDrawLocked applies plenty: every level is nearly full, and the debt is paid.
func applyPlentyDrawLocked(d *askedDraw) {
	if d.owed > 0 && d.lease.repaid < d.upTo {
		d.lease.repaid = d.upTo
	}
	d.lease.RefuseUntil = 0
}

// applyDrawLocked applies the answer to one draw, received now: as applyAnswerLocked does for one limit.
func applyDrawLocked(l *Limiter, b *batch, d *askedDraw, a *drawAnswer, now int64) {
	lease := d.lease
	if d.owed > 0 && lease.repaid < d.upTo {
		lease.repaid = d.upTo
	}
	owed := lease.borrowed - lease.repaid
	lease.RefuseUntil = 0
	lease.NextToken = 0
	for i, limit := range lease.levels.limits {
		level := a.levels[i] - owed*limit.period
		if level < 0 {
			level = 0
		}
		known := lease.buckets[i]
		if known.replySeq <= b.replySeq || known.bucket.refilled(limit, now) > level {
			known.bucket = bucket{level: level, at: now, period: limit.period}
		}
		known.replySeq = l.replySeq
		if next := b.sentAt + untilToken(limit, a.levels[i]); a.levels[i] < limit.period && next > lease.NextToken {
			lease.NextToken = next
			lease.emptyLimit = lease.levels.names[i]
		}
	}
	if d.leases && lease.asking == b.number {
		lease.number = a.lease
		lease.size = a.leased
		lease.Tokens = a.leased
		lease.ends = b.sentAt + lasts(a.length)
		lease.Until = lease.ends
		if a.length > leaseMicros {
			lease.Until = b.sentAt + renewMicros
		}
		if isDelayedLocked(l, lease.key) {
			lease.Until = 0
		}
		payFromLeaseLocked(lease, owed, a)
	}
	if lease.NextToken > 0 {
		lease.RefuseUntil = lease.NextToken
		if lease.RefuseUntil > b.sentAt+maxEmpty {
			lease.RefuseUntil = b.sentAt + maxEmpty
		}
		if len(l.bucketTables) > 1 {
			emptySiblingsLocked(l, lease)
		}
	}
}

// emptySiblingsLocked notes that a level is empty in the other leases of the same bucket value that have it too. A tier's requests and others
// of its clients have such leases.
func emptySiblingsLocked(l *Limiter, lease *bucketLease) {
	for _, table := range l.bucketTables {
		other := table.recent[lease.key]
		if other == nil {
			other = table.previous[lease.key]
		}
		if other != nil && other != lease {
			emptyAsLocked(other, lease)
		}
	}
}

// payFromLeaseLocked settles tokens that this process gave out while the call was in flight, as far as the levels cannot cover them: it uses
// the tokens of the new lease.
func payFromLeaseLocked(lease *bucketLease, owed int64, a *drawAnswer) {
	for i, limit := range lease.levels.limits {
		missing := owed - a.levels[i]/limit.period
		if missing > lease.Tokens {
			missing = lease.Tokens
		}
		if missing > 0 {
			lease.Tokens -= missing
			lease.repaid += missing
			owed -= missing
		}
	}
}

// refuseTakingLocked says how long a refused request must wait, and which limit it waits for longest.
func refuseTakingLocked(t *taking, ask *planAsk, answers []drawAnswer) {
	for i := range ask.draws {
		d := &ask.draws[i]
		for n, limit := range d.lease.levels.limits {
			if wait := untilTokens(limit, answers[i].levels[n], d.cost); wait > t.wait {
				t.wait = wait
				t.refusal = Refusal{Limit: d.lease.levels.names[n], Draw: d.index}
			}
		}
	}
}
