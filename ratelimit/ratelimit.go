// Package ratelimit is a token bucket for each key, shared through Redis by every gateway.
//
// A bucket starts full, a request takes one token, and time refills it. The decision is one Lua script on Redis's
// clock. While Redis is away, and where there is none, AllowLocal decides on a bucket in this process that goes on from
// the last level Redis told of.
package ratelimit

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/resilient-gateway/resilience/internal/store"
)

// ErrNotABucket says that the key holds something that this package did not write.
var ErrNotABucket = errors.New("ratelimit: the key in redis does not hold a bucket")

const (
	maxKeys   = 65536 // buckets known in this process
	maxBatch  = 128   // keys in one call
	maxFlying = 4     // calls under way at once
)

var script = store.NewScript(take)

// Store runs scripts on Redis.
type Store interface {
	Run(calls []*store.Call, deadline time.Time) error
}

// Decision is the answer to one request.
type Decision struct {
	Allowed    bool
	RetryAfter time.Duration // where not allowed: until the bucket holds a token, if nobody else takes it
}

// Limiter decides for all keys of one name. It is safe for concurrent use. The time now of its methods is the caller's
// own, microseconds that only ever grow.
type Limiter struct {
	store  Store
	prefix string // of a bucket's key in Redis

	mu     sync.Mutex // guards what follows
	queue  []*request // waiting for the next call
	flying int        // calls under way
	heard  int64      // answers so far
	known  map[string]*knownBucket
	shared *knownBucket // for all keys that known has no room for
}

// request is one caller of Allow, waiting.
type request struct {
	key      string
	limit    *Limit
	deadline time.Time
	rider    *store.Call
	done     sync.WaitGroup // until it is answered, or has a batch to carry
	batch    []*request     // what it is to carry, itself first; nil where another carries it
	decision Decision
	err      error
}

// New returns a limiter that keeps its buckets in the given store, under keys that begin with prefix. With a nil store
// there is AllowLocal only.
func New(shared Store, prefix string) *Limiter {
	return &Limiter{store: shared, prefix: prefix, known: map[string]*knownBucket{}}
}

// Allow takes a token from the bucket of key, in Redis. Requests that wait at the same time share one call. rider, which
// may be nil, is a call of somebody else's that goes the same way. The error, which comes by the deadline, wraps
// store.ErrUnavailable, or is ErrNotABucket or the script's own.
func (l *Limiter) Allow(key string, limit *Limit, now int64, deadline time.Time, rider *store.Call) (Decision, error) {
	r := &request{key: key, limit: limit, deadline: deadline, rider: rider}
	l.mu.Lock()
	l.queue = append(l.queue, r)
	if l.flying < maxFlying {
		l.flying++
		r.batch = l.nextBatch()
		l.mu.Unlock()
	} else {
		r.done.Add(1)
		l.mu.Unlock()
		r.done.Wait()
	}
	if r.batch == nil {
		return r.decision, r.err
	}
	l.carry(r.batch, now)
	l.handOn()
	for _, other := range r.batch {
		if other != r {
			other.done.Done()
		}
	}
	return r.decision, r.err
}

// nextBatch takes the requests of the next call off the queue. mu is held.
func (l *Limiter) nextBatch() []*request {
	n := len(l.queue)
	if n > maxBatch {
		n = maxBatch
	}
	batch := l.queue[:n]
	var rest []*request
	l.queue = append(rest, l.queue[n:]...)
	return batch
}

// handOn has the first of the requests that wait carry the next batch, or ends this line of calls.
func (l *Limiter) handOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.flying--
		return
	}
	batch := l.nextBatch()
	batch[0].batch = batch
	batch[0].done.Done()
}

// carry asks Redis for all requests of the batch.
func (l *Limiter) carry(batch []*request, now int64) {
	call := &store.Call{Script: script}
	calls := []*store.Call{call}
	deadline := batch[0].deadline
	var groups []*group
	for _, r := range batch {
		groups = join(groups, r)
		if r.deadline.Before(deadline) {
			deadline = r.deadline
		}
		if r.rider != nil && !rides(calls, r.rider) {
			calls = append(calls, r.rider)
		}
	}
	call.Keys = make([]string, 0, len(groups))
	call.Args = make([]string, 0, 4*len(groups))
	for _, g := range groups {
		call.Keys = append(call.Keys, l.prefix+g.key)
		call.Args = append(call.Args, g.limit.args[0], g.limit.args[1], g.limit.args[2], strconv.Itoa(len(g.requests)))
	}

	l.mu.Lock()
	sent := l.heard
	l.mu.Unlock()
	l.store.Run(calls, deadline)

	if call.Err == nil && len(call.Reply) != 2*len(groups) {
		call.Err = ErrNotABucket
	}
	l.mu.Lock()
	l.heard++
	for i, g := range groups {
		if call.Err != nil {
			g.fail(call.Err)
		} else if call.Reply[2*i] < 0 {
			g.fail(ErrNotABucket)
		} else {
			l.remember(g.key, g.limit, call.Reply[2*i+1], now, sent)
			g.answer(call.Reply[2*i], call.Reply[2*i+1])
		}
	}
	l.mu.Unlock()
	for _, c := range calls[1:] {
		c.Finish()
	}
}

// rides tells whether a rider of the same kind is among the calls already.
func rides(calls []*store.Call, rider *store.Call) bool {
	for _, c := range calls {
		if c.Script == rider.Script && c.Keys[0] == rider.Keys[0] {
			return true
		}
	}
	return false
}

// group is the requests of a batch that ask for the same bucket under the same limit.
type group struct {
	key      string
	limit    *Limit
	requests []*request
}

func join(groups []*group, r *request) []*group {
	for _, g := range groups {
		if g.key == r.key && g.limit == r.limit {
			g.requests = append(g.requests, r)
			return groups
		}
	}
	return append(groups, &group{key: r.key, limit: r.limit, requests: []*request{r}})
}

func (g *group) fail(err error) {
	for _, r := range g.requests {
		r.err = err
	}
}

// answer gives the tokens taken to the requests that came first.
func (g *group) answer(taken, level int64) {
	for i, r := range g.requests {
		if int64(i) < taken {
			r.decision = Decision{Allowed: true}
		} else {
			r.decision = Decision{RetryAfter: g.limit.retryAfter(level)}
		}
	}
}
