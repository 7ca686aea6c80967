package ratelimit

import "time"

// Terms of leases.
const (
	leaseTime  = 500 * time.Millisecond // duration of a short lease
	longTime   = 2 * time.Minute        // and of a long one, which is for few tokens:
	longShare  = 16                     // at most 1/16 of what the bucket refills in a second,
	leastLong  = 4                      // and no limit has long leases where that is less than this
	longPart   = 16                     // at most 1/16 of the capacity may be leased while another long lease is given
	renewTime  = time.Minute            // when a long lease is to be renewed
	minLeft    = 100                    // tokens that a bucket must have left for any to be leased
	leaseShare = 8                      // at most 1/8 of the tokens left is leased
	maxLeases  = 48                     // of one bucket at a time
	nearlyFull = 7                      // eighths of the capacity; from there on the level need not be reported
)

// The same in microseconds.
const (
	leaseMicros = int64(leaseTime / time.Microsecond)
	longMicros  = int64(longTime / time.Microsecond)
	renewMicros = int64(renewTime / time.Microsecond)
)

// maxEmpty is for how long, in microseconds, a bucket is taken to be empty without asking again.
const maxEmpty = 1000000

// Lease is all that this gateway knows of one bucket, and the tokens of it that it holds: taken in Redis already, to be spent here
// without asking until they end. What is left goes back to the bucket with the next call for the key; what is lost ends by its time.
// A gateway holds at most one lease of a bucket. The limiter's Mu guards it.
//
// New clients whose buckets are nearly full, and of which nothing else is known, share one Lease for each batch that first asked for
// them (common); one that is to hold anything about its key alone is made its own by unshare.
type Lease struct {
	Grant         // of the requests that draw on this bucket only; it has all the lease's tokens that are left
	limit  *Limit // that all of this is under
	bucket bucket // as Redis last reported it, or the bucket itself while Redis is not asked

	number    int64 // of the lease, by which Redis knows it; 0: there is none
	size      int64 // tokens that it had
	cappedFor int64 // number of the last lease by which the bucket here was capped (local.go)
	replySeq  int64 // number of the reply that last reported the bucket

	common        bool  // shared by all keys that were first asked for in one batch, and not since
	prefetchBatch int64 // number of the batch that asks for the next lease; 0: none does
	prefetchPlace int   // of that request in it
	usage
	debt
}

// lasts returns for how long this gateway uses a lease of a length: 0.2 % less, because its clock may be slow.
func lasts(length int64) int64 { return length - length/500 }

// assumeFullLocked takes the bucket to be full where Redis never reported a level, or only that it is nearly full.
func assumeFullLocked(lease *Lease) {
	if lease.bucket.period == 0 {
		lease.bucket.level, lease.bucket.period = lease.limit.full, lease.limit.period
	}
}

// changeLimitLocked returns a lease for a key that is to be asked for under another limit. The old one has nothing to give any more to the
// caches that hold its grant.
func changeLimitLocked(l *Limiter, lease *Lease, limit *Limit) *Lease {
	assumeFullLocked(lease)
	other := *lease
	other.limit = limit
	other.Plan = planOfLocked(l, limit)
	other.RefuseUntil = 0
	other.prefetchBatch = 0
	other.renewing = false
	lease.Tokens = 0
	lease.RefuseUntil = 0
	return &other
}

// applyAnswerLocked applies Redis's answer, received now, to the request at a place of the batch. Redis answered at an unknown moment between
// send and receive: each time is counted from the end that admits less. Where the request asked for the next lease, this is it.
func applyAnswerLocked(l *Limiter, lease *Lease, b *batch, place int, now int64) {
	a := parseAnswer(b.answers[place])
	if a.taken < 0 || lease.limit != b.limit {
		return // a lease that is not taken ends by its time
	}
	assumeFullLocked(lease)
	level := lessOwedLocked(lease, a.level)
	// Calls overtake each other: of two that were in flight together, the lower level is the later.
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
