package ratelimit

// Plan is what a request must pay: every draw, or none of them. It is immutable and may be shared. A plan without draws is unlimited.
type Plan struct {
	Draws []Draw
	// Own is the block's own limit. Each call names it: without its numbers the script cannot refill its level in a value that has others.
	// nil: the block has none.
	Own *Limit
	// Penalty is the penalty of the client for refusals, and Client its key, without the prefix of all keys. nil: it has none.
	Penalty *Penalty
	Client  string
	// Fast says that the fast path may decide for the identity: the first draw costs 1, and the only other draw, if any, is the route's
	// common draw (SetCommon).
	Fast bool
}

// Draw is what a plan takes from one bucket value: the cost, in tokens of each level.
type Draw struct {
	Key    string // of the value in Redis, without the prefix of all keys
	Levels *Levels
	Cost   int64 // at least 1, and at most the smallest capacity
	// Everybody says that all requests share the bucket: others may have emptied it, so that a refusal does not count for a penalty.
	Everybody bool
}

// Refusal says which limit refused a request, and by which draw of its plan.
type Refusal struct {
	Limit string // its name
	Draw  int    // index in Plan.Draws
}

// AcquirePlan takes what the plan costs for a request. It returns AllowGrant's verdict, and which limit refused if it is negative. It takes
// from leases where they have the tokens, and asks Redis for the rest, in one call. left, unless it is nil, becomes what is left for the client
// of an admitted request. Mu must be held; AcquirePlan releases it.
func AcquirePlan(cache *Cache, plan *Plan, id string, now int64, left *PlanLeft) (int64, Refusal) {
	l := cache.limiter
	t := newTaking(plan)
	t.left = left
	t.client = clientOfPlanLocked(cache, plan, now)
	if wait := penalisedLocked(t.client, now); wait > 0 {
		l.Mu.Unlock()
		return -wait, Refusal{Limit: PenaltyName}
	}
	findLeasesLocked(cache, t, now)
	if wait, refusal := emptyLocked(t, now); wait > 0 {
		countUndelayedLocked(cache, t, refusal, now)
		l.Mu.Unlock()
		return -wait, refusal
	}
	reserveLocked(t, now)
	if t.missing == 0 {
		cacheGrantLocked(cache, t, id)
		renewDueLocked(cache, t, now)
		healthy := now < *l.HealthyUntil
		l.Mu.Unlock()
		if healthy {
			return now, Refusal{}
		}
		return 1, Refusal{}
	}
	b, err := joinPlanLocked(cache, t, now)
	l.Mu.Unlock()
	if err == nil {
		b.done.Wait()
	}
	l.Mu.Lock()
	verdict, refusal := settleLocked(cache, t, b, id, err)
	l.Mu.Unlock()
	return verdict, refusal
}

// AcquirePlanLocal is AllowLocal for a plan. It locks Mu itself.
func AcquirePlanLocal(cache *Cache, plan *Plan, now int64, left *PlanLeft) (int64, Refusal) {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	t := newTaking(plan)
	t.left = left
	return acquireLocalLocked(cache, t, now)
}

// taking is a request on its way to what its plan costs.
type taking struct {
	plan     *Plan
	client   *clientPenalty // nil: it has no penalty
	leases   []*bucketLease // of each draw
	numbers  []int64        // of the leases that a draw was paid from; -1: from none
	missing  int            // draws to ask Redis for
	answered bool           // Redis has answered
	taken    bool           // and all missing draws were taken
	wait     int64          // otherwise: until the draw that refuses longest may pass, microseconds
	refusal  Refusal
	left     *PlanLeft // what is left; nil: it need not be known
}

// notPaid marks a draw that no lease has paid for.
const notPaid = -1

func newTaking(plan *Plan) *taking {
	n := len(plan.Draws)
	return &taking{plan: plan, leases: make([]*bucketLease, n), numbers: make([]int64, n)}
}

// findLeasesLocked finds the lease of each draw.
func findLeasesLocked(cache *Cache, t *taking, now int64) {
	common := cache.common
	for i := range t.plan.Draws {
		draw := &t.plan.Draws[i]
		if common != nil && draw.Levels == common.levels && draw.Key == common.key {
			t.leases[i] = common
		} else {
			t.leases[i] = bucketLeaseLocked(cache.limiter, draw.Levels, draw.Key, now)
		}
	}
}

