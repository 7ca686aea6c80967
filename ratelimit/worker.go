package ratelimit

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

var (
	script    = store.NewScript(take)
	leaseText = digits(leaseMicros) + " " + digits(longMicros) + " " + digits(minLeft) + " " + digits(leaseShare) + " " +
		digits(maxLeases) + " " + digits(longPart) + " " + digits(nearlyFull)
	leaseWire = store.Word(leaseText)
)

// maySendLocked reports whether one more of the pending batches may be sent.
func maySendLocked(l *Limiter, now int64) bool {
	return len(l.pending) > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend)
}

// startWorkerLocked claims the next batch for a worker, an idle one or a new one.
func startWorkerLocked(l *Limiter, now int64) {
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

// initWorkers makes what the workers of a limiter need.
func initWorkers(l *Limiter) {
	l.workReady = sync.NewCond(l.Mu)
	// Made here, and not where a request starts it: the interpreter keeps the whole frame in which a function was made.
	l.worker = func() {
		defer func() { recover() }()
		batchWorker(l)
	}
}

// batchWorker asks Redis for one batch after the other, and waits where there is none.
//
// It is one loop with all that most batches need written out. The interpreter makes the locals of a function when it is entered: here
// once for all batches and all their keys, where a function for each step would make three hundred for each batch.
func batchWorker(l *Limiter) {
	var (
		b, next          *batch
		cache            *Cache
		limit            *Limit
		lease, newLease  *Lease
		recent, previous map[string]*Lease
		call             *store.Call
		calls            []*store.Call
		keys, words      []string
		key, kind        string
		place, maxJoin   int
		now, repliedAt   int64
		rtt              int64
		coldBefore       int64
		odd, unlocked    bool
		refreshes        bool // the breaker's view
	)
	unlocked = true
	defer func() {
		if reason := recover(); reason != nil {
			abortBatch(l, b, unlocked, reason)
		}
	}()
	heads, headsLen, run, clock := l.keyHeads, len(l.keyHeads), l.Store.Run, l.Now
	zero := time.Now().Add(-time.Duration(clock()) * time.Microsecond)
	l.Mu.Lock()
	unlocked = false
	now = clock()
	for {
		// 1. Wait until a batch is claimed.
		for l.claimed == 0 {
			if l.closed {
				l.Mu.Unlock()
				return
			}
			recent = nil // the interpreter keeps what they hold
			previous = nil
			l.idleWorkers++
			l.workReady.Wait()
			now = clock()
		}

		// 2. Take it, and close it to further requests: newBatchLocked, written out.
		l.claimed--
		b = l.pending[0]
		l.pending = l.pending[1:]
		l.nextSend = now + sendInterval
		b.sentAt = now
		b.replySeq = l.replySeq
		limit = b.limit
		cache = b.cache
		if cache.queue.open == b {
			cache.queue.open = nil
			l.batchSeq++
			next = &batch{number: l.batchSeq, cache: cache, limit: limit, newLease: &Lease{limit: limit, common: true, usage: usage{requests: 1}}}
			next.done.Add(1)
			cache.openBatch = next
		}
		if cache.queue.renewals != nil {
			addRenewals(l, b, now)
		}

		// 3. Make the keys of the requests that joined by their identities, and what each asks for: bucketKey, lookup and argFor, written
		// out for the keys of which nothing is known. Their words are a head and the key, where all keys are safe and short.
		kind = cache.keyMaker.Kind
		maxJoin = cache.keyMaker.MaxJoin
		place = len(b.keys)
		odd = false // there are keys that no head is for
		keys = append(b.keys, b.ids...)
		b.keys = keys
		words = make([]string, len(keys), 2*len(keys)+2)
		if place > 0 {
			makeWireKeys(l, keys[:place], words)
		}
		recent = l.recent
		previous = l.previous
		newLease = b.newLease
		coldBefore = now - limit.coldAfter
		for _, id := range b.ids {
			key = kind + id
			if len(id) > maxJoin || id == "" {
				key = cache.keyMaker.Key(id)
			}
			lease = recent[key]
			if lease == nil {
				lease = previous[key]
			}
			if lease == nil || lease.common && lease.prefetchedAt < coldBefore && lease.limit == limit {
				recent[key] = newLease // it asks for one token
			} else {
				askForKnown(l, b, key, lookup(l, key), place, now)
			}
			keys[place] = key
			if len(key) < headsLen {
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
		refreshes = now >= *l.HealthyUntil && cache.Refresher != nil

		// 4. Ask Redis, with the breaker's own call where its view is to be refreshed.
		l.Mu.Unlock()
		unlocked = true
		if refreshes {
			calls = withPiggyback(calls, cache.Refresher.PiggybackCall(now))
		}
		run(calls, zero.Add(cache.timeout+time.Duration(newLease.prefetchedAt)*time.Microsecond))
		if refreshes {
			finishAll(calls[1:])
		}
		now = clock()
		l.Mu.Lock()
		unlocked = false
		if now >= *l.HealthyUntil && cache.Refresher != nil {
			unlocked = true
			l.Mu.Unlock()
			cache.Refresher.Extend(now)
			l.Mu.Lock()
			unlocked = false
		}

		// 5. Apply the reply. Most say no more than that all requests have their tokens.
		l.replySeq++
		rtt = now - b.sentAt
		if call.Err != nil {
			rtt = l.minRTT // no reply is not a fast one
		}
		if rtt < l.minRTT {
			l.minRTT = rtt
		} else {
			l.minRTT += (rtt - l.minRTT) / 256
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

		// 6. Release the requests, and take the next batch: maySendLocked and startWorkerLocked, written out. Goroutines that are ready
		// run first and may join it; how long they take says whether the CPU is saturated.
		l.inFlight--
		b.done.Done()
		b = nil
		if len(l.pending) > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend) {
			l.claimed++
			l.inFlight++
			l.nextSend = now + sendInterval
			unlocked = true
			l.Mu.Unlock()
			runtime.Gosched()
			repliedAt = now
			now = clock()
			l.Mu.Lock()
			unlocked = false
			l.batchCap = maxBatch
			if now-repliedAt > contendedAfter && l.minRTT < nearRTT {
				l.batchCap = l.contendedCap
			}
			next = cache.queue.open
			if next != nil {
				next.lastPlace = l.batchCap - 1 - len(next.keys)
			}
		}
	}
}

// abortBatch fails the batch that a panicking worker was handling or had claimed, so that its requests do not wait forever.
func abortBatch(l *Limiter, b *batch, unlocked bool, reason interface{}) {
	if unlocked {
		l.Mu.Lock()
	}
	defer l.Mu.Unlock()
	if b == nil {
		if l.claimed == 0 {
			return // another worker has taken it
		}
		l.claimed--
		b = l.pending[0]
		l.pending = l.pending[1:]
	}
	sealLocked(b)
	l.inFlight--
	b.allGranted = false
	b.err = fmt.Errorf("ratelimit: panic: %v", reason)
	endPrefetch(b)
	b.done.Done()
	if len(l.pending) > l.claimed && l.inFlight < maxInFlight {
		startWorkerLocked(l, l.nextSend) // not the clock, which may be what panicked
	}
}

// withPiggyback adds the breaker's call to those of a batch, if there is one.
func withPiggyback(calls []*store.Call, piggyback *store.Call) []*store.Call {
	if piggyback == nil {
		return calls
	}
	return append(calls, piggyback)
}

func finishAll(calls []*store.Call) {
	for _, call := range calls {
		store.Finish(call)
	}
}
