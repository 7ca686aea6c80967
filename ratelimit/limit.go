package ratelimit

import (
	"strconv"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// Limit is how many tokens a bucket holds and how fast it refills. It is immutable and may be shared. Each call sends the caller's
// limit: while a configuration change spreads, two gateways may use different limits on one bucket.
//
// A level counts in units of a token divided by the period in microseconds: one microsecond refills exactly refill units, and nothing is
// ever rounded.
type Limit struct {
	full   int64 // level of a full bucket: capacity x period
	refill int64 // units per microsecond, or tokens per period
	period int64 // microseconds; also the units of a token
	text   string
	wire   string // the text as sent to Redis

	standing int64 // most tokens that Redis keeps back for standing leases; 0: there are none

	longLeaseMax int64 // most tokens in a long lease; 0: no long leases
	coldAfter    int64 // microseconds without a request after which a key counts as seldom seen
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
	text := digits(capacity) + " " + digits(refill) + " " + digits(micros)
	limitsMu.Lock()
	defer limitsMu.Unlock()
	if limits[text] == nil {
		limits[text] = &Limit{full: capacity * micros, refill: refill, period: micros, text: text, wire: store.Word(text)}
		setTerms(limits[text])
	}
	return limits[text]
}

// With standing leases, a hundredth of the capacity is kept back for them, or what is refilled in a minute if that is less: so long, at most, does
// a gateway that joins wait, and a key of Redis lives longer by four times that. A bucket of 100 has none: a burst finds all of its tokens, through
// any gateways, also just after their start.
const (
	standingShare = 100
	standingTime  = time.Minute
)

// WithStanding returns the limit with standing leases, if its capacity is large enough for them. The same limit gives the same *Limit.
func WithStanding(limit *Limit) *Limit {
	most := limit.full / limit.period / standingShare
	if refilled := float64(limit.refill) * float64(standingTime.Microseconds()) / float64(limit.period); refilled < float64(most) {
		most = int64(refilled)
	}
	if most == 0 || limit.full/limit.period == standingShare {
		return limit
	}
	return withStanding(limit, most)
}

// withStanding returns a limit that keeps back this many tokens at most.
func withStanding(limit *Limit, most int64) *Limit {
	text := limit.text + " " + digits(most)
	limitsMu.Lock()
	defer limitsMu.Unlock()
	if limits[text] == nil {
		other := *limit
		other.standing = most
		other.text = text
		other.wire = store.Word(text)
		limits[text] = &other
	}
	return limits[text]
}

// setTerms allows long leases if the bucket refills fast enough to make up for a lost lease soon.
func setTerms(limit *Limit) {
	limit.longLeaseMax = int64(float64(limit.refill) / float64(limit.period) * 1000000 / longShare)
	limit.coldAfter = quiet
	if limit.longLeaseMax < leastLong {
		limit.longLeaseMax = 0
		limit.coldAfter = leaseMicros
	}
}

// refusal returns the verdict of a bucket with less than one token: minus the microseconds until it has one.
func refusal(limit *Limit, level int64) int64 {
	if until := untilToken(limit, level); until > 0 {
		return -until
	}
	return -1
}

// untilToken returns the microseconds until a bucket at this level has a token.
func untilToken(limit *Limit, level int64) int64 {
	missing := limit.period - level
	if missing <= 0 {
		return 0
	}
	return (missing + limit.refill - 1) / limit.refill
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }
