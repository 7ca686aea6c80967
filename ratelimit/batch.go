package ratelimit

import (
	"strings"
	"sync"

	"github.com/resilient-gateway/resilience/internal/store"
)

// One batch under way gathers the next behind it, which is what makes a call cheap. More are for where Redis is far away.
const (
	maxBatch  = 256
	maxFlying = 16
	farAway   = 5000 // microseconds since the last one left
)

// Where requests wait for a processor, and Redis is near, few go on at once: the next ones wait for Redis in their order, and not in
// each other's way.
const (
	crowded    = 300  // microseconds until all who were ready have run
	near       = 1000 // microseconds that the quickest answers take at the most
	aProcessor = 6    // requests in a batch then, for each
	fewest     = 12   // and at the least
)

// fewOf returns how many requests a batch takes along where they wait for one of so many processors.
func fewOf(processors int) int {
	few := processors * aProcessor
	if few < fewest {
		return fewest
	}
	if few > maxBatch {
		return maxBatch
	}
	return few
}

// batch is requests under one limit that ask Redis in one call, each for one token. They join, and wait; what else there is to do, a
// pilot does for all of them at once.
type batch struct {
	number   int64
	hand     *Hand // that formed it, and may join by a raw
	limit    *Limit
	due      int64          // from then on it may leave, though another one is under way
	last     int            // place of the raw that it has room for last
	raws     []string       // of requests, in their order
	keys     []string       // of the others, in theirs; from its departure on, those of the raws follow
	asks     []string       // what they ask for, as it goes over the wire; of those at the end that ask for a token only there is none
	ends     []int          // places of the asks that end a lease: they must not be made twice
	ahead    []*Entry       // of the keys that it asks ahead for
	payments []*payment     // that it makes
	first    *Entry         // of those that were not known before; asked is when the oldest request came
	landing  sync.WaitGroup // until what follows is there

	sent  int64 // when it left
	heard int64 // answers until then
	debts int64 // tokens that were borrowed until the first request joined

	taken int64    // the verdict on a request that has its token
	plain bool     // each has
	words []string // else, of the answer, for each
	err   error
}

// line is where requests under one limit meet.
type line struct {
	forming *batch   // that has begun, and may be joined, or nil
	ending  []string // keys whose leases are to be renewed
}

// form makes the batch that a hand begins next. A pilot has it written out. mu is held.
func form(hand *Hand) *batch {
	hand.limiter.last++
	b := &batch{
		number: hand.limiter.last, hand: hand, limit: hand.limit, first: &Entry{Limit: hand.limit, asks: 1, first: true},
	}
	b.landing.Add(1)
	hand.forming = b
	return b
}

// shut tells whether a hand's batch may not be joined: it may not while Redis is away, nor while another hand's batch of the same line
// may be. One that may begins to wait, unless it does already, and leaves if it has waited for long. mu is held.
func shut(hand *Hand, now int64) bool {
	l, line, b := hand.limiter, hand.line, hand.forming
	if line.forming == nil {
		if l.Away.Load() {
			return true
		}
		line.forming = b
		b.first.asked = now
		b.debts = l.debts
		b.last = l.room - 1
		l.waiting = append(l.waiting, b)
		if l.flying == 0 {
			launch(l, now)
		}
	} else if line.forming != b {
		return true
	}
	b.due = l.due
	if now >= b.due {
		hurry(b, now)
	}
	return false
}

// askAgain notes what the request at a place of the batch asks for, for a key of which something is known. mu is held.
func askAgain(l *Limiter, b *batch, key string, e *Entry, place int, now int64) {
	e = own(l, key, e)
	if e.Limit != b.limit {
		other := pass(e, b.limit)
		replace(l, key, e, other)
		e = other
	}
	ask, ends := askFor(e, b, place, now)
	if ask != askOne {
		enter(b, e, ask, ends, place)
	}
}

// enter notes what is asked for at a place of the batch, where that is not one token. mu is held.
func enter(b *batch, e *Entry, ask string, ends bool, place int) {
	for len(b.asks) < place {
		b.asks = append(b.asks, askOne)
	}
	b.asks = append(b.asks, ask)
	if e.batch == b.number {
		e.place = place
	}
	if ends {
		b.ends = append(b.ends, place)
	}
}

// hurry lets a batch leave that has waited for long. mu is held.
func hurry(b *batch, now int64) {
	l := b.hand.limiter
	if mayLeave(l, now) {
		launch(l, now)
	}
	b.due = l.due
}

// closeLine lets nobody else join a batch. mu is held.
func closeLine(b *batch) {
	hand := b.hand
	if hand.line.forming == b {
		hand.line.forming = nil
		form(hand)
	}
}

// nameAll makes the words of keys that may hold anything, and be long.
func nameAll(l *Limiter, keys, words []string) {
	for i, key := range keys {
		if strings.Trim(key, l.Safe) != "" {
			key = l.Name(key)
		}
		words[i] = store.Word(l.Prefix + key)
	}
}

// endOnce has the call end no lease twice: what one gives back would be given twice.
func endOnce(call *store.Call, b *batch) {
	call.Once = true
	call.Again = func(c *store.Call) {
		for _, place := range b.ends {
			c.Words[c.Number+2+place] = askOne
		}
		for _, p := range b.payments {
			c.Words[c.Number+2+p.place] = store.Word(digits(1+p.tokens) + " 0")
		}
	}
}

// headsOf returns what goes before a key of so many bytes, where the prefix goes before it.
func headsOf(prefix string) []string {
	heads := []string{}
	blank := strings.Repeat(" ", 100)
	for n := range blank {
		word := store.Word(prefix + blank[:n])
		heads = append(heads, word[:len(word)-n])
	}
	return heads
}

// hear takes what the answer tells of each key. mu is held.
func hear(l *Limiter, b *batch, call *store.Call, now int64) {
	b.words = strings.Fields(call.Answer)
	if b.err == nil && len(b.words) != len(b.keys) {
		b.err = errBadReply
	}
	if b.err != nil {
		return
	}
	if b.payments != nil {
		repay(b)
	}
	entered := len(b.keys) - len(b.raws)
	for i, word := range b.words {
		if word == plenty && l.debts == b.debts {
			continue
		}
		e := get(l, b.keys[i])
		if e == nil {
			continue
		}
		if word == plenty {
			hearPlenty(e, b, i)
			continue
		}
		e = own(l, b.keys[i], e)
		learn(l, e, b, i, now)
		if i >= entered && e.Limit == b.limit && (e.Tokens > 0 || e.Empty > now) {
			hold(b.hand, b.raws[i-entered], e)
		}
	}
}

// answerAt returns what the answer says to the request at a place, as Carry does.
func answerAt(b *batch, place int) (int64, error) {
	if b.plain {
		return b.taken, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	word := b.words[place]
	if word == plenty || strings.HasPrefix(word, oneTaken) {
		return b.taken, nil
	}
	a := read(word)
	if a.taken < 0 {
		return 0, ErrNotABucket
	}
	return refusal(b.limit, a.level), nil
}
