package ratelimit

import "time"

// How large a lease to ask for: what the key is likely to use in the time of the lease. What is left of a lease when its client goes to
// another gateway is lost to the client until the lease ends, so a large use is leased in part only: one more call for many tokens costs
// little.
const (
	smallUse      = 16 // tokens in the time of a short lease that are leased in full
	largeUseShare = 4  // 1/4 of those beyond
)

// quiet is for how long, in microseconds, a key is not asked for until it is treated as a new one.
const quiet = int64(5 * time.Minute / time.Microsecond)

// usage is how often a key is asked for. The limiter's Mu guards it.
type usage struct {
	prefetchedAt int64 // when Redis was last asked for a lease
	requests     int64 // that one, and those since then that asked Redis themselves
	shortUse     int64 // tokens used in the time of a short lease before prefetchedAt
	longUse      int64 // and in that of a long one, where the limit has such
}

// isSeldomLocked reports whether a key was asked for at most once, and long ago: such keys are treated as new, as most are where there are many.
func isSeldomLocked(lease *Lease, now int64) bool {
	return lease.number == 0 && lease.shortUse == 0 && lease.requests <= 1 && now-lease.prefetchedAt > lease.limit.coldAfter
}

// prefetchSizeLocked returns how many tokens to lease for a short time, and how many for a long one, as the script takes it. It begins a new
// period of the usage.
func prefetchSizeLocked(lease *Lease, now int64) string {
	passed := now - lease.prefetchedAt
	spent := lease.requests + lease.size - lease.Tokens
	lease.prefetchedAt = now
	lease.requests = 1
	use := spent
	if passed < leaseMicros {
		use += lease.shortUse * (leaseMicros - passed) / leaseMicros
	} else {
		use = spent * leaseMicros / passed
	}
	lease.shortUse = use
	if use > smallUse {
		use = smallUse + (use-smallUse)/largeUseShare
	}
	if lease.limit.longLeaseMax == 0 || passed > quiet {
		return digits(use) + " 0"
	}
	return digits(use) + " " + digits(longPrefetchSizeLocked(lease, spent, passed))
}

// longPrefetchSizeLocked returns how many tokens to lease for a long time: twice what the key used in that time, and two more, because use
// varies; at most what may be leased for long.
func longPrefetchSizeLocked(lease *Lease, spent, passed int64) int64 {
	if passed < longMicros {
		spent += lease.longUse * (longMicros - passed) / longMicros
	} else {
		spent = spent * longMicros / passed
	}
	lease.longUse = spent
	spent = 2*spent + 2
	if spent > lease.limit.longLeaseMax {
		return lease.limit.longLeaseMax
	}
	return spent
}
