package ratelimit

import (
	"runtime"
	"strings"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

var (
	script    = store.NewScript(take)
	leaseText = digits(leaseMicros) + " " + digits(longMicros) + " " + digits(minLeft) + " " + digits(leaseShare) + " " +
		digits(maxLeases) + " " + digits(longPart) + " " + digits(nearlyFull)
	leaseWire = store.Word(leaseText)
)

// batchWorker is the loop of a worker: it sends one trip after another, and waits while none is claimed.
//
// The loop inlines everything that most trips need. The interpreter allocates a function's locals on entry: here once for all trips and
// all their keys, while a function for each step would allocate three hundred for each trip.
//
// b holds a batch only inside the loops over a trip: after a loop, the interpreter may leave it unset (R30). Later steps use sentAt and
// the other variables that the loop's body assigns.
func batchWorker(l *Limiter) {
	var (
		trip             []*batch
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
		sentAt           int64
		rtt, due         int64
		coldBefore       int64
		odd, unlocked    bool
		refreshes        bool // the trip refreshes the breaker's view
	)
	state := startWork(l)
	unlocked = true
	defer func() {
		if reason := recover(); reason != nil {
			abortTrip(l, state, unlocked, reason)
		}
	}()
	heads, headsLen, run, clock, safe, healthyUntil := l.keyHeads, len(l.keyHeads), l.Store.Run, l.Now, l.Safe, l.HealthyUntil
	countsWire := l.gateways.countsWire
	zero := time.Now().Add(-time.Duration(clock()) * time.Microsecond)
	state.zero = zero
	l.Mu.Lock()
	unlocked = false
	now = clock()
	for {
		// 1. Wait until a trip is claimed.
		for l.claimed == 0 {
			if l.closed {
				endWorkLocked(l, state)
				l.Mu.Unlock()
				return
			}
			recent = nil // otherwise the idle worker would keep the maps in memory
			previous = nil
			l.idleWorkers++
			l.workReady.Wait()
			now = clock()
		}

		// 2. Take the trip, and add renewals.
		l.claimed--
		trip = l.pending[0]
		state.trip = trip
		l.pending = l.pending[1:]
		l.waiting--
		sentAt = now
		if l.renewals != nil {
			addRenewalsLocked(l, state, now)
			trip = state.trip
		}

		// 3. Make one call for each batch of the trip.
		calls = nil
		for _, b = range trip {
			if b.asks != nil {
				call = planCallLocked(l, b, now)
				calls = append(calls, call)
				newLease = b.newLease
				cache = b.cache
				continue
			}

			// Close the batch to further requests: sealLocked, inlined.
			b.sentAt = now
			b.replySeq = l.replySeq
			limit = b.limit
			cache = b.cache
			if cache.lane.open == b {
				cache.lane.open = nil
				l.batchSeq++
				next = &batch{number: l.batchSeq, cache: cache, limit: limit, newLease: &Lease{limit: limit, common: true}}
				next.done.Add(1)
				cache.openBatch = next
			}

			// Make the key and the argument of each request that joined by its identity: bucketKey, lookupLocked and argForLocked, inlined
			// for keys that are new or treated as new. If all keys are safe and short, each word is a head and the key.
			kind = cache.keyMaker.Kind
			maxJoin = cache.keyMaker.MaxJoin
			place = len(b.keys)
			odd = false // some key is too long for a head
			keys = append(b.keys, b.ids...)
			b.keys = keys
			words = make([]string, len(keys), 2*len(keys)+3)
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
					recent[key] = newLease // the request asks for one token
				} else if b.reports {
					reportKnownLocked(l, b, key, lookupLocked(l, key), place, now)
				} else {
					askForKnownLocked(l, b, key, lookupLocked(l, key), place, now)
				}
				keys[place] = key
				if len(key) < headsLen {
					words[place] = heads[len(key)] + key
				} else {
					odd = true
				}
				place++
			}
			if odd || strings.Trim(strings.Join(keys, ""), safe) != "" {
				makeWireKeys(l, keys, words)
			}
			if limit.standing > 0 {
				words = append(words, countsWire)
				place++
			}
			words = append(words, limit.wire, leaseWire)
			if b.args != nil {
				words = append(words, b.args...)
			}
			call = &store.Call{Script: script, Number: place, Words: words}
			if b.returns != nil {
				returnOnce(call, b)
			}
			b.call = call
			calls = append(calls, call)
		}
		due = newLease.prefetchedAt + cache.timeout
		if l.mixed {
			l.mixed = l.waiting > 0
			due = earliestDeadlineLocked(trip)
			cache = refreshingCache(trip)
		}

		// 4. Ask Redis. If the breaker's view is out of date, its call goes along.
		refreshes = now >= *healthyUntil && cache.Refresher != nil
		if !l.watched {
			watchLocked(l, state)
		}
		l.Mu.Unlock()
		unlocked = true
		if refreshes {
			place = len(calls)
			calls = withPiggyback(calls, cache.Refresher.PiggybackCall(now))
		}
		run(calls, zero.Add(time.Duration(due)*time.Microsecond))
		if refreshes {
			finishPiggyback(calls, place)
		}
		now = clock()
		l.Mu.Lock()
		unlocked = false
		if now >= *healthyUntil && cache.Refresher != nil {
			unlocked = true
			l.Mu.Unlock()
			cache.Refresher.Extend(now)
			l.Mu.Lock()
			unlocked = false
		}
		if state.abandoned {
			l.Mu.Unlock()
			return // the watchdog has failed the requests and replaced this worker
		}

		// 5. Apply the reply. Most replies only say that every request has its token.
		l.replySeq++
		rtt = now - sentAt
		if call.Err != nil {
			rtt = l.minRTT // an error says nothing about the round trip
		}
		if rtt < l.minRTT {
			l.minRTT = rtt
		} else {
			l.minRTT += (rtt - l.minRTT) / 256
		}
		for _, b = range trip {
			call = b.call
			b.err = call.Err
			if b.asks != nil {
				applyPlansLocked(l, b, call, now)
			} else if call.Err == nil && l.borrowedTotal == b.borrowedTotal && strings.Count(call.Answer, plenty) == len(b.keys) {
				b.allGranted = true
				if b.payments != nil {
					repayLocked(b)
				}
			} else {
				applyReplyLocked(l, b, call, now)
			}
			if b.prefetching != nil {
				endPrefetchLocked(b)
			}
			if b.reports {
				applyReportsLocked(l, b, now)
			}
			b.grantedAt = 1
			if now < *healthyUntil {
				b.grantedAt = now
			}
			b.done.Done()
		}
		state.trip = nil
		l.inFlight--
		if len(l.recent) >= halfOfKeys {
			rotateLocked(l)
		}

		// 6. Claim the next trip: maySendLocked and startWorkerLocked, inlined. Goroutines that are ready run first and may join it. The
		// time they take shows whether the CPU is saturated.
		if l.waiting > l.claimed && (l.inFlight == 0 || l.inFlight < maxInFlight && now >= l.nextSend) {
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
			next = cache.lane.open
			if next != nil {
				next.lastPlace = l.batchCap - 1 - len(next.keys)
			}
		}
	}
}
