package ratelimit

import (
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// One batch under way gathers the next behind it, which is what makes a call cheap. More are for where Redis is far away.
const (
	maxBatch  = 256
	maxFlying = 16
	farAway   = 5000 // microseconds since the last one left
)

// batch is requests under one limit that ask Redis in one call, each for one token. The first of them, the oldest, leads it.
// Who is not its leader does next to nothing: the interpreter makes that the cost of a request.
type batch struct {
	number   int64
	hand     *Hand // that formed it, and may join by a raw
	limit    *Limit
	due      int64     // from then on it may leave, though another one is under way
	deadline time.Time // the leader's
	raws     []string  // of requests, in their order
	keys     []string  // of the others, in theirs; from its departure on, those of the raws follow
	asks     []string  // what they ask for, as it goes over the wire; of those at the end that ask for a token only there is none
	ends     []int     // places of the asks that end a lease: they must not be made twice
	ahead    []*Entry  // of the keys that it asks ahead for
	first    *Entry    // of those that were not known before
	riders   []*store.Call
	takeoff  sync.WaitGroup // until it may leave, where it has to wait
	landing  sync.WaitGroup // until what follows is there

	sent  int64 // when it left
	heard int64 // answers until then

	taken int64    // the verdict on a request that has its token
	plain bool     // each has
	words []string // else, of the answer, for each
	err   error
}

// line is where requests under one limit meet.
type line struct {
	forming *batch // that the next of them joins, or nil
}

// form makes an empty batch. mu is held.
func form(hand *Hand, now int64) *batch {
	l := hand.limiter
	l.last++
	b := &batch{
		number: l.last, hand: hand, limit: hand.limit, due: l.due, deadline: time.Now().Add(hand.timeout),
		first: &Entry{Limit: hand.limit, asked: now, asks: 1, first: true},
	}
	b.landing.Add(1)
	hand.line.forming = b
	hand.forming = b
	return b
}

// askAgain notes what the request at a place of the batch asks for, for a key of which something is known. mu is held.
func askAgain(l *Limiter, b *batch, key string, e *Entry, place int, now int64) {
	e = own(l, key, e)
	if e.Limit != b.limit {
		e = pass(e, b.limit)
		l.young[key] = e
	}
	ask, ends := askFor(e, b, now)
	if e.batch == b.number {
		b.ahead = append(b.ahead, e)
	}
	if ask == askOne {
		return
	}
	for len(b.asks) < place {
		b.asks = append(b.asks, askOne)
	}
	b.asks = append(b.asks, ask)
	e.place = place
	if ends {
		b.ends = append(b.ends, place)
	}
}

// carry takes a rider on board, unless one of its kind is. mu is held.
func carry(b *batch, rider *store.Call) {
	for _, other := range b.riders {
		if other.Script == rider.Script && other.Keys[0] == rider.Keys[0] {
			return
		}
	}
	b.riders = append(b.riders, rider)
}

// hurry closes a batch that is full, and lets those leave that have waited for long. mu is held.
func hurry(b *batch, now int64) {
	l := b.hand.limiter
	if len(b.keys)+len(b.raws) >= maxBatch {
		closeLine(l, b)
	}
	dispatch(l, now)
}

// dispatch lets batches leave that wait, as long as more may fly. mu is held.
func dispatch(l *Limiter, now int64) {
	for len(l.waiting) > 0 && (l.flying == 0 || l.flying < maxFlying && now >= l.due) {
		b := l.waiting[0]
		l.waiting = l.waiting[1:]
		depart(l, b, now)
		b.takeoff.Done()
	}
}

// closeLine lets nobody else join a batch. mu is held.
func closeLine(l *Limiter, b *batch) {
	if line := l.lines[b.limit]; line.forming == b {
		line.forming = nil
		b.hand.forming = nil
	}
}

// depart lets a batch leave. mu is held.
func depart(l *Limiter, b *batch, now int64) {
	closeLine(l, b)
	l.flying++
	l.due = now + farAway
	b.sent = now
	b.heard = l.heard
}

// lead asks Redis for the whole batch, when it may leave, and hears its answer. It lets those leave that have waited behind it. mu
// is held, and given back.
func lead(l *Limiter, b *batch, now int64) {
	if l.flying == 0 {
		depart(l, b, now)
	} else {
		await(l, b, now)
	}
	call := board(l, b)
	l.Mu.Unlock()
	if b.riders == nil {
		l.Store.Run([]*store.Call{call}, b.deadline)
	} else {
		runAll(l, b, call)
	}
	now = l.Now()
	l.Mu.Lock()
	land(l, b, call, now)
	l.flying--
	if len(l.waiting) > 0 {
		dispatch(l, now)
	}
	l.Mu.Unlock()
	b.landing.Done()
}

// await lets a batch wait until it has left. mu is held, and given back meanwhile.
func await(l *Limiter, b *batch, now int64) {
	b.takeoff.Add(1)
	l.waiting = append(l.waiting, b)
	if now >= l.due {
		dispatch(l, now)
	}
	l.Mu.Unlock()
	b.takeoff.Wait()
	l.Mu.Lock()
}

// runAll runs the call, and the riders with it.
func runAll(l *Limiter, b *batch, call *store.Call) {
	l.Store.Run(append([]*store.Call{call}, b.riders...), b.deadline)
	for _, rider := range b.riders {
		store.Finish(rider)
	}
}

// board makes the keys of the requests that joined a batch by their raws, notes what each asks for, and returns the batch as one call. It
// is one loop, where the interpreter charges the least: the values in a function are made when it is entered, once for all keys. So keyOf
// and get are written out. mu is held.
func board(l *Limiter, b *batch) *store.Call {
	kind, longest, heads, most := b.hand.naming.Kind, b.hand.naming.Longest, l.heads, len(l.heads)
	young, old, first, place := l.young, l.old, b.first, len(b.keys)
	keys := append(b.keys, b.raws...)
	words := make([]string, len(keys), 2*len(keys)+2)
	b.keys = keys
	odd := place > 0 // there are keys that no head is for, or whose words are not made here
	seldom := b.sent - b.limit.forgets
	var (
		key string
		e   *Entry
	)
	for _, raw := range b.raws {
		key = kind + raw
		if len(raw) > longest || raw == "" {
			key = b.hand.naming.Key(raw)
		}
		e = young[key]
		if e == nil {
			e = old[key]
		}
		if e == nil || e.first && e.asked < seldom && e.Limit == b.limit {
			young[key] = first // as most keys are, where there are many; askFor would ask for one token, too
		} else {
			askAgain(l, b, key, get(l, key), place, b.sent)
		}
		keys[place] = key
		if len(key) < most {
			words[place] = heads[len(key)] + key
		} else {
			odd = true
		}
		place++
	}
	if odd || strings.Trim(strings.Join(keys, ""), l.Safe) != "" {
		nameAll(l, keys, words)
	}
	words = append(words, b.limit.word, leaseWord)
	if b.asks != nil {
		words = append(words, b.asks...)
	}
	call := &store.Call{Script: script, Number: len(keys), Words: words}
	if b.ends != nil {
		endOnce(call, b)
	}
	return call
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

// land takes the answer to a batch, which came now. mu is held.
func land(l *Limiter, b *batch, call *store.Call, now int64) {
	l.heard++
	b.err = call.Err
	b.taken = 1
	if now < *l.Clear {
		b.taken = now
	}
	if b.err == nil && strings.Count(call.Answer, plenty) == len(b.keys) {
		b.plain = true
	} else {
		hear(l, b, call, now)
	}
	for _, e := range b.ahead {
		if e.batch == b.number {
			e.batch = 0
		}
	}
	if len(l.young) >= halfOfKeys {
		l.old = l.young
		l.young = map[string]*Entry{}
	}
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
	entered := len(b.keys) - len(b.raws)
	for i, word := range b.words {
		if word == plenty {
			continue
		}
		e := get(l, b.keys[i])
		if e == nil {
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
