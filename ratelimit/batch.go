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

// batch is requests under one limit that ask Redis in one call, each for one token. The first of them, the oldest, flies it.
// Who is not its leader does next to nothing: the interpreter makes that the cost of a request.
type batch struct {
	number   int64
	limit    *Limit
	deadline time.Time // the leader's
	entries  []*Entry  // of the requests, in their order
	keys     []string  // and their names, as they go over the wire
	asks     []string  // what the script is told: the limit, the terms of a lease, and what each asks for
	ends     []int     // places of the asks that end a lease: they must not be made twice
	riders   []*store.Call
	takeoff  sync.WaitGroup // until it may leave
	landing  sync.WaitGroup // until words and err are there

	sent  int64 // when it left
	heard int64 // answers until then

	words []string // of the answer, for each request
	err   error
}

// form makes an empty batch. mu is held.
func form(l *Limiter, limit *Limit, timeout time.Duration) *batch {
	l.last++
	b := &batch{number: l.last, limit: limit, deadline: time.Now().Add(timeout), asks: []string{limit.word, leaseWord}}
	b.takeoff.Add(1)
	b.landing.Add(1)
	l.forming[limit] = b
	l.waiting = append(l.waiting, b)
	return b
}

// find returns the entry of a key that is not among the young ones: an old one, or a new one that has asked for nothing yet.
// mu is held.
func find(l *Limiter, key string, limit *Limit, now int64) *Entry {
	e := get(l.known, key)
	if e == nil {
		e = newEntry(l, key, limit, now)
		add(l.known, key, e)
	}
	return e
}

// newEntry returns an entry of which nothing is known, so that its bucket is taken for full.
func newEntry(l *Limiter, key string, limit *Limit, now int64) *Entry {
	e := &Entry{Limit: limit, asked: now}
	e.bucket.at = now
	if l.Store == nil {
		return e
	}
	name := key
	if strings.Trim(key, l.Safe) != "" {
		name = l.Name(key)
	}
	e.word = store.Word(l.Prefix + name)
	return e
}

// askAgain returns what a request in the batch asks for, for a key of which something is known, and the entry that the answer is
// for. mu is held.
func askAgain(l *Limiter, b *batch, key string, e *Entry, now int64) (*Entry, string) {
	if e.Limit != b.limit {
		e = pass(e, b.limit)
		l.known.young[key] = e
	}
	ask, ends := askFor(e, b, now)
	if ends {
		b.ends = append(b.ends, len(b.asks))
	}
	return e, ask
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

// dispatch lets batches leave that wait, as long as more may fly. mu is held.
func dispatch(l *Limiter, now int64) {
	for len(l.waiting) > 0 && (l.flying == 0 || l.flying < maxFlying && now-l.flown >= farAway) {
		b := l.waiting[0]
		l.waiting = l.waiting[1:]
		if l.forming[b.limit] == b {
			delete(l.forming, b.limit)
		}
		l.flying++
		l.flown = now
		b.sent = now
		b.heard = l.heard
		b.takeoff.Done()
	}
}

// fly asks Redis for the whole batch and hears its answer. It lets those leave that have waited behind it.
func fly(l *Limiter, b *batch) {
	call := callFor(b)
	l.Store.Run(append([]*store.Call{call}, b.riders...), b.deadline)
	for _, rider := range b.riders {
		store.Finish(rider)
	}
	words := strings.Fields(call.Answer)
	err := call.Err
	if err == nil && len(words) != len(b.entries) {
		err = errBadReply
	}
	now := l.Now()
	l.Mu.Lock()
	b.words, b.err = words, err
	l.heard++
	hear(l, b, now)
	l.flying--
	dispatch(l, now)
	l.Mu.Unlock()
	b.landing.Done()
}

// callFor returns the batch as one call.
func callFor(b *batch) *store.Call {
	call := &store.Call{Script: script, Number: len(b.keys), Words: append(b.keys, b.asks...)}
	if len(b.ends) > 0 {
		// A lease must not be ended twice: what it gives back would be given twice.
		call.Once = true
		call.Again = func(c *store.Call) {
			for _, place := range b.ends {
				c.Words[c.Number+place] = askOne
			}
		}
	}
	return call
}

// hear takes what the answer tells of each key. mu is held.
func hear(l *Limiter, b *batch, now int64) {
	for i, e := range b.entries {
		if b.err == nil {
			word := b.words[i]
			if word[0] == plenty && e.heard <= b.heard && e.Limit == b.limit {
				e.told = word
				e.bucket.at = now
				e.heard = l.heard
			} else {
				learn(l, e, b, word, now)
			}
		}
		if e.batch == b.number {
			e.batch = 0
		}
	}
}

// verdict returns what the answer says to the request at a place, as Allow does.
func verdict(b *batch, place int) (int64, error) {
	if b.err != nil {
		return 0, b.err
	}
	a := read(b.words[place])
	if a.taken < 0 {
		return 0, ErrNotABucket
	}
	if a.taken > 0 {
		return 1, nil
	}
	return refusal(b.limit, a.level), nil
}
