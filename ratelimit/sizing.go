package ratelimit

import "time"

// A lease should hold what the key is likely to use before it ends. If a client moves to another gateway, it cannot use the rest of its
// lease until the lease ends. So a gateway leases only part of a large use: an extra call per many tokens costs little.
const (
	smallUse      = 16 // tokens used during a short lease up to which a gateway leases the full use
	largeUseShare = 4  // beyond that it leases 1/4
)

// quiet is how long, in microseconds, a key must not be asked for until it is treated as new.
const quiet = int64(5 * time.Minute / time.Microsecond)

// usage measures how often a key is asked for. The limiter's Mu guards it.
type usage struct {
	prefetchedAt int64 // when a request last asked Redis for a lease
	requests     int64 // that request and later ones that asked Redis
	shortUse     int64 // tokens used in the duration of a short lease before prefetchedAt
	longUse      int64 // the same for a long lease, if the limit has long leases
}

// isSeldomLocked reports whether a key was asked for at most once, and long ago. Such a key is treated as new; most of many keys are.
func isSeldomLocked(lease *Lease, now int64) bool {
	return lease.number == 0 && lease.shortUse == 0 && lease.requests <= 1 && now-lease.prefetchedAt > lease.limit.coldAfter
}

// prefetchSizeLocked returns how many tokens to lease for a short time and how many for a long time, in the script's format. It starts a
// new period of the usage.
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

// longPrefetchSizeLocked returns how many tokens to lease for a long time: twice what the key used in that time plus two, because use
// varies, but at most longLeaseMax.
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
