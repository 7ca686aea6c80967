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
func maySend(l *Limiter, now int64) bool {
	return len(l.pending) > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend)
}

// launch clears the next batch for take-off: a pilot is on its way to it, one that has nothing to do, or a new one. mu is held.
func startWorker(l *Limiter, now int64) {
	l.claimed++
	l.inFlight++
	l.nextSend = now + sendInterval
	if l.idleWorkers > 0 {
		l.idleWorkers--
		l.workReady.Signal()
	} else {
		go l.worker()
	}
}

// ready makes what the limiter's pilots need.
func initWorkers(l *Limiter) {
	l.workReady = sync.NewCond(l.Mu)
	// Made here, and not where a request starts it: the interpreter keeps all that a function was made among.
	l.worker = func() {
		defer func() { recover() }()
		batchWorker(l)
	}
}

// Close lets the pilots go. Requests that still come are served.
func Close(l *Limiter) {
	l.Mu.Lock()
	l.closed = true
	l.idleWorkers = 0
	l.workReady.Broadcast()
	l.Mu.Unlock()
}

// pilot asks Redis for one batch after the other, and waits for the next one where there is none. It is one loop with all
// that most batches need written out: the interpreter makes the values of a function when it is entered, here once for all
// batches and all their keys, where a function for each step would make three hundred for each batch.
func batchWorker(l *Limiter) {
	var (
		b, formed     *batch
		hand          *Cache
		limit         *Limit
		e, first      *Grant
		young, old    map[string]*Grant
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
			abortBatch(l, b, unlocked, trouble)
		}
	}()
	heads, most, run, clock := l.keyHeads, len(l.keyHeads), l.Store.Run, l.Now
	zero := time.Now().Add(-time.Duration(clock()) * time.Microsecond)
	l.Mu.Lock()
	unlocked = false
	now = clock()
	for {
		for l.claimed == 0 {
			if l.closed {
				l.Mu.Unlock()
				return
			}
			young = nil // the interpreter keeps what they hold
			old = nil
			l.idleWorkers++
			l.workReady.Wait()
			now = clock()
		}

		// A batch leaves.
		l.claimed--
		b = l.pending[0]
		l.pending = l.pending[1:]
		l.nextSend = now + sendInterval
		b.sentAt = now
		b.replySeq = l.replySeq
		limit = b.limit
		hand = b.cache
		if hand.queue.open == b {
			hand.queue.open = nil
			l.batchSeq++ // form, written out
			formed = &batch{number: l.batchSeq, cache: hand, limit: limit, newGrant: &Grant{Limit: limit, requests: 1, common: true}}
			formed.done.Add(1)
			hand.openBatch = formed
		}

		if hand.queue.renewals != nil {
			addRenewals(l, b, now)
		}

		// The keys of the requests that joined by their raws are made, and what each asks for is noted. keyOf and get are written out.
		kind = hand.keyMaker.Kind
		long = hand.keyMaker.MaxJoin
		place = len(b.keys)
		odd = false // there are keys that no head is for
		keys = append(b.keys, b.ids...)
		b.keys = keys
		words = make([]string, len(keys), 2*len(keys)+2)
		if place > 0 {
			makeWireKeys(l, keys[:place], words)
		}
		young = l.recent
		old = l.previous
		first = b.newGrant
		seldom = now - limit.coldAfter
		for _, raw := range b.ids {
			key = kind + raw
			if len(raw) > long || raw == "" {
				key = hand.keyMaker.Key(raw)
			}
			e = young[key]
			if e == nil {
				e = old[key]
			}
			if e == nil || e.common && e.prefetchedAt < seldom && e.Limit == limit {
				young[key] = first // as most keys are, where there are many; askFor would ask for one token, too
			} else {
				askForKnown(l, b, key, lookup(l, key), place, now)
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
			makeWireKeys(l, keys, words)
		}
		words = append(words, limit.wire, leaseWire)
		if b.args != nil {
			words = append(words, b.args...)
		}
		call = &store.Call{Script: script, Number: place, Words: words}
		if b.returns != nil {
			returnOnce(call, b)
		}
		calls = []*store.Call{call}
		asks = now >= *l.HealthyUntil && hand.Refresher != nil

		l.Mu.Unlock()
		unlocked = true
		if asks {
			calls = withPiggyback(calls, hand.Refresher.PiggybackCall(now))
		}
		run(calls, zero.Add(hand.timeout+time.Duration(first.prefetchedAt)*time.Microsecond))
		if asks {
			finishAll(calls[1:])
		}
		now = clock()
		l.Mu.Lock()
		unlocked = false

		if now >= *l.HealthyUntil && hand.Refresher != nil {
			unlocked = true
			l.Mu.Unlock()
			hand.Refresher.Extend(now)
			l.Mu.Lock()
			unlocked = false
		}

		// It has landed.
		l.replySeq++
		flight = now - b.sentAt
		if call.Err != nil {
			flight = l.minRTT // no answer is no quick one
		}
		if flight < l.minRTT {
			l.minRTT = flight
		} else {
			l.minRTT += (flight - l.minRTT) / 256
		}
		b.err = call.Err
		b.grantedAt = 1
		if now < *l.HealthyUntil {
			b.grantedAt = now
		}
		if call.Err == nil && l.borrowedTotal == b.borrowedTotal && strings.Count(call.Answer, plenty) == place {
			b.allGranted = true
			if b.payments != nil {
				repay(b)
			}
		} else {
			applyReply(l, b, call, now)
		}
		if b.prefetching != nil {
			endPrefetch(b)
		}
		if len(l.recent) >= halfOfKeys {
			rotate(l)
		}
		l.inFlight--
		b.done.Done()
		b = nil
		if len(l.pending) > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend) { // mayLeave and launch, written out
			l.claimed++
			l.inFlight++
			l.nextSend = now + sendInterval
			unlocked = true
			l.Mu.Unlock()
			runtime.Gosched() // who is ready may come along
			landed = now
			now = clock()
			l.Mu.Lock()
			unlocked = false
			l.batchCap = maxBatch
			if now-landed > contendedAfter && l.minRTT < nearRTT {
				l.batchCap = l.contendedCap
			}
			formed = hand.queue.open
			if formed != nil {
				formed.lastPlace = l.batchCap - 1 - len(formed.keys)
			}
		}
	}
}

// crash ends the batch of a pilot that the interpreter has stumbled over, or for which it was on its way: those in it must not wait
// for ever.
func abortBatch(l *Limiter, b *batch, unlocked bool, trouble interface{}) {
	if unlocked {
		l.Mu.Lock()
	}
	defer l.Mu.Unlock()
	if b == nil {
		if l.claimed == 0 {
			return // another pilot has taken it
		}
		l.claimed--
		b = l.pending[0]
		l.pending = l.pending[1:]
	}
	seal(b)
	l.inFlight--
	b.allGranted = false
	b.err = fmt.Errorf("ratelimit: panic: %v", trouble)
	endPrefetch(b)
	b.done.Done()
	if len(l.pending) > l.claimed && l.inFlight < maxInFlight {
		startWorker(l, l.nextSend) // the clock may be what it has stumbled over
	}
}

// takeAlong adds a rider to the calls of a batch, if there is one.
func withPiggyback(calls []*store.Call, rider *store.Call) []*store.Call {
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
func endPrefetch(b *batch) {
	for _, e := range b.prefetching {
		if e.prefetchBatch == b.number {
			e.prefetchBatch = 0
		}
	}
}