// emptyLocked returns how long the request must wait because a bucket is known to be empty, and which limit says so; 0: none. If one is, another
// one may have tokens, but fewer than the request costs, and let it wait for longer.
func emptyLocked(t *taking, now int64) (int64, Refusal) {
	longest, refuses := int64(0), false
	refusal := Refusal{}
	for i, lease := range t.leases {
		cost := t.plan.Draws[i].Cost
		if lease.Tokens >= cost && now < lease.ends {
			continue
		}
		wait, name := int64(0), ""
		if lease.RefuseUntil != 0 && lease.NextToken > now {
			refuses = refuses || now < lease.RefuseUntil
			wait, name = untilPaidLocked(lease, cost, now)
		} else if cost > 1 {
			wait, name = waitForLocked(lease, cost, now)
		}
		if wait > longest {
			longest = wait
			refusal = Refusal{Limit: name, Draw: i}
		}
	}
	if !refuses {
		return 0, Refusal{}
	}
	return longest, refusal
}

// untilPaidLocked returns how long it takes until an empty bucket value has the cost, as far as this gateway knows, and which limit needs
// longest.
func untilPaidLocked(lease *bucketLease, cost, now int64) (int64, string) {
	longest, name := lease.NextToken-now, lease.emptyLimit
	if cost == 1 {
		return longest, name
	}
	if wait, slowest := waitForLocked(lease, cost, now); wait > longest {
		longest = wait
		name = slowest
	}
	return longest, name
}

// atLeastOne returns a wait in microseconds, at least 1: a verdict of 0 would mean something else.
func atLeastOne(wait int64) int64 {
	if wait < 1 {
		return 1
	}
	return wait
}

// reserveLocked pays the draws whose leases have the tokens, and counts the others.
func reserveLocked(t *taking, now int64) {
	t.missing = 0
	for i, lease := range t.leases {
		cost := t.plan.Draws[i].Cost
		if lease.Tokens >= cost && now < lease.ends {
			lease.Tokens -= cost
			t.numbers[i] = lease.number
			if t.left != nil {
				t.left.noteLease(lease)
			}
		} else {
			t.numbers[i] = notPaid
			t.missing++
		}
	}
}

// giveBackLocked gives back what the request has reserved: to the lease that it came from, or, if that was exchanged meanwhile, to the
// bucket in Redis.
func giveBackLocked(cache *Cache, t *taking) {
	for i, lease := range t.leases {
		if t.numbers[i] == notPaid {
			continue
		}
		cost := t.plan.Draws[i].Cost
		if lease.number == t.numbers[i] {
			lease.Tokens += cost
		} else {
			lease.refund += cost
			refundSoonLocked(cache, lease, cache.limiter.Now())
		}
		t.numbers[i] = notPaid
	}
}

// settleLocked ends a request that asked Redis.
func settleLocked(cache *Cache, t *taking, b *batch, id string, err error) (int64, Refusal) {
	if err == nil && b.err != nil {
		err = b.err
	}
	if err == nil && !t.answered {
		err = ErrNotABucket
	}
	if err != nil {
		giveBackLocked(cache, t)
		cache.lastErr = err
		return Undecided, Refusal{}
	}
	if !t.taken {
		giveBackLocked(cache, t)
		countUndelayedLocked(cache, t, t.refusal, cache.limiter.Now())
		return -atLeastOne(t.wait), t.refusal
	}
	cacheGrantLocked(cache, t, id)
	return b.grantedAt, Refusal{}
}

// cacheGrantLocked lets the fast path decide the next requests of an identity, if it may.
func cacheGrantLocked(cache *Cache, t *taking, id string) {
	now := int64(0)
	if t.client != nil {
		now = cache.limiter.Now()
		watchPenaltiesLocked(cache.limiter, t.leases, now)
	}
	if !t.plan.Fast || len(t.leases) == 0 {
		return
	}
	if len(t.leases) > 1 && t.leases[1] != cache.common {
		return
	}
	if t.leases[0].Tokens > 0 && letPassLocked(t.client, &t.leases[0].Grant, now) {
		putLocked(cache, id, &t.leases[0].Grant)
	}
}

// RefundDraw gives back what a plan's draw has cost: to the lease, if it has room, and else to the bucket in Redis. It locks Mu itself and does
// not wait for Redis.
func RefundDraw(cache *Cache, plan *Plan, draw int, now int64) {
	l := cache.limiter
	l.Mu.Lock()
	defer l.Mu.Unlock()
	t := newTaking(plan)
	findLeasesLocked(cache, t, now)
	lease, cost := t.leases[draw], plan.Draws[draw].Cost
	if l.Unavailable.Load() {
		refundLocalLocked(lease, cost, now)
		return
	}
	lease.RefuseUntil = 0
	if lease.number != 0 && now < lease.ends && lease.Tokens+cost <= lease.size {
		lease.Tokens += cost // as if Redis had leased it
		return
	}
	lease.refund += cost
	raiseLevelsLocked(lease, cost, now)
	refundSoonLocked(cache, lease, now)
}

// refundSoonLocked has the refund of a lease sent in the background.
func refundSoonLocked(cache *Cache, lease *bucketLease, now int64) {
	joinAskLocked(cache, &planAsk{renew: lease, draws: []askedDraw{{lease: lease}}}, now)
}
