package ratelimit

import (
	"context"
	"time"
)

// A route may let requests wait for their tokens instead of refusing them. A request waits in the queue of the bucket value that refused it.
// When its tokens are due it asks for them like any other request, so that waiting admits no request that the limits do not. While a bucket
// value has a queue, later requests join its end, and this gateway holds no lease on it: a lease would let them overtake.

// delays is the requests of a limiter that wait. The limiter's Mu guards it.
type delays struct {
	waiting int64              // requests, in all queues
	queues  map[string][]*Turn // by the key of the bucket value, the longest-waiting first; none is empty
}

// Turn is a request that may have to wait for its tokens. Only the request itself uses its exported fields; the limiter's Mu guards the rest.
type Turn struct {
	Taken bool // the request has its tokens
	Left  bool // the client has left

	arrived int64
	key     string // of the bucket value whose queue it is in; "": none
	draw    int    // of the request's plan
	cost    int64
	due     int64
	asking  bool // it asks for its tokens
	gone    bool
	woken   bool
	wake    chan bool // has room for one
	timer   *time.Timer
}

// SetDelay lets a route's requests wait at most this long, and at most this many at once of all routes. Call it before the first request.
func SetDelay(cache *Cache, longest time.Duration, most int64) {
	cache.longestDelay = longest.Microseconds()
	cache.mostDelayed = most
}

// NewTurn returns the turn of a request that arrived at a time.
func NewTurn(arrived int64) *Turn { return &Turn{arrived: arrived, wake: make(chan bool, 1)} }

// AcquireInTurn is AcquirePlan for a request that waits for its turn. A refusal may only mean that others wait for the same bucket. It locks
// Mu itself.
func AcquireInTurn(cache *Cache, plan *Plan, id string, turn *Turn, now int64) (int64, Refusal) {
	cache.lock.Lock()
	if wait, refusal := behindOthersLocked(cache, plan, turn, now); wait > 0 {
		cache.lock.Unlock()
		return -wait, refusal
	}
	turn.asking = true
	return AcquirePlan(cache, plan, id, now)
}

// AcquireLocalInTurn is AcquireInTurn while Redis is not asked.
func AcquireLocalInTurn(cache *Cache, plan *Plan, turn *Turn, now int64) (int64, Refusal) {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	if wait, refusal := behindOthersLocked(cache, plan, turn, now); wait > 0 {
		return -wait, refusal
	}
	turn.asking = true
	return acquireLocalLocked(cache, plan, now)
}

// behindOthersLocked returns how long a request must wait because others wait for a bucket of its plan, and which limit they wait for; 0: none
// does, or the client is penalised.
func behindOthersLocked(cache *Cache, plan *Plan, turn *Turn, now int64) (int64, Refusal) {
	l := cache.limiter
	longest := int64(0)
	refusal := Refusal{}
	if l.delays.waiting == 0 || penalisedLocked(clientOfPlanLocked(cache, plan, now), now) > 0 {
		return longest, refusal
	}
	t := newTaking(plan)
	findLeasesLocked(cache, t, now)
	for i, lease := range t.leases {
		if turn.key != "" && turn.key != lease.key {
			continue // it has waited: two queues could pass it to each other for ever
		}
		ahead, mustWait := aheadLocked(l, turn, lease.key)
		if !mustWait {
			continue
		}
		wait, name := waitForLocked(lease, ahead+plan.Draws[i].Cost, now)
		if name == "" {
			name = lease.levels.names[0]
		}
		if wait < leastDelay {
			wait = leastDelay // until those ahead have asked
		}
		if wait > longest {
			longest = wait
			refusal = Refusal{Limit: name, Draw: i}
		}
	}
	return longest, refusal
}

// leastDelay is how long a request waits at least for those ahead of it, in microseconds.
const leastDelay = 1000

// aheadLocked returns the tokens that others who came before will take, and whether one of them has yet to ask.
func aheadLocked(l *Limiter, turn *Turn, key string) (int64, bool) {
	ahead, mustWait := int64(0), false
	for _, other := range l.delays.queues[key] {
		if other == turn {
			break
		}
		ahead += other.cost
		mustWait = mustWait || !other.asking || turn.key != key
	}
	return ahead, mustWait
}

// Delayed returns how many requests wait for their tokens.
func Delayed(l *Limiter) int64 {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return l.delays.waiting
}

// isDelayedLocked reports whether requests wait for a bucket value.
func isDelayedLocked(l *Limiter, key string) bool {
	return l.delays.waiting > 0 && l.delays.queues[key] != nil
}

