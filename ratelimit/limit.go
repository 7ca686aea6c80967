package ratelimit

import (
	"strconv"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Limit says how many tokens a bucket holds and how fast it fills. It belongs to the caller and travels with each call:
// two gateways may use different limits on one bucket for as long as a change of configuration takes to reach both.
type Limit struct {
	full   int64 // level of a full bucket: capacity x period
	refill int64 // units a microsecond, which is tokens a period
	period int64 // microseconds; a token is so many units
	text   string
	wire   string // the same, as it goes over the wire

	longLeaseMax int64 // tokens that may be leased for long; 0: none
	coldAfter    int64 // microseconds after which a key is taken for one that is seldom seen
}

var (
	limitsMu sync.Mutex
	limits   = map[string]*Limit{} // guarded by limitsMu
)

// NewLimit returns the limit of capacity tokens, refilled by refill tokens each period. All are positive, period is whole
// microseconds, and capacity x period in microseconds stays below 2^53. The same numbers give the same *Limit, so that a
// reload that changes nothing changes no limit.
func NewLimit(capacity, refill int64, period time.Duration) *Limit {
	micros := period.Microseconds()
	words := digits(capacity) + " " + digits(refill) + " " + digits(micros)
	limitsMu.Lock()
	defer limitsMu.Unlock()
	if limits[words] == nil {
		limits[words] = &Limit{full: capacity * micros, refill: refill, period: micros, text: words, wire: store.Word(words)}
		termsOf(limits[words])
	}
	return limits[words]
}

// termsOf sets which leases may be long: those whose tokens the bucket gets back in a small part of the time, if they are lost.
func termsOf(l *Limit) {
	l.longLeaseMax = int64(float64(l.refill) / float64(l.period) * 1000000 / longShare)
	l.coldAfter = quiet
	if l.longLeaseMax < leastLong {
		l.longLeaseMax = 0
		l.coldAfter = leaseMicros
	}
}

// refusal returns the verdict on a request for a bucket at a level that is no token: less the microseconds until it holds one.
func refusal(l *Limit, level int64) int64 {
	if until := untilToken(l, level); until > 0 {
		return -until
	}
	return -1
}

func untilToken(l *Limit, level int64) int64 {
	missing := l.period - level
	if missing <= 0 {
		return 0
	}
	return (missing + l.refill - 1) / l.refill
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }
