package ratelimit

import "time"

// Terms of leases.
const (
	leaseTime  = 500 * time.Millisecond // duration of a short lease
	longTime   = 2 * time.Minute        // duration of a long lease, which has few tokens
	longShare  = 16                     // a long lease has at most 1/16 of the tokens that the bucket refills in a second
	leastLong  = 4                      // if that is fewer tokens than this, the limit has no long leases
	longPart   = 16                     // a new long lease may bring the leased tokens to at most 1/16 of the capacity
	renewTime  = time.Minute            // age at which a long lease is renewed
	minLeft    = 100                    // a bucket with fewer tokens left gives no lease
	leaseShare = 8                      // a lease has at most 1/8 of the tokens left
	maxLeases  = 48                     // most leases on a bucket at the same time
	nearlyFull = 7                      // eighths of the capacity; the script need not report a higher level
)

// The same in microseconds.
const (
	leaseMicros = int64(leaseTime / time.Microsecond)
	longMicros  = int64(longTime / time.Microsecond)
	renewMicros = int64(renewTime / time.Microsecond)
)

// maxEmpty is how long, in microseconds, a bucket counts as empty before a request asks again.
const maxEmpty = 1000000

// Lease is what this gateway knows about one bucket, and the tokens that it holds of it. These tokens were already taken in Redis; the
// gateway spends them without asking until they expire. The next call for the key returns unused tokens to the bucket. If no call
// returns them, the lease expires in Redis too. A gateway holds at most one lease on a bucket. The limiter's Mu guards it.
//
// If a batch first asks for the keys of new clients, and their buckets are nearly full, these keys share one common Lease. unshareLocked
// gives a key its own Lease before anything is stored that concerns this key alone.
type Lease struct {
	Grant         // of the requests that draw on this bucket only; it holds the unused tokens
	limit  *Limit // under which all the fields count
	bucket bucket // as Redis last reported it; while Redis is not asked, the bucket itself

	number    int64 // of the lease in Redis; 0: none
	size      int64 // tokens that the lease began with
	cappedFor int64 // number of the last lease for which capByLeaseLocked corrected the bucket
	replySeq  int64 // number of the reply that last reported the bucket

	common        bool  // shared by the keys that one batch asked for first, while no later request asks for them
	prefetchBatch int64 // number of the batch that asks for the next lease; 0: none
	prefetchPlace int   // place of the asking request in that batch
	usage
	debt
}

// lasts returns how long this gateway uses a lease of the given length: 0.2 % less, because its clock may be slow.
func lasts(length int64) int64 { return length - length/500 }

// assumeFullLocked fills the bucket if Redis has never reported its level. A nearly full bucket has no reported level either.
func assumeFullLocked(lease *Lease) {
	if lease.bucket.period == 0 {
		lease.bucket.level, lease.bucket.period = lease.limit.full, lease.limit.period
	}
}

// changeLimitLocked returns a lease for a key whose limit has changed. It empties the old lease, whose grant caches may still hold.
func changeLimitLocked(lease *Lease, limit *Limit) *Lease {
	assumeFullLocked(lease)
	other := *lease
	other.limit = limit
	other.RefuseUntil = 0
	other.prefetchBatch = 0
	other.renewing = false
	lease.Tokens = 0
	lease.RefuseUntil = 0
	return &other
}

// applyAnswerLocked applies the answer, received now, to the lease of the request at a place of the batch. Redis answered at an unknown
// moment between send and receive: each time counts from the end that admits fewer requests. If the request asked for the next lease,
// the answer brings it.
func applyAnswerLocked(l *Limiter, lease *Lease, b *batch, place int, now int64) {
	a := parseAnswer(b.answers[place])
	if a.taken < 0 || lease.limit != b.limit {
		return // a lease in the answer expires unused
	}
	assumeFullLocked(lease)
	level := lessOwedLocked(lease, a.level)
	// Calls may overtake each other. Of two that were in flight together, assume that the one with the lower level came later.
	if lease.replySeq <= b.replySeq || lease.bucket.period != b.limit.period || lease.bucket.level > level {
		lease.bucket.level, lease.bucket.at, lease.bucket.period = level, now, b.limit.period
	}
	lease.replySeq = l.replySeq
	if lease.prefetchBatch == b.number && lease.prefetchPlace == place {
		lease.number = a.lease
		lease.size = a.leased
		lease.Tokens = a.leased
		lease.ends = b.sentAt + lasts(a.length)
		lease.Until = lease.ends
		if a.length > leaseMicros {
			lease.Until = b.sentAt + renewMicros
		}
	}
	if a.taken > 0 && lease.borrowed > lease.repaid && payLateLocked(lease, a.level) {
		b.answers[place] = noneTaken + digits(a.level) + ":0"
	}
	lease.RefuseUntil = 0
	if a.level < b.limit.period {
		lease.NextToken = b.sentAt + untilToken(b.limit, a.level)
		lease.RefuseUntil = lease.NextToken
		if lease.RefuseUntil > b.sentAt+maxEmpty {
			lease.RefuseUntil = b.sentAt + maxEmpty
		}
	}
}
