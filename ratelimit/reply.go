package ratelimit

import (
	"errors"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

// errBadReply is the error of a batch whose reply has the wrong number of answers.
var errBadReply = errors.New("ratelimit: the script answered for another number of keys")

// An answer is plenty alone, or starts with the number of tokens taken. plenty means that the script took the token and the bucket is
// nearly full.
const (
	plenty    = "+"
	oneTaken  = "1:"
	noneTaken = "0:"
)

// answer is the script's answer for one key.
type answer struct {
	taken  int64 // -1: the key does not hold a bucket
	level  int64 // of the bucket afterwards
	leased int64 // tokens
	lease  int64 // number of the lease; 0 if leased is 0
	length int64 // of the lease, microseconds
}

// parseAnswer parses the answer for one key. It treats a malformed answer like that for a key that does not hold a bucket.
func parseAnswer(word string) answer {
	parts := strings.Split(word, ":")
	if len(parts) != 3 && len(parts) != 5 {
		return answer{taken: -1}
	}
	numbers := []int64{0, 0, 0, 0, 0}
	for i, part := range parts {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			return answer{taken: -1}
		}
		numbers[i] = n
	}
	return answer{taken: numbers[0], level: numbers[1], leased: numbers[2], lease: numbers[3], length: numbers[4]}
}

// applyReplyLocked applies the answer for each key of a batch.
func applyReplyLocked(l *Limiter, b *batch, call *store.Call, now int64) {
	b.answers = strings.Fields(call.Answer)
	if b.err == nil && len(b.answers) != len(b.keys) {
		b.err = errBadReply
	}
	if b.err != nil {
		return
	}
	if b.payments != nil {
		repayLocked(b)
	}
	joinedByKey := len(b.keys) - len(b.ids)
	for i, word := range b.answers {
		if word == plenty && l.borrowedTotal == b.borrowedTotal {
			continue
		}
		lease := lookupLocked(l, b.keys[i])
		if lease == nil {
			continue
		}
		if word == plenty {
			applyPlentyLocked(lease, b, i)
			continue
		}
		lease = unshareLocked(l, b.keys[i], lease)
		applyAnswerLocked(l, lease, b, i, now)
		if lease.RefuseUntil > now && isWholeLocked(b.cache, b.keys[i], now) {
			lease.RefuseUntil = 0 // there is a token: the standing one
		}
		if i >= joinedByKey && lease.limit == b.limit && (lease.Tokens > 0 || lease.RefuseUntil > now) {
			putLocked(b.cache, b.ids[i-joinedByKey], &lease.Grant)
		}
	}
}

// verdictAt returns the verdict on the request at a place of a batch that is done, or the error that explains why it has none.
func verdictAt(b *batch, place int) (int64, error) {
	if b.allGranted {
		return b.grantedAt, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	word := b.answers[place]
	if word == plenty || strings.HasPrefix(word, oneTaken) {
		return b.grantedAt, nil
	}
	a := parseAnswer(word)
	if a.taken < 0 {
		return 0, ErrNotABucket
	}
	return refusal(b.limit, a.level), nil
}
