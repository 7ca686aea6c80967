package ratelimit

import (
	"strconv"
	"time"
)

// Limit says how many tokens a bucket holds and how fast it fills. It belongs to the caller and travels with each call:
// two gateways may use different limits on one bucket for as long as a change of configuration takes to reach both.
type Limit struct {
	full   int64 // level of a full bucket: capacity x period
	refill int64 // units a microsecond, which is tokens a period
	period int64 // microseconds; a token is so many units
	args   [3]string
}

// NewLimit returns a limit of capacity tokens, refilled by refill tokens each period. All are positive, period is whole
// microseconds, and capacity x period in microseconds stays below 2^53.
func NewLimit(capacity, refill int64, period time.Duration) *Limit {
	micros := period.Microseconds()
	return &Limit{
		full:   capacity * micros,
		refill: refill,
		period: micros,
		args: [3]string{
			strconv.FormatInt(capacity, 10), strconv.FormatInt(refill, 10), strconv.FormatInt(micros, 10),
		},
	}
}

// retryAfter returns how long a bucket at the given level takes to hold one token.
func (l *Limit) retryAfter(level int64) time.Duration {
	missing := l.period - level
	return time.Duration((missing+l.refill-1)/l.refill) * time.Microsecond
}
