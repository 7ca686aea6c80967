package ratelimit

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// mayLeave tells whether one more of the batches that wait may leave. mu is held.
func mayLeave(l *Limiter, now int64) bool {
	return len(l.waiting) > l.cleared && (l.flying == 0 || l.flying < maxFlying && now >= l.due)
}

// launch clears the next batch for take-off: a pilot is on its way to it, one that has nothing to do, or a new one. mu is held.
func launch(l *Limiter, now int64) {
	l.cleared++
	l.flying++
	l.due = now + farAway
	if l.idle > 0 {
		l.idle--
		l.wake.Signal()
	} else {
		go l.start()
	}
}

// ready makes what the limiter's pilots need.
func ready(l *Limiter) {
	l.wake = sync.NewCond(l.Mu)
	// Made here, and not where a request starts it: the interpreter keeps all that a function was made among.
	l.start = func() {
		defer func() { recover() }()
		pilot(l)
	}
}

// Close lets the pilots go. Requests that still come are served.
func Close(l *Limiter) {
	l.Mu.Lock()
	l.closed = true
	l.idle = 0
	l.wake.Broadcast()
	l.Mu.Unlock()
}

// pilot asks Redis for one batch after the other, and waits for the next one where there is none. It is one loop with all
// that most batches need written out: the interpreter makes the values of a function when it is entered, here once for all
// batches and all their keys, where a function for each step would make three hundred for each batch.
func pilot(l *Limiter) {
	var (
		b, formed     *batch
		hand          *Hand
		limit         *Limit
		e, first      *Entry
		young, old    map[string]*Entry
		call          *store.Call
		calls         []*store.Call
		keys, words   []string
		key, kind     string
		place, long   int
		now, landed   int64
		flight        int64
		seldom        int64
		odd, unlocked bool
		asks          bool // for leave
	)
	unlocked = true
	defer func() {
		if trouble := recover(); trouble != nil {
			crash(l, b, unlocked, trouble)
		}
	}()
	heads, most, run, clock := l.heads, len(l.heads), l.Store.Run, l.Now
	zero := time.Now().Add(-time.Duration(clock()) * time.Microsecond)
	l.Mu.Lock()
	unlocked = false
	now = clock()
	for {
		for l.cleared == 0 {
			if l.closed {
				l.Mu.Unlock()
				return
			}
			young = nil // the interpreter keeps what they hold
			old = nil
			l.idle++
			l.wake.Wait()
			now = clock()
		}

		// A batch leaves.
		l.cleared--
		b = l.waiting[0]
		l.waiting = l.waiting[1:]
		l.due = now + farAway
		b.sent = now
		b.heard = l.heard
		limit = b.limit
		hand = b.hand
		if hand.line.forming == b {
			hand.line.forming = nil
			l.last++ // form, written out
			formed = &batch{number: l.last, hand: hand, limit: limit, first: &Entry{Limit: limit, asks: 1, first: true}}
			formed.landing.Add(1)
			hand.forming = formed
		}

		if hand.line.ending != nil {
			renew(l, b, now)
		}

		// The keys of the requests that joined by their raws are made, and what each asks for is noted. keyOf and get are written out.
		kind = hand.naming.Kind
		long = hand.naming.Longest
		place = len(b.keys)
		odd = false // there are keys that no head is for
		keys = append(b.keys, b.raws...)
		b.keys = keys
		words = make([]string, len(keys), 2*len(keys)+2)
		if place > 0 {
			nameAll(l, keys[:place], words)
		}
		young = l.young
		old = l.old
		first = b.first
		seldom = now - limit.forgets
		for _, raw := range b.raws {
			key = kind + raw
			if len(raw) > long || raw == "" {
				key = hand.naming.Key(raw)
			}
			e = young[key]
			if e == nil {
				e = old[key]
			}
			if e == nil || e.first && e.asked < seldom && e.Limit == limit {
				young[key] = first // as most keys are, where there are many; askFor would ask for one token, too
			} else {
				askAgain(l, b, key, get(l, key), place, now)
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
		words = append(words, limit.word, leaseWord)
		if b.asks != nil {
			words = append(words, b.asks...)
		}
		call = &store.Call{Script: script, Number: place, Words: words}
		if b.ends != nil {
			endOnce(call, b)
		}
		calls = []*store.Call{call}
		asks = now >= *l.Clear && hand.Leave != nil

		l.Mu.Unlock()
		unlocked = true
		if asks {
			calls = takeAlong(calls, hand.Leave.Rider(now))
		}
		run(calls, zero.Add(hand.timeout+time.Duration(first.asked)*time.Microsecond))
		if asks {
			finishAll(calls[1:])
		}
		now = clock()
		l.Mu.Lock()
		unlocked = false

		if now >= *l.Clear && hand.Leave != nil {
			unlocked = true
			l.Mu.Unlock()
			hand.Leave.Extend(now)
			l.Mu.Lock()
			unlocked = false
		}

		// It has landed.
		l.heard++
		flight = now - b.sent
		if call.Err != nil {
			flight = l.away // no answer is no quick one
		}
		if flight < l.away {
			l.away = flight
		} else {
			l.away += (flight - l.away) / 256
		}
		b.err = call.Err
		b.taken = 1
		if now < *l.Clear {
			b.taken = now
		}
		if call.Err == nil && l.debts == b.debts && strings.Count(call.Answer, plenty) == place {
			b.plain = true
			if b.payments != nil {
				repay(b)
			}
		} else {
			hear(l, b, call, now)
		}
		if b.ahead != nil {
			askedAhead(b)
		}
		if len(l.young) >= halfOfKeys {
			forget(l)
		}
		l.flying--
		b.landing.Done()
		b = nil
		if len(l.waiting) > l.cleared && (l.flying == 0 || l.flying < maxFlying && now >= l.due) { // mayLeave and launch, written out
			l.cleared++
			l.flying++
			l.due = now + farAway
			unlocked = true
			l.Mu.Unlock()
			runtime.Gosched() // who is ready may come along
			landed = now
			now = clock()
			l.Mu.Lock()
			unlocked = false
			l.room = maxBatch
			if now-landed > crowded && l.away < near {
				l.room = l.few
			}
			formed = hand.line.forming
			if formed != nil {
				formed.last = l.room - 1 - len(formed.keys)
			}
		}
	}
}

// crash ends the batch of a pilot that the interpreter has stumbled over, or for which it was on its way: those in it must not wait
// for ever.
func crash(l *Limiter, b *batch, unlocked bool, trouble interface{}) {
	if unlocked {
		l.Mu.Lock()
	}
	defer l.Mu.Unlock()
	if b == nil {
		if l.cleared == 0 {
			return // another pilot has taken it
		}
		l.cleared--
		b = l.waiting[0]
		l.waiting = l.waiting[1:]
	}
	closeLine(b)
	l.flying--
	b.plain = false
	b.err = fmt.Errorf("ratelimit: panic: %v", trouble)
	askedAhead(b)
	b.landing.Done()
	if len(l.waiting) > l.cleared && l.flying < maxFlying {
		launch(l, l.due) // the clock may be what it has stumbled over
	}
}

// takeAlong adds a rider to the calls of a batch, if there is one.
func takeAlong(calls []*store.Call, rider *store.Call) []*store.Call {
	if rider == nil {
		return calls
	}
	return append(calls, rider)
}

func finishAll(riders []*store.Call) {
	for _, rider := range riders {
		store.Finish(rider)
	}
}

// askedAhead lets others ask ahead for those keys of a batch to which no lease was given. mu is held.
func askedAhead(b *batch) {
	for _, e := range b.ahead {
		if e.batch == b.number {
			e.batch = 0
		}
	}
}
