package ratelimit

import (
	"errors"
	"strconv"
	"strings"

	"github.com/resilient-gateway/resilience/internal/store"
)

var errBadReply = errors.New("ratelimit: the script's answer is not one")

var (
	script    = store.NewScript(take)
	leaseText = digits(leaseMicros) + " " + digits(longMicros) + " " + digits(minLeft) + " " + digits(leaseShare) + " " +
		digits(maxLeases) + " " + digits(longPart) + " " + digits(nearlyFull)
	leaseWire = store.Word(leaseText)
)

// answer is the script's for one key.
type answer struct {
	taken  int64 // -1: the key does not hold a bucket
	level  int64
	leased int64
	lease  int64 // number of the lease, where leased is not 0
	length int64 // of the lease, microseconds
}

// read takes the script's word for one key apart. Of one that is none it makes that of a key that does not hold a bucket.
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
