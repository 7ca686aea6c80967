package ratelimit

import (
	"sync"
	"time"
)

// Hand is a caller that asks under one limit, and its short way to the entries that it needs most, those that hold a lease or are
// known to be empty: by a raw, which tells whose they are before there is a key. A token of a lease in hand may be taken, under
// the limiter's Mu, without a call, which the interpreter makes dear.
type Hand struct {
	Held  map[string]*Entry // the same map always
	Leave Leave             // that requests need when Clear is over; nil: none

	forming *batch      // that a request joins by its raw, when it has begun; guarded by Mu
	lock    sync.Locker // the limiter's Mu
	limiter *Limiter
	limit   *Limit
	line    *line
	timeout time.Duration // for an answer of Redis
	naming  Naming
	fits    int   // no longer raw joins a batch without its key
	trouble error // the last one; guarded by Mu
}

// Naming says how a raw becomes a key. With the zero Naming it is one.
type Naming struct {
	Kind    string              // goes before a raw that is not empty and no longer than Longest
	Longest int                 // bytes; -1: none is
	Key     func(string) string // makes the key of any other
	Many    bool                // many raws stand for one key
}

// A hand holds so many entries, and none by a longer raw: clients choose those.
const (
	maxHeld = 16384
	maxRaw  = 128
)

// NewHand returns an empty hand.
func NewHand(l *Limiter, limit *Limit, timeout time.Duration, naming Naming) *Hand {
	if naming.Key == nil {
		naming.Longest = -1
		naming.Key = func(raw string) string { return raw }
	}
	fits := maxRaw
	if naming.Many {
		fits = -1
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if l.lines[limit] == nil {
		l.lines[limit] = &line{}
	}
	hand := &Hand{
		Held: map[string]*Entry{}, lock: l.Mu, limiter: l, limit: limit, line: l.lines[limit], timeout: timeout,
		naming: naming, fits: fits,
	}
	form(hand)
	return hand
}

// keyOf returns the key of a raw.
func keyOf(hand *Hand, raw string) string {
	if raw == "" || len(raw) > hand.naming.Longest {
		return hand.naming.Key(raw)
	}
	return hand.naming.Kind + raw
}

// keyLocked is keyOf with the limiter's Mu held, which it gives back meanwhile: to make a key takes long, and might panic.
func keyLocked(hand *Hand, raw string) string {
	hand.lock.Unlock()
	//lint:ignore S1021 the interpreter makes two values for :=
	var key string
	key = keyOf(hand, raw)
	hand.lock.Lock()
	return key
}

// Spend decides from what is in the hand: 1 says that a token of a lease was taken; 0 that Allow must be asked; a negative number
// that the bucket is empty, and will have a token in so many microseconds. It says in one place what the middleware has written
// out where a call is too dear.
func Spend(hand *Hand, raw string, now int64) int64 {
	hand.limiter.Mu.Lock()
	verdict := spend(hand.Held[raw], hand.limit, now)
	hand.limiter.Mu.Unlock()
	return verdict
}

// drop takes some out of a full hand: those that are still needed come back. Held stays the map that it was.
func drop(hand *Hand) {
	dropped := 0
	for raw := range hand.Held {
		delete(hand.Held, raw)
		dropped++
		if dropped == maxHeld/64 {
			break
		}
	}
}

// hold puts an entry in the hand. mu is held.
func hold(hand *Hand, raw string, e *Entry) {
	if len(raw) > maxRaw {
		return
	}
	if len(hand.Held) >= maxHeld {
		drop(hand)
	}
	hand.Held[raw] = e
}
