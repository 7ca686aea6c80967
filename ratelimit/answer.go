package ratelimit

import (
	"errors"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

var errBadReply = errors.New("ratelimit: the script's answer is not one")

var (
	script     = store.NewScript(take)
	leaseWords = digits(leaseTime.Microseconds()) + " " + digits(minLeft) + " " + digits(leaseShare) + " " + digits(maxLeases)
)

// answer is the script's for one key.
type answer struct {
	taken  int64 // -1: the key does not hold a bucket
	level  int64
	leased int64
	lease  int64 // number of the lease, where leased is not 0
}

// read takes a call's reply apart.
func read(call *store.Call, keys int) ([]answer, error) {
	if call.Err != nil {
		return nil, call.Err
	}
	answers := make([]answer, 0, keys)
	numbers := call.Reply
	for len(numbers) >= 3 {
		a := answer{taken: numbers[0], level: numbers[1], leased: numbers[2]}
		numbers = numbers[3:]
		if a.leased > 0 && len(numbers) > 0 {
			a.lease = numbers[0]
			numbers = numbers[1:]
		}
		answers = append(answers, a)
	}
	if len(answers) != keys || len(numbers) != 0 {
		return nil, errBadReply
	}
	return answers, nil
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
