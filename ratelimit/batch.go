package ratelimit

import (
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// One batch under way gathers the next behind it, which is what makes a call cheap; a second one is for a key that the
// first does not ask for, and more only where Redis is far away.
const (
	maxBatch  = 128
	fewFlying = 2
	maxFlying = 16
	farAway   = 1000 // microseconds since the last one left
)

// request is one caller of Allow, waiting.
type request struct {
	key      string
	limit    *Limit
	deadline time.Time
	rider    *store.Call
	done     sync.WaitGroup // until it is answered, or has a batch to fly
	batch    int64          // number of the one that it is to fly; 0: another flies it
	decision Decision
	err      error
}

// batch is requests that ask in one call, under one limit. The first of them, the oldest, flies it. The types of this
// file point at each other one way only, the other way by number: the interpreter does not get round a circle of types.
type batch struct {
	number int64
	limit  *Limit
	leader *request
	groups []*group
	riders []*store.Call
	sent   int64
}

// group is the requests of a batch for one key.
type group struct {
	key      string
	entry    *entry
	ask      string
	ended    bool // the ask ends a lease: it must not be made twice
	requests []*request
}

// dispatch answers the requests that need not ask any more, and sends batches off with the others, as long as more may
// fly. mu is held.
func (l *Limiter) dispatch(now int64) {
	for len(l.queue) > 0 {
		if l.flying >= maxFlying || l.flying >= fewFlying && now-l.flown < farAway {
			return
		}
		b := l.gather(now)
		if b == nil {
			return
		}
		l.flying++
		l.flown = now
		l.batches[b.number] = b
		b.leader.batch = b.number
		b.leader.done.Done()
	}
}

// gather makes a batch of what is in the queue: all requests under the limit of the first, but for keys that another batch
// asks for. nil says that there are none. mu is held.
func (l *Limiter) gather(now int64) *batch {
	var b *batch
	var rest []*request
	for _, r := range l.queue {
		e := l.known.get(r.key)
		if verdict := spend(e, r.limit, now); verdict != 0 {
			r.decision = decide(verdict)
			r.done.Done()
			continue
		}
		if e == nil {
			e = &entry{bucket: fullBucket(r.limit, now)}
			l.known.add(r.key, e)
		}
		if e.batch == 0 && b == nil {
			l.last++
			b = &batch{number: l.last, limit: r.limit, leader: r, sent: now}
		}
		if b == nil || !b.takes(r, e) {
			rest = append(rest, r)
		}
	}
	l.queue = rest
	if b != nil {
		for _, g := range b.groups {
			g.word(now)
		}
	}
	return b
}

// takes adds the request to the batch, if it fits. The limiter's lock is held.
func (b *batch) takes(r *request, e *entry) bool {
	if b.limit != r.limit || e.batch != 0 && e.batch != b.number {
		return false
	}
	if e.batch == 0 {
		if len(b.groups) == maxBatch {
			return false
		}
		e.batch = b.number
		e.place = len(b.groups)
		b.groups = append(b.groups, &group{key: r.key, entry: e})
	}
	g := b.groups[e.place]
	g.requests = append(g.requests, r)
	if r.rider != nil && !b.carries(r.rider) {
		b.riders = append(b.riders, r.rider)
	}
	return true
}

// word puts what the group asks for into words. The limiter's lock is held.
func (g *group) word(now int64) {
	waiting := int64(len(g.requests))
	ahead := g.entry.demand(waiting, now)
	lease, unused := g.entry.endLease(now)
	g.ask = digits(waiting) + " " + digits(ahead)
	if lease != 0 {
		g.ended = true
		g.ask += " " + digits(lease) + " " + digits(unused)
	}
}

// carries tells whether a rider of the same kind is on board already.
func (b *batch) carries(rider *store.Call) bool {
	for _, other := range b.riders {
		if other.Script == rider.Script && other.Keys[0] == rider.Keys[0] {
			return true
		}
	}
	return false
}

// fly asks Redis for the whole batch, answers its requests, and sends off who has waited behind it.
func (l *Limiter) fly(number int64) {
	l.mu.Lock()
	b := l.batches[number]
	delete(l.batches, number)
	heard := l.heard
	l.mu.Unlock()
	call := l.call(b)

	l.Store.Run(append([]*store.Call{call}, b.riders...), b.leader.deadline)
	for _, rider := range b.riders {
		rider.Finish()
	}

	answers, err := read(call, len(b.groups))
	now := l.Now()
	l.mu.Lock()
	l.heard++
	for i, g := range b.groups {
		g.entry.batch = 0
		if err == nil && answers[i].taken >= 0 {
			l.learn(g.entry, b.limit, answers[i], b.sent, now, heard)
			g.answer(answers[i], b.limit)
		} else {
			g.fail(err)
		}
	}
	l.flying--
	l.dispatch(now)
	l.mu.Unlock()
	for _, g := range b.groups {
		for _, r := range g.requests {
			if r != b.leader {
				r.done.Done()
			}
		}
	}
}

// call puts the batch into one call.
func (l *Limiter) call(b *batch) *store.Call {
	call := &store.Call{Script: script, Keys: make([]string, 0, len(b.groups)), Args: make([]string, 0, 2+len(b.groups))}
	call.Args = append(call.Args, b.limit.words, leaseWords)
	for _, g := range b.groups {
		call.Keys = append(call.Keys, l.Prefix+l.Name(g.key))
		call.Args = append(call.Args, g.ask)
		if g.ended {
			// A lease must not be ended twice: what it gives back would be given twice.
			call.Once = true
			call.Again = func(c *store.Call) { endNothing(c, b) }
		}
	}
	return call
}

// endNothing makes a call that ends leases fit for a second try: they end by their time.
func endNothing(c *store.Call, b *batch) {
	for i, g := range b.groups {
		if g.ended {
			c.Args[2+i] = digits(int64(len(g.requests))) + " 0"
		}
	}
}

// fail tells the requests that there is no answer; without an error, that there is none for this key.
func (g *group) fail(err error) {
	if err == nil {
		err = ErrNotABucket
	}
	for _, r := range g.requests {
		r.err = err
	}
}

// answer gives the tokens taken to the requests that came first.
func (g *group) answer(a answer, limit *Limit) {
	for i, r := range g.requests {
		if int64(i) < a.taken {
			r.decision = Decision{Allowed: true}
		} else {
			r.decision = Decision{RetryAfter: limit.retryAfter(a.level)}
		}
	}
}
