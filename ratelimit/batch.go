package ratelimit

import (
	"strings"
	"sync"

	"github.com/resilient-gateway/resilience/internal/store"
)

// One batch under way gathers the next behind it, which is what makes a call cheap. More are for where Redis is far away.
const (
	maxBatch     = 256
	maxInFlight  = 16
	sendInterval = 5000 // microseconds since the last one left
)

// Where requests wait for a processor, and Redis is near, few go on at once: the next ones wait for Redis in their order, and not in
// each other's way.
const (
	contendedAfter  = 300  // microseconds until all who were ready have run
	nearRTT         = 1000 // microseconds that the quickest answers take at the most
	perCPU          = 6    // requests in a batch then, for each
	minContendedCap = 12   // and at the least
)

// fewOf returns how many requests a batch takes along where they wait for one of so many processors.
func contendedCapOf(processors int) int {
	few := processors * perCPU
	if few < minContendedCap {
		return minContendedCap
	}
	if few > maxBatch {
		return maxBatch
	}
	return few
}

// batch is requests under one limit that ask Redis in one call, each for one token. They join, and wait; what else there is to do, a
// pilot does for all of them at once.
type batch struct {
	number      int64
	cache       *Cache // that formed it, and may join by a raw
	limit       *Limit
	sendAt      int64          // from then on it may leave, though another one is under way
	lastPlace   int            // place of the raw that it has room for last
	ids         []string       // of requests, in their order
	keys        []string       // of the others, in theirs; from its departure on, those of the raws follow
	args        []string       // what they ask for, as it goes over the wire; of those at the end that ask for a token only there is none
	returns     []int          // places of the asks that end a lease: they must not be made twice
	prefetching []*Grant       // of the keys that it asks ahead for
	payments    []*payment     // that it makes
	newGrant    *Grant         // of those that were not known before; asked is when the oldest request came
	done        sync.WaitGroup // until what follows is there

	sentAt        int64 // when it left
	replySeq      int64 // answers until then
	borrowedTotal int64 // tokens that were borrowed until the first request joined

	grantedAt  int64    // the verdict on a request that has its token
	allGranted bool     // each has
	answers    []string // else, of the answer, for each
	err        error
}

// line is where requests under one limit meet.
type queue struct {
	open     *batch   // that has begun, and may be joined, or nil
	renewals []string // keys whose leases are to be renewed
}

// form makes the batch that a hand begins next. A pilot has it written out. mu is held.
func newBatch(hand *Cache) *batch {
	hand.limiter.batchSeq++
	b := &batch{
		number: hand.limiter.batchSeq, cache: hand, limit: hand.limit, newGrant: &Grant{Limit: hand.limit, requests: 1, common: true},
	}
	b.done.Add(1)
	hand.openBatch = b
	return b
}

// shut tells whether a hand's batch may not be joined: it may not while Redis is away, nor while another hand's batch of the same line
// may be. One that may begins to wait, unless it does already, and leaves if it has waited for long. mu is held.
func cannotJoin(hand *Cache, now int64) bool {
	l, line, b := hand.limiter, hand.queue, hand.openBatch
	if line.open == nil {
		if l.Unavailable.Load() {
			return true
		}
		line.open = b
		b.newGrant.prefetchedAt = now
		b.borrowedTotal = l.borrowedTotal
		b.lastPlace = l.batchCap - 1
		l.pending = append(l.pending, b)
		if l.inFlight == 0 {
			startWorker(l, now)
		}
	} else if line.open != b {
		return true
	}
	b.sendAt = l.nextSend
	if now >= b.sendAt {
		sendIfOverdue(b, now)
	}
	return false
}

// askAgain notes what the request at a place of the batch asks for, for a key of which something is known. mu is held.
func askForKnown(l *Limiter, b *batch, key string, e *Grant, place int, now int64) {
	e = unshare(l, key, e)
	if e.Limit != b.limit {
		other := changeLimit(e, b.limit)
		replace(l, key, e, other)
		e = other
	}
	ask, ends := askLocked(e, b, place, now)
	if ask != askOne {
		addArg(b, e, ask, ends, place)
	}
}

// enter notes what is asked for at a place of the batch, where that is not one token. mu is held.
func addArg(b *batch, e *Grant, ask string, ends bool, place int) {
	for len(b.args) < place {
		b.args = append(b.args, askOne)
	}
	b.args = append(b.args, ask)
	if e.prefetchBatch == b.number {
		e.prefetchPlace = place
	}
	if ends {
		b.returns = append(b.returns, place)
	}
}

// hurry lets a batch leave that has waited for long. mu is held.
func sendIfOverdue(b *batch, now int64) {
	l := b.cache.limiter
	if maySend(l, now) {
		startWorker(l, now)
	}
	b.sendAt = l.nextSend
}

// closeLine lets nobody else join a batch. mu is held.
func seal(b *batch) {
	hand := b.cache
	if hand.queue.open == b {
		hand.queue.open = nil
		newBatch(hand)
	}
}

// nameAll makes the words of keys that may hold anything, and be long.
func makeWireKeys(l *Limiter, keys, words []string) {
	for i, key := range keys {
		if strings.Trim(key, l.Safe) != "" {
			key = l.Name(key)
		}
		words[i] = store.Word(l.Prefix + key)
	}
}

// endOnce has the call end no lease twice: what one gives back would be given twice.
func returnOnce(call *store.Call, b *batch) {
	call.Once = true
	call.Again = func(c *store.Call) {
		for _, place := range b.returns {
			c.Words[c.Number+2+place] = askOne
		}
		for _, p := range b.payments {
			c.Words[c.Number+2+p.place] = store.Word(digits(1+p.tokens) + " 0")
		}
	}
}

// headsOf returns what goes before a key of so many bytes, where the prefix goes before it.
func keyHeadsOf(prefix string) []string {
	heads := []string{}
	blank := strings.Repeat(" ", 100)
	for n := range blank {
		word := store.Word(prefix + blank[:n])
		heads = append(heads, word[:len(word)-n])
	}
	return heads
}

// hear takes what the answer tells of each key. mu is held.
func applyReply(l *Limiter, b *batch, call *store.Call, now int64) {
	b.answers = strings.Fields(call.Answer)
	if b.err == nil && len(b.answers) != len(b.keys) {
		b.err = errBadReply
	}
	if b.err != nil {
		return
	}
	if b.payments != nil {
		repay(b)
	}
	entered := len(b.keys) - len(b.ids)
	for i, word := range b.answers {
		if word == plenty && l.borrowedTotal == b.borrowedTotal {
			continue
		}
		e := lookup(l, b.keys[i])
		if e == nil {
			continue
		}
		if word == plenty {
			applyPlenty(e, b, i)
			continue
		}
		e = unshare(l, b.keys[i], e)
		applyAnswer(l, e, b, i, now)
		if i >= entered && e.Limit == b.limit && (e.Tokens > 0 || e.RefuseUntil > now) {
			put(b.cache, b.ids[i-entered], e)
		}
	}
}

// answerAt returns what the answer says to the request at a place, as Carry does.
func verdictAt(b *batch, place int) (int64, error) {
	if b.allGranted {
		return b.grantedAt, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	word := b.answers[place]
	if word == plenty || strings.HasPrefix(word, oneTaken) {
		return b.grantedAt, nil
	}
	a := parseAnswer(word)
	if a.taken < 0 {
		return 0, ErrNotABucket
	}
	return refusal(b.limit, a.level), nil
}
