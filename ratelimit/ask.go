package ratelimit

import (
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// This file decides what a batch asks the script for, key by key. script.go describes the format.

// askOne asks for one token and no lease.
var askOne = store.Word("1 0")

// tokenArgs begin an argument that asks for no token, or for one.
var tokenArgs = []string{"0 ", "1 "}

// askForKnownLocked prepares the request at a place of the batch, for a key that has a lease in the table.
func askForKnownLocked(l *Limiter, b *batch, key string, lease *Lease, place int, now int64) {
	lease = unshareLocked(l, key, lease)
	if lease.limit != b.limit {
		other := changeLimitLocked(lease, b.limit)
		replaceLocked(l, key, lease, other)
		lease = other
	}
	arg, returns := argForLocked(lease, b, place, now)
	if arg != askOne {
		addArgLocked(b, lease, arg, returns, place)
	}
}

// addArgLocked adds the argument of the request at a place of the batch. Earlier requests without an argument ask for one token.
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

// argForLocked returns the argument of the request at a place of the batch: it asks for a token, and for the next lease in exchange for
// the current one. It reports whether the argument returns the current lease. Only one batch at a time asks for a lease on a key.
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

// argOnlyLocked returns the argument of a request that asks for no lease: one token, plus the tokens owed.
func argOnlyLocked(lease *Lease, b *batch, place int, now int64) string {
	if lease.borrowed == lease.repaid {
		return askOne
	}
	return store.Word(digits(1+payLocked(lease, b, place, now)) + " 0")
}

// argAndPrefetchLocked returns an argument that asks for no token or one, the tokens owed, and the next lease. It reports whether the
// argument returns the current lease.
func argAndPrefetchLocked(lease *Lease, b *batch, place int, token int64, now int64) (string, bool) {
	tokens := tokenArgs[token]
	if lease.borrowed > lease.repaid {
		tokens = digits(token+payLocked(lease, b, place, now)) + " "
	}
	lease.prefetchBatch = b.number
	b.prefetching = append(b.prefetching, lease)
	next := prefetchSizeLocked(lease, now)
	arg := askOne
	returns := lease.number != 0 && now < lease.ends // not a named result: the interpreter does not clear it (R31)
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

// returnOnce makes the call safe to repeat. Otherwise a repeated call would return a lease twice and pay a debt twice. The repeated call
// only asks for the tokens of the requests.
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

// endPrefetchLocked allows other batches to ask for leases on the keys for which this batch asked.
func endPrefetchLocked(b *batch) {
	for _, lease := range b.prefetching {
		if lease.prefetchBatch == b.number {
			lease.prefetchBatch = 0
		}
	}
}

// makeWireKeys encodes keys of any length and content for Redis.
func makeWireKeys(l *Limiter, keys, words []string) {
	for i, key := range keys {
		if strings.Trim(key, l.Safe) != "" {
			key = l.Name(key)
		}
		words[i] = store.Word(l.Prefix + key)
	}
}

// keyHeadsOf returns what precedes a key on the wire, including the prefix, indexed by the length of the key.
func keyHeadsOf(prefix string) []string {
	heads := []string{}
	blank := strings.Repeat(" ", 100)
	for n := range blank {
		word := store.Word(prefix + blank[:n])
		heads = append(heads, word[:len(word)-n])
	}
	return heads
}