// JoinQueue lets a refused request wait for the bucket value that refused it, and returns 0. If it may not wait, JoinQueue returns after how
// many microseconds its tokens would be due, with regard to the requests that wait.
func JoinQueue(cache *Cache, plan *Plan, turn *Turn, refusal Refusal, wait, now int64) int64 {
	l := cache.limiter
	l.Mu.Lock()
	defer l.Mu.Unlock()
	turn.asking = false
	t := newTaking(plan)
	findLeasesLocked(cache, t, now)
	lease, latest := t.leases[refusal.Draw], turn.arrived+cache.longestDelay
	if turn.key != "" {
		latest += cache.timeout // it has waited: do not refuse it because it was woken late
	}
	moves := turn.key != lease.key
	if moves {
		dequeueLocked(cache, plan, turn, now)
	}
	ahead, _ := aheadLocked(l, turn, lease.key)
	if due, _ := waitForLocked(lease, ahead+plan.Draws[refusal.Draw].Cost, now); due > wait {
		wait = due
	}
	if now+wait > latest || moves && l.delays.waiting >= cache.mostDelayed {
		dequeueLocked(cache, plan, turn, now)
		t.client = clientOfPlanLocked(cache, plan, now)
		countRefusalLocked(l, t, refusal, now)
		return atLeastOne(wait)
	}
	if moves {
		turn.key, turn.draw, turn.cost = lease.key, refusal.Draw, plan.Draws[refusal.Draw].Cost
		l.delays.queues[lease.key] = append(l.delays.queues[lease.key], turn)
		l.delays.waiting++
		lease.Until = 0 // the fast path asks
	} else {
		rescheduleLocked(l, lease, now)
	}
	wakeAtLocked(l, turn, now+wait, now)
	return 0
}

// AwaitTurn waits until the tokens of a request are due, or the client has left.
func AwaitTurn(ctx context.Context, cache *Cache, turn *Turn) {
	stop := context.AfterFunc(ctx, func() {
		defer func() { recover() }()
		cache.lock.Lock()
		defer cache.lock.Unlock()
		turn.gone = true
		wakeLocked(turn)
	})
	<-turn.wake
	stop()
	cache.lock.Lock()
	turn.woken = false
	turn.Left = turn.gone
	cache.lock.Unlock()
}

// EndTurn removes a request from its queue, if it is in one. Those behind a request that has taken nothing move up.
func EndTurn(cache *Cache, plan *Plan, turn *Turn, now int64) {
	cache.lock.Lock()
	defer cache.lock.Unlock()
	dequeueLocked(cache, plan, turn, now)
}

func dequeueLocked(cache *Cache, plan *Plan, turn *Turn, now int64) {
	l, key := cache.limiter, turn.key
	if key == "" {
		return
	}
	turn.key = ""
	turn.timer.Stop()
	l.delays.waiting--
	others := []*Turn{}
	for _, other := range l.delays.queues[key] {
		if other != turn {
			others = append(others, other)
		}
	}
	if len(others) == 0 {
		delete(l.delays.queues, key)
		return
	}
	l.delays.queues[key] = others
	if !turn.Taken {
		t := newTaking(plan)
		findLeasesLocked(cache, t, now)
		rescheduleLocked(l, t.leases[turn.draw], now)
	}
}

// rescheduleLocked computes anew when the tokens of the requests in a queue are due.
func rescheduleLocked(l *Limiter, lease *bucketLease, now int64) {
	tokens := int64(0)
	for _, turn := range l.delays.queues[lease.key] {
		tokens += turn.cost
		if turn.asking {
			continue
		}
		wait, _ := waitForLocked(lease, tokens, now)
		wakeAtLocked(l, turn, now+wait, now)
	}
}

// wakeAtLocked wakes a request at a time. The timer only ends its sleep: the limiter's clock says whether it is due.
func wakeAtLocked(l *Limiter, turn *Turn, due, now int64) {
	turn.due = due
	after := time.Duration(due-now) * time.Microsecond
	if turn.timer != nil {
		turn.timer.Reset(after)
		return
	}
	turn.timer = time.AfterFunc(after, func() {
		defer func() { recover() }()
		wakeIfDue(l, turn)
	})
}

func wakeIfDue(l *Limiter, turn *Turn) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if left := turn.due - l.Now(); left > 0 {
		turn.timer.Reset(time.Duration(left) * time.Microsecond)
		return
	}
	wakeLocked(turn)
}

// wakeLocked wakes a request that waits, once.
func wakeLocked(turn *Turn) {
	if !turn.woken {
		turn.woken = true
		turn.wake <- true
	}
}

func newDelays() delays { return delays{queues: map[string][]*Turn{}} }

// countUndelayedLocked is countRefusalLocked, unless the request may still wait.
func countUndelayedLocked(cache *Cache, t *taking, refusal Refusal, now int64) {
	if cache.longestDelay == 0 {
		countRefusalLocked(cache.limiter, t, refusal, now)
	}
}
