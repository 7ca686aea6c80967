package ratelimit

import (
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// What a batch asks the script for, key by key; script.go says in which form. All of it needs Mu.

// askOne asks for one token and no lease.
var askOne = store.Word("1 0")

// tokenArgs are how an ask for no token begins, and one for one.
var tokenArgs = []string{"0 ", "1 "}

// askForKnownLocked prepares the request at a place of the batch, for a key of which something is known.
func askForKnownLocked(l *Limiter, b *batch, key string, lease *Lease, place int, now int64) {
	lease = unshareLocked(l, key, lease)
	if lease.limit != b.limit {
		other := changeLimitLocked(l, lease, b.limit)
		replaceLocked(l, key, lease, other)
		lease = other
	}
	arg, returns := argForLocked(lease, b, place, now)
	if arg != askOne {
		addArgLocked(b, lease, arg, returns, place)
	}
}

// addArgLocked adds the argument of the request at a place of the batch. Those before it that have none ask for one token.
func addArgLocked(b *batch, lease *Lease, arg string, returns bool, place int) {
	for len(b.args) < place {
		b.args = append(b.args, askOne)
	}
	b.args = append(b.args, arg)
	if lease.prefetchBatch == b.number {
		lease.prefetchPlace = place
	}
	if returns {
		b.returns = append(b.returns, place)
	}
}

// argForLocked returns what to ask for, for the request at a place of the batch: a token, and the next lease in exchange for the present one.
// It reports whether it returns that. One batch at a time asks for a lease on a key.
func argForLocked(lease *Lease, b *batch, place int, now int64) (string, bool) {
	if lease.prefetchBatch != 0 {
		lease.requests++
		return argOnlyLocked(lease, b, place, now), false
	}
	if isSeldomLocked(lease, now) {
		lease.prefetchedAt = now
		lease.requests = 1
		return argOnlyLocked(lease, b, place, now), false
	}
	return argAndPrefetchLocked(lease, b, place, 1, now)
}

// argOnlyLocked returns what to ask for, for one request without a lease: a token, and those that are owed.
func argOnlyLocked(lease *Lease, b *batch, place int, now int64) string {
	if lease.borrowed == lease.repaid {
		return askOne
	}
	return store.Word(digits(1+payLocked(lease, b, place, now)) + " 0")
}

// argAndPrefetchLocked returns what to ask for: no token or one, those that are owed, and the next lease. It reports whether it returns the
// present one.
func argAndPrefetchLocked(lease *Lease, b *batch, place int, token int64, now int64) (string, bool) {
	tokens := tokenArgs[token]
	if lease.borrowed > lease.repaid {
		tokens = digits(token+payLocked(lease, b, place, now)) + " "
	}
	lease.prefetchBatch = b.number
	b.prefetching = append(b.prefetching, lease)
	next := prefetchSizeLocked(lease, now)
	arg := askOne
	returns := lease.number != 0 && now < lease.ends // not a named result: the interpreter does not clear those
	if returns {
		arg = store.Word(tokens + next + " " + digits(lease.number) + " " + digits(lease.Tokens))
	} else if next != "0 0" || tokens != tokenArgs[1] {
		arg = store.Word(tokens + next)
	}
	if lease.number != lease.cappedFor {
		capByLeaseLocked(lease, now)
	}
	lease.number = 0
	lease.cappedFor = 0
	lease.size = 0
	lease.renewing = false
	lease.Tokens = 0
	return arg, returns
}

// returnOnce makes the call safe to repeat: a lease that is returned twice would be refilled twice, and a debt paid twice. The repeated
// call asks for the tokens of the requests only.
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

// endPrefetchLocked lets other batches ask for leases on the keys for which this one did.
func endPrefetchLocked(b *batch) {
	for _, lease := range b.prefetching {
		if lease.prefetchBatch == b.number {
			lease.prefetchBatch = 0
		}
	}
}

// makeWireKeys makes the words of keys that may hold anything, and be long.
func makeWireKeys(l *Limiter, keys, words []string) {
	for i, key := range keys {
		if strings.Trim(key, l.Safe) != "" {
			key = l.Name(key)
		}
		words[i] = store.Word(l.Prefix + key)
	}
}

// keyHeadsOf returns, by the length of a key, what precedes it on the wire, the prefix included.
func keyHeadsOf(prefix string) []string {
	heads := []string{}
	blank := strings.Repeat(" ", 100)
	for n := range blank {
		word := store.Word(prefix + blank[:n])
		heads = append(heads, word[:len(word)-n])
	}
	return heads
}
